"""Write a model folder: ONNX graphs, their Triton configuration, tokenizer and manifest.

Everything is written and compared with torch in a temporary folder beside the target, which replaces the target only
if it passes. ``reco export`` takes an encoder and the fusions of a run.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artifact import MANIFEST, TOKENIZER, FusionInfo, Manifest, ModelFile, Policy, whole_model
from ..config import Settings
from ..defaults import NEIGHBOURS
from ..errors import ConfigError
from ..sessions.base import Arrays
from ..sessions.ort import OrtSession
from ..types import FuserName
from ..values import TEMPLATES, check_templates
from .graph_file import ONE_FILE, graph_bytes, graph_file
from .loop import FUSION, Fusions, load_fusions
from .model import FusionConfig
from .parity import Parity, Precision, check, compare, sample_images, sample_texts
from .precision import quiet, to_precision
from .recipe import ExportOptions, Recipe, Serving, check_feasible
from .to_onnx import GraphCheck, GraphSample, cases, to_onnx
from .triton import graph_specs, render_config

if TYPE_CHECKING:
    from .encoder import FrozenClip


def export_model(options: ExportOptions, out: Path, serving: Serving | None = None) -> list[Parity]:
    """Export an encoder with the closed form, and the paper's layer where it is trained or asked for.

    Raises:
        ConfigError: the encoder cannot be loaded or exported, the fusion belongs to another one or is missing, or a
            template has no place for a name.
        ArtifactError: the parity check failed; nothing was written.
    """
    from .encoder import load_frozen  # brings open_clip, of which a fit's export needs nothing

    templates = check_templates(options.templates) or TEMPLATES
    if options.fuser == "paper" and options.fusion is None and not options.random_fusion:
        raise ConfigError("fuser 'paper' has no trained layer: give --fusion the folder of a `reco train`")
    fusion, clip = options.fusion, load_frozen(options.model, options.pretrained, random_weights=options.random_weights)
    if options.random_weights and not options.pretrained:
        warnings.warn(f"{options.model} is exported with RANDOM weights: its embeddings mean nothing", stacklevel=2)
    untrained = Fusions(FusionConfig("paper", clip.dimension)).eval() if options.fuser == "paper" else None
    fusions = _load_trained(clip, fusion) if fusion else untrained
    recipe = json.loads((fusion / Recipe.file).read_text()) if fusion and (fusion / Recipe.file).is_file() else {}
    policy = Policy(k=options.k or recipe.get("k", NEIGHBOURS))
    card = Card(policy, options.fuser, templates, recipe.get("source", ""), options.licenses, options.matryoshka)
    return export(clip, fusions, out, card=card, precision=options.precision, serving=serving)


def _load_trained(clip: FrozenClip, run: Path) -> Fusions:
    """Load the fusions of a run, if they were trained on this encoder."""
    fusions = load_fusions(run / FUSION)
    if fusions.config.dimension != clip.dimension:
        raise ConfigError(f"the fusion in {run} is {fusions.config.dimension}-d, the encoder {clip.dimension}-d")
    caches = {path.stem.split("-")[1] for path in run.glob("vectors-*.npz")}  # vectors-ENCODER-PAIRS.npz
    if caches and clip.digest[:12] not in caches:
        raise ConfigError(
            f"the fusion in {run} was trained on another encoder (sha256 {', '.join(sorted(caches))}) than "
            f"{clip.name} ({clip.digest[:12]}): give --model and --pretrained of the training"
        )
    return fusions


@dataclass(frozen=True)
class Card:
    """The entries of a manifest besides the encoder."""

    policy: Policy = field(default_factory=Policy)  # defaults of the refinement
    fuser: FuserName = "reco"  # which one refines by default
    templates: tuple[str, ...] = ()  # prompts that the encoder was trained with
    trained_on: str = ""  # source of the training pairs
    licenses: tuple[str, ...] = ()  # of weights and data
    matryoshka: tuple[int, ...] = ()  # dimensions that its vectors may be cut to


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
        fusions: of the same dimension, beside the closed form; None: that alone.
        out: the folder; an older model there is replaced when the new one is complete.
        card: for the manifest.
        precision: of the weights.
        serving: Triton's batches, queue and accelerator.
        limit: bytes of weights of a graph above which they lie in a second file.

    Raises:
        ArtifactError: a graph differs from torch by more than its precision allows; nothing is written.
        ArtifactError: ``out`` exists and is no model folder.
        ConfigError: int8 for a GPU, which has no kernels for it in ONNX Runtime.
    """
    serving, card = serving or Serving(), card or Card()
    check_feasible(precision, serving)
    specs = graph_specs(clip.image, clip.text, dimension := clip.dimension, card.policy.k)
    with whole_model(out) as folder:
        parities, graphs = [], {}
        for case in cases(clip, fusions, specs, sample_images(), sample_texts()):
            path = graph_file(folder, case.spec.name)
            parities.append(export_graph(case, path, precision, limit))
            graphs[case.spec.name] = file = ModelFile.of(path)
            config = render_config(case.spec, serving, half=precision == "fp16", sha256=file.sha256)
            (folder / case.spec.name / "config.pbtxt").write_text(config, encoding="utf-8")
        (folder / TOKENIZER).write_text(clip.tokenizer_json, encoding="utf-8")
        manifest = Manifest(
            name=clip.name,
            digest=clip.digest,
            dimension=dimension,
            image=clip.image,
            text=clip.text,
            templates=card.templates,
            matryoshka=card.matryoshka,
            fusion=FusionInfo(fuser=card.fuser, config=shape_of(fusions), trained_on=card.trained_on),
            policy=card.policy,
            precision=precision,
            graphs=graphs,
            tokenizer=ModelFile.of(folder / TOKENIZER),
            licenses=card.licenses,
            made_with={package: version(package) for package in ("reco-plugin", "torch", "open_clip_torch", "onnx")},
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return parities


def shape_of(fusions: Fusions | None, image: FusionConfig | None = None) -> dict[str, Any]:
    """Describe fusions for a manifest; ``image`` is the shape of the image side where it differs."""
    return (asdict(fusions.config) if fusions else {}) | ({"image": asdict(image)} if image else {})


def export_graph(case: GraphCheck, path: Path, precision: Precision, limit: int = ONE_FILE) -> Parity:
    """Write one graph and compare it with torch."""
    path.parent.mkdir(parents=True)
    with quiet():
        to_onnx(case, path, limit)
        to_precision(path, precision, limit)
    parity = measure(case, path, Settings(provider="cpu"))
    check(parity, precision)
    return parity


def measure(case: GraphCheck, path: Path, settings: Settings) -> Parity:
    """Run every batch of a case in process and compare with torch.

    Raises:
        SessionError: the graph cannot run on the provider of the settings.
    """
    session = OrtSession(path, settings)
    found = [session.run(batch.inputs) for batch in case.batches]
    first, *others = (port.name for port in case.spec.outputs)
    return compare(
        case.spec.name,
        np.concatenate([batch.expected[first] for batch in case.batches]),
        np.concatenate([outputs[first] for outputs in found]),
        difference=max((_difference(case.batches, found, name) for name in others), default=0.0),
        size_bytes=graph_bytes(path),
    )


def _difference(batches: list[GraphSample], found: list[Arrays], name: str) -> float:
    pairs = zip(batches, found, strict=True)
    return max(float(np.abs(batch.expected[name] - outputs[name]).max()) for batch, outputs in pairs)
