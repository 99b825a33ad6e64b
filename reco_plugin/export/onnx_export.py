"""Writes a model folder for an encoder in torch: ONNX graphs, their Triton configuration, tokenizer and manifest.

The folder is written beside the target and compared with torch. It replaces the target only if the comparison succeeds.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..defaults import DEFAULT_K
from ..encoders.model_folder import (
    FORMAT,
    Artifact,
    FusionInfo,
    ModelFile,
    Policy,
    clip_graph,
    fusion_graph,
    whole_model,
    write_manifest,
)
from ..encoders.preprocess import Tokenizer, images_to_array
from ..encoders.preprocess.text import needed_tokens
from ..encoders.runtimes.base import Arrays
from ..encoders.runtimes.onnxruntime import OrtSession
from ..errors import ConfigError
from ..settings import Settings
from ..types import MODALITIES, FuserName, ImageInput
from .export_options import ExportOptions, Precision, Recipe, Serving, check_feasible
from .folder import (
    ONE_FILE,
    Card,
    EncoderCard,
    GraphSpec,
    graph_bytes,
    graph_file,
    graph_specs,
    note_weights,
    quiet,
    to_precision,
    write_beside,
    write_configs,
)
from .parity import Parity, check, compare, sample_images, sample_texts
from .train_layer import FUSION, Fusions, load_fusions

if TYPE_CHECKING:
    from .open_clip import FrozenClip

_ROWS = 16  # inputs that are compared at once, to limit RAM


def export_model(options: ExportOptions, out: Path, serving: Serving | None = None) -> list[Parity]:
    """Export an open_clip model, with the paper's layer if ``options.fusion`` has one.

    Raises:
        ConfigError: the encoder cannot be loaded or exported, the fusion is missing or belongs to another encoder, or
            a template has no ``{}``.
        ArtifactError: the parity check failed; nothing was written.
    """
    from .open_clip import load_frozen

    if options.fuser == "paper" and options.fusion is None:
        raise ConfigError("fuser 'paper' needs a trained layer: give --fusion the folder that `reco model train` wrote")
    card = Card.of(options, fuser=options.fuser)
    clip = load_frozen(options.model, options.pretrained, random_weights=options.random_weights)
    if options.random_weights and not options.pretrained:
        warnings.warn(f"{options.model} is exported with RANDOM weights: its embeddings are noise", stacklevel=2)
    fusions: Fusions | None = None
    recipe: dict[str, Any] = {}
    if options.fusion:
        fusions, recipe = _load_trained(clip, options.fusion)
    fusion = card.fusion.model_copy(update={"trained_on": recipe.get("source", "")})
    card = replace(card, policy=Policy(k=options.k or recipe.get("k", DEFAULT_K)), fusion=fusion)
    return export(clip, fusions, out, card=card, precision=options.precision, serving=serving)


def _load_trained(clip: FrozenClip, run: Path) -> tuple[Fusions, dict[str, Any]]:
    """Load the fusions and the recipe of a training, and check that they belong to this encoder."""
    fusions = load_fusions(run / FUSION)
    recipe = json.loads((run / Recipe.file).read_text()) if (run / Recipe.file).is_file() else {}
    if fusions.config.dimension != clip.dimension:
        raise ConfigError(
            f"the fusion in {run} has {fusions.config.dimension} dimensions, but the encoder {clip.dimension}"
        )
    if recipe.get("encoder", clip.digest) != clip.digest:
        raise ConfigError(
            f"the fusion in {run} was trained on another encoder (sha256 {recipe['encoder'][:12]}) than {clip.name} "
            f"({clip.digest[:12]}): give --model and --pretrained of the training"
        )
    return fusions, recipe


def export(
    clip: FrozenClip,
    fusions: Fusions | None,
    out: Path,
    *,
    card: Card | None = None,
    precision: Precision = "fp32",
    serving: Serving | None = None,
    limit: int = ONE_FILE,
) -> list[Parity]:
    """Write a model folder and check its parity; returns the measurements.

    Args:
        clip: the frozen encoder.
        fusions: the paper's layer, of the same dimension; None: the closed form only.
        out: the folder; the complete model replaces an older model there.
        card: entries of the manifest.
        precision: precision of the weights.
        serving: Triton's batches, queue and accelerator.
        limit: bytes of a graph's weights above which they have a second file.

    Raises:
        ArtifactError: a graph differs from torch by more than its precision allows, or ``out`` exists and is no model
            folder; nothing is written.
        ConfigError: int8 for a GPU.
    """
    serving, card = serving or Serving(), card or Card()
    check_feasible(precision, serving)
    specs = graph_specs(clip.image, clip.text, clip.dimension, card.policy.k)
    card = replace(card, fusion=card.fusion.model_copy(update={"config": _shape_of(fusions)}))
    made_with = {package: version(package) for package in ("reco-plugin", "torch", "open_clip_torch", "onnx")}
    with whole_model(out) as folder:
        checks = cases(clip, fusions, specs)
        parities = [export_graph(case, graph_file(folder, case.spec.name), precision, limit) for case in checks]
        encoder = EncoderCard(clip.name, clip.digest, clip.dimension, clip.image, clip.text, clip.tokenizer_json)
        write_beside(folder, [one.graph for one in parities], encoder, card, precision, serving, made_with)
    return parities


def refit(
    base: Artifact,
    fusions: Fusions | None,
    out: Path,
    *,
    policy: Policy,
    trained_on: str,
    fuser: FuserName | None = None,
) -> list[Parity]:
    """Copy a model folder with another policy, and optionally another layer; returns the parity of the layer.

    The encoder stays the same, so memories and indexes stay valid.

    Args:
        base: the folder with the encoder; for an API, only its manifest.
        fusions: the new layer, of the same dimension; None keeps the layer of ``base``.
        out: the folder; the complete model replaces an older model there.
        policy: default options of a refinement.
        trained_on: source of the training pairs, for the manifest.
        fuser: default method; None: the layer if it is new, else the closed form.

    Raises:
        ArtifactError: a file of ``base`` is damaged, the layer differs from torch by more than its precision allows, or
            ``out`` exists and is no model folder; nothing is written.
    """
    base.verify()
    manifest = base.manifest
    specs = graph_specs(manifest.image, manifest.text, manifest.dimension, policy.k)
    with whole_model(out) as folder:
        if not manifest.api:
            shutil.copytree(base.folder, folder, dirs_exist_ok=True)
        parities = []
        for case in fusion_cases(fusions, specs):
            shutil.rmtree(folder / case.spec.name, ignore_errors=True)
            parities.append(export_graph(case, graph_file(folder, case.spec.name), manifest.precision))
        layer = {one.graph: ModelFile.of(graph_file(folder, one.graph)) for one in parities}
        fusion = FusionInfo(
            fuser=fuser or ("paper" if fusions else "reco"),
            config=_shape_of(fusions) or manifest.fusion.config,
            trained_on=trained_on,
        )
        made_with = {f"{name} (fusion)": version(name) for name in ("reco-plugin", "torch", "onnx")}
        changed = {"format": FORMAT, "fusion": fusion, "policy": policy, "graphs": manifest.graphs | layer} | {
            "made_with": manifest.made_with | made_with
        }
        manifest = manifest.model_copy(update=changed)
        write_manifest(folder, manifest)
        write_configs(folder, manifest, layer, Serving())
    return parities


def _shape_of(fusions: Fusions | None) -> dict[str, int | float]:
    return asdict(fusions.config) if fusions else {}


def export_graph(case: GraphCheck, path: Path, precision: Precision, limit: int = ONE_FILE) -> Parity:
    """Write one graph and compare it with torch; raises ArtifactError if it differs."""
    path.parent.mkdir(parents=True)
    with quiet():
        to_onnx(case, path, limit)
        to_precision(path, precision, limit)
    parity = measure(case, path, Settings(provider="cpu"))
    check(parity, precision)
    return parity


def measure(case: GraphCheck, path: Path, settings: Settings) -> Parity:
    """Run all batches of a case in process and compare the outputs with torch.

    Raises:
        SessionError: the graph cannot run on the provider of the settings.
    """
    session = OrtSession(path, settings)
    results = [session.run(batch.inputs) for batch in case.batches]
    first, *others = (port.name for port in case.spec.outputs)
    differences = [
        float(np.abs(batch.expected[name] - outputs[name]).max())
        for batch, outputs in zip(case.batches, results, strict=True)
        for name in others
    ]
    return compare(
        case.spec.name,
        np.concatenate([batch.expected[first] for batch in case.batches]),
        np.concatenate([outputs[first] for outputs in results]),
        difference=max(differences, default=0.0),
        size_bytes=graph_bytes(path),
    )


@dataclass(frozen=True)
class GraphSample:
    """Inputs of a graph and its expected outputs; axis 0 of each array is the batch."""

    inputs: Arrays
    expected: Arrays


@dataclass(frozen=True)
class GraphCheck:
    """A module to export, with inputs to check it."""

    spec: GraphSpec  # name and ports
    module: nn.Module  # inputs and outputs as in ``spec``, in order
    batches: list[GraphSample]  # the exporter traces the first one


def cases(clip: FrozenClip, fusions: Fusions | None, specs: dict[str, GraphSpec]) -> Iterator[GraphCheck]:
    """Yield the graphs of a model, so that the inputs of only one are in RAM."""
    compared = {"image": _image_batches(clip, sample_images()), "text": _text_batches(clip, sample_texts())}
    for modality in MODALITIES:
        yield GraphCheck(specs[clip_graph(modality)], clip.tower(modality), list(compared[modality]))
    yield from fusion_cases(fusions, specs)


def fusion_cases(fusions: Fusions | None, specs: dict[str, GraphSpec]) -> Iterator[GraphCheck]:
    """Yield the layer of both modalities, if there is one."""
    if fusions is None:
        return
    inputs = fusion_inputs(fusions.config.dimension)
    for modality in MODALITIES:
        layer = fusions.sides[modality]
        with torch.no_grad():
            refined, weights = layer(*map(torch.from_numpy, inputs.values()))
        expected = {"refined": refined.numpy(), "weights": weights.numpy()}
        yield GraphCheck(specs[fusion_graph(modality)], layer, [GraphSample(inputs, expected)])


def fusion_inputs(dimension: int, batch: int = 64, k: int = 6) -> Arrays:
    """Make inputs of a fusion: near neighbours, some of them without trust, and one row without any."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=(batch, dimension))
    near = query[:, None] + rng.normal(size=(batch, k, dimension))
    trust = rng.choice([0.0, 0.3, 1.0], size=(batch, k))
    trust[0] = 0.0
    return {
        "query": (query / np.linalg.norm(query, axis=-1, keepdims=True)).astype(np.float32),
        "neighbours": (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float32),
        "similarity": rng.uniform(0.2, 1.0, size=(batch, k)).astype(np.float32),
        "trust": trust.astype(np.float32),
    }


def _image_batches(clip: FrozenClip, images: Sequence[ImageInput]) -> Iterator[GraphSample]:
    """Yield batches of pixels with the outputs of open_clip on normalised pixels."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (clip.image.mean, clip.image.std))
    for start in range(0, len(images), _ROWS):
        pixels = images_to_array(images[start : start + _ROWS], clip.image)
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
        yield GraphSample({"pixels": pixels}, _features(clip.model.encode_image, x))


def _text_batches(clip: FrozenClip, texts: list[str]) -> Iterator[GraphSample]:
    """Yield batches of every length in use, with the outputs of open_clip on the whole context."""
    ids = Tokenizer(clip.tokenizer_json, clip.text)(texts).ids
    lengths = np.array(clip.text.lengths)
    ends = needed_tokens(ids, clip.text) if clip.text.dynamic else np.full(len(ids), lengths[-1])
    shortest = np.searchsorted(lengths, ends)  # index of the shortest length that fits
    turn = shortest + np.arange(len(ids)) % (len(lengths) - shortest)  # every longer length has its turn
    for index, length in enumerate(lengths):
        rows = np.flatnonzero(turn == index)
        for part in (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)):
            cut = np.ascontiguousarray(ids[part, :length])
            yield GraphSample({"tokens": cut}, _features(clip.model.encode_text, torch.from_numpy(ids[part]).long()))


def _features(encode: Any, x: Tensor) -> Arrays:
    with torch.no_grad():
        return {"features": F.normalize(encode(x), dim=-1).numpy()}


def to_onnx(case: GraphCheck, path: Path, limit: int = ONE_FILE) -> None:
    """Export a module for any batch size, and for any size of the dimensions that are -1.

    Args:
        case: the module and an example.
        path: file of the graph.
        limit: bytes of weights above which they have a second file.
    """
    arrays = case.batches[0].inputs.values()
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    if len(arguments[0]) == 1:  # torch would make a batch of one a constant
        arguments = tuple(torch.cat([argument, argument]) for argument in arguments)
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = [
        {0: batch} | {axis + 1: torch.export.Dim.DYNAMIC for axis, size in enumerate(port.dims) if size == -1}
        for port in case.spec.inputs
    ]
    with torch.no_grad():
        program: Any = torch.onnx.export(
            case.module.eval(),
            arguments,
            input_names=[port.name for port in case.spec.inputs],
            output_names=[port.name for port in case.spec.outputs],
            dynamic_shapes=tuple(shapes),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    weights = (one.const_value for one in program.model.graph.initializers.values())
    program.save(path, external_data=sum(one.nbytes for one in weights) > limit)
    note_weights(path)
    onnx.checker.check_model(path)
