"""``reco model add`` of ready towers: read, wrap, test, write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from ..artifact import (
    MANIFEST,
    TOKENIZER,
    FusionInfo,
    Manifest,
    ModelFile,
    Policy,
    clip_graph,
    fusion_graph,
    whole_model,
)
from ..calibration.gate import PRIOR, SIGNALS, step
from ..errors import ArtifactError, ConfigError
from ..files import sha256_file
from ..preprocess import TextConfig
from ..train.graph_file import graph_bytes, graph_of, write_graph, write_proto
from ..train.one_token import pick_early
from ..train.parity import COUNT, Parity, Precision, check, compare
from ..train.precision import has_whole_int8, quiet, to_precision
from ..train.recipe import Serving
from ..train.triton import graph_specs, render_config
from ..types import MODALITIES, Modality, Vectors
from ..values import TEMPLATES, check_templates
from .graph import Tower, embedding_rows, load, take_tower, weights_beside
from .nodes import make_step
from .options import AddOptions
from .pixels import Pixels, read_pixels
from .probe import (
    Runner,
    check_tower,
    mixes_rows,
    pixel_inputs,
    run_as_made,
    run_as_served,
    sample_ids,
    sample_pixels,
    takes_short_texts,
    text_inputs,
)
from .source import Files, find_files
from .texts import TextSteps, read_texts
from .wrap import row_by_row, wrap_image, wrap_text

_UNUSED = 0.1
"""Share of the embedding's rows that no token of the tokenizer may use; exporters pad tables to round numbers."""


@dataclass(frozen=True)
class AddedModel:
    """What was imported, and how far the served graphs are from the maker's."""

    manifest: Manifest
    layout: str
    parities: list[Parity]
    remarks: tuple[str, ...]  # what was decided without being told


@dataclass(frozen=True)
class _Side:
    """A tower with samples, and what it makes of them."""

    tower: Tower
    rows: npt.NDArray[np.generic]
    made: Vectors


def add_model(source: str | None, options: AddOptions, out: Path, serving: Serving | None = None) -> AddedModel:
    """Import ready ONNX towers as a model folder.

    Args:
        source: a folder or hub repository; None where all files are given by the options.
        options: what is not as the files say.
        out: the folder; an older model there is replaced when the new one is complete.
        serving: Triton's batches, queue and accelerator.

    Raises:
        ConfigError: a file is missing or ambiguous; int8 for a GPU.
        DataError: the hub or a file cannot be read.
        ArtifactError: a graph is no such tower, or fails the self-test; nothing is written.
    """
    serving = serving or Serving()
    templates = check_templates(options.templates) or TEMPLATES
    if options.precision == "int8" and serving.accelerator != "none":
        raise ConfigError(f"int8 graphs run on CPUs only, not with --accelerator {serving.accelerator}: take fp16")
    files = find_files(source, options)
    towers = _open_towers(files, options)
    pixels = read_pixels(files.preprocessing, files.preprocess)
    _check_size(towers["image"], pixels, files)
    texts = read_texts(files, options, towers["text"].main.sizes[1])
    _check_vocabulary(towers["text"], texts, files)
    sides = _run_as_made(towers, pixels, texts)
    dimension = sides["image"].made.shape[1]
    with whole_model(out) as folder:
        parities, texts = _write_towers(folder, sides, pixels, texts, options.precision, ready=files.ready)
        parities += _write_steps(folder, dimension)
        (folder / TOKENIZER).write_text(texts.tokenizer_json, encoding="utf-8")
        manifest = Manifest(
            name=files.name,
            digest=_digest(files, towers, pixels, texts),
            dimension=dimension,
            image=pixels.image,
            text=texts.text,
            templates=templates,
            matryoshka=options.matryoshka,
            fusion=FusionInfo(fuser="reco"),
            policy=Policy(),
            precision=options.precision,
            whole_int8=any(has_whole_int8(_file(folder, clip_graph(modality))) for modality in MODALITIES),
            graphs={parity.graph: ModelFile.of(_file(folder, parity.graph)) for parity in parities},
            tokenizer=ModelFile.of(folder / TOKENIZER),
            licenses=options.licenses,
            made_with={package: version(package) for package in ("reco-plugin", "onnx")} | {"layout": files.layout},
        )
        _write_configs(folder, manifest, serving)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return AddedModel(manifest, files.layout, parities, tuple(remarks_on(manifest, options)))


def _open_towers(files: Files, options: AddOptions) -> dict[Modality, Tower]:
    both = files.image == files.text
    image = load(files.image)
    text = image if both else load(files.text)
    return {
        "image": take_tower(image, files.image, "image", options.image_output, both),
        "text": take_tower(text, files.text, "text", options.text_output, both),
    }


def _check_size(tower: Tower, pixels: Pixels, files: Files) -> None:
    fixed = [(mine, theirs) for mine, theirs in zip(pixels.image.size, tower.side, strict=True) if theirs]
    if any(mine != theirs for mine, theirs in fixed):
        raise ConfigError(
            f"{tower.path} takes pictures of {tower.side}, {files.preprocess} makes {pixels.image.size}: give the file "
            "of this graph by --preprocess"
        )


def _check_vocabulary(tower: Tower, texts: TextSteps, files: Files) -> None:
    rows = embedding_rows(tower)
    if rows is None:
        return
    if texts.largest >= rows or texts.largest + 1 < rows * (1 - _UNUSED):
        raise ArtifactError(
            f"{files.tokenizer} is of another vocabulary: its largest id is {texts.largest:,}, and {tower.path} has "
            f"{rows:,} rows of embeddings. Give the tokenizer of this graph by --tokenizer"
        )


def _run_as_made(towers: dict[Modality, Tower], pixels: Pixels, texts: TextSteps) -> dict[Modality, _Side]:
    """Vectors of samples by the makers' graphs, checked."""
    pictures, ids = sample_pixels(pixels), sample_ids(texts)
    image, text = towers["image"], towers["text"]
    sides: dict[Modality, _Side] = {
        "image": _Side(image, pictures, run_as_made(image, pictures, pixel_inputs(image, pixels, pictures))),
        "text": _Side(text, ids, run_as_made(text, ids, text_inputs(text, texts, ids))),
    }
    for modality, side in sides.items():
        check_tower(side.tower.main.name, modality, side.made, side.tower.path)
    one, other = (sides[modality].made.shape[1] for modality in MODALITIES)
    if one != other:
        raise ArtifactError(
            f"the towers have two dimensions: {image.output} of {image.path} has {one}, {text.output} of {text.path} "
            f"has {other}. They are not of one model, or one is without its projection: choose by --image-output and "
            "--text-output, or other graphs"
        )
    return sides


def _write_towers(
    folder: Path, sides: dict[Modality, _Side], pixels: Pixels, texts: TextSteps, precision: Precision, *, ready: bool
) -> tuple[list[Parity], TextSteps]:
    """Write and compare both encoders; returns how texts are cut, too."""
    given: Precision = precision if ready else "fp32"
    parities = []
    for modality, side in sides.items():
        name, port = clip_graph(modality), "pixels" if modality == "image" else "tokens"
        path, dimension = _file(folder, name), side.made.shape[1]
        path.parent.mkdir(parents=True)
        tower = side.tower
        graph = wrap_image(tower, pixels, dimension) if modality == "image" else wrap_text(tower, texts, dimension)
        model = _picking_early(graph, tower.path)
        by_row = _write_for_batches(model, path, side, port, given)
        if modality == "text":
            texts = replace(texts, text=_cut_where_exact(path, side, texts.text, given))
            if not texts.text.dynamic:
                _fix_length(model, texts.text.context_length)
                _write(model, path, tower.path.parent, by_row=by_row)
        if not ready and precision != "fp32":
            _write(model, path, tower.path.parent)
            with quiet():
                to_precision(path, precision)
            if by_row:
                write_proto(row_by_row(load(path)), path, path.parent)
        found = run_as_served(path, port)(side.rows)
        parity = compare(name, side.made, found, size_bytes=graph_bytes(path))
        smaller = f"if the weights of {tower.path} are smaller than float32, say so by --precision int8 or fp16"
        check(parity, precision, smaller if precision == "fp32" else "add it by --precision fp32")
        parities.append(parity)
    return parities, texts


def _picking_early(graph: onnx.ModelProto, path: Path) -> ir.Model:
    """The same graph, of which the end works on the token that it takes only; weights outside lie beside ``path``."""
    model = graph_of(graph, path)
    return model if pick_early(model) else graph_of(graph, path)


def _write(model: ir.Model, path: Path, folder: Path, *, by_row: bool = False) -> None:
    """Write a graph, or one that runs it row by row, and leave it as it is; weights outside lie in ``folder``."""
    if by_row:
        write_proto(row_by_row(ir.to_proto(model)), path, folder)
    else:
        write_graph(model.clone(), path)


def _fix_length(model: ir.Model, length: int) -> None:
    """Take texts (B, L) of one length only."""
    port = model.graph.inputs[0]
    batch = "batch" if port.shape is None else port.shape[0]
    port.shape = ir.Shape([batch, length])


def _write_for_batches(model: ir.Model, path: Path, side: _Side, port: str, given: Precision) -> bool:
    """Write a graph that takes any batch; returns whether it runs row by row, since it mixes the rows of a batch."""
    _write(model, path, side.tower.path.parent)
    if not mixes_rows(run_as_served(path, port), side.rows, given):
        return False
    _write(model, path, side.tower.path.parent, by_row=True)
    if mixes_rows(run_as_served(path, port), side.rows, given):
        raise ArtifactError(
            f"{side.tower.path} gives one {side.tower.modality} other vectors each time: export it again, in "
            "evaluation mode"
        )
    return True


def _cut_where_exact(path: Path, side: _Side, text: TextConfig, given: Precision) -> TextConfig:
    """Let texts be cut to their length where the graph then gives the same vectors."""
    ids, fixed = np.asarray(side.rows, np.int32), side.tower.main.sizes[1] is not None
    cut = replace(text, dynamic=not fixed and takes_short_texts(run_as_served(path, "tokens"), ids, text, given))
    return replace(cut, buckets=cut.lengths)


def _write_steps(folder: Path, dimension: int) -> list[Parity]:
    """Write the closed form's last step for both modalities."""
    parities = []
    for modality in MODALITIES:
        name = fusion_graph(modality)
        path = _file(folder, name)
        path.parent.mkdir(parents=True)
        onnx.save(make_step(dimension), str(path))
        parities.append(_step_parity(name, path, dimension))
    return parities


def _step_parity(name: str, path: Path, dimension: int) -> Parity:
    """Compare the step's graph with numpy, on gates of both modalities; the last row has found nothing."""
    rng = np.random.default_rng(0)
    query, evidence = rng.normal(size=(2, COUNT, dimension))
    signals = rng.uniform(0.1, 1.0, size=(COUNT, SIGNALS))
    evidence[-1], signals[-1] = 0, 0
    rows = [PRIOR[side].constants(0.06, 0.05) for side in MODALITIES]
    inputs = {
        "query": (query / np.linalg.norm(query, axis=1, keepdims=True)).astype(np.float32),
        "evidence": evidence.astype(np.float32),
        "signals": signals.astype(np.float32),
        "constants": np.stack([rows[row % 2] for row in range(COUNT)]),
    }
    expected, strength = step(**inputs)
    runner = Runner(path)
    difference = float(np.abs(runner.run(inputs, "strength") - strength).max())
    found = runner.run(inputs, "refined")
    parity = compare(name, expected, found, difference=difference, size_bytes=path.stat().st_size)
    check(parity, "fp32")
    return parity


def _write_configs(folder: Path, manifest: Manifest, serving: Serving) -> None:
    """Triton's configuration of each graph."""
    specs = graph_specs(manifest.image, manifest.text, manifest.dimension, manifest.policy.k)
    for name, file in manifest.graphs.items():
        config = render_config(specs[name], serving, half=manifest.precision == "fp16", sha256=file.sha256)
        (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")


def _file(folder: Path, name: str) -> Path:
    return folder / name / "1" / "model.onnx"


def _digest(files: Files, towers: dict[Modality, Tower], pixels: Pixels, texts: TextSteps) -> str:
    """sha256 over the makers' graphs with their weights, the outputs taken, preprocessing and tokenizer."""
    digest = hashlib.sha256()
    for graph in dict.fromkeys((files.image, files.text)):
        for path in (graph, *weights_beside(graph)):
            digest.update(bytes.fromhex(sha256_file(path)))
    text = {name: value for name, value in texts.text.to_dict().items() if name not in ("dynamic", "buckets")}
    for part in (pixels.image.to_dict() | {"scale": pixels.scale}, text):
        digest.update(json.dumps(part, sort_keys=True).encode())
    digest.update(texts.tokenizer_json.encode())
    digest.update(json.dumps([[tower.output for tower in towers.values()], texts.masked]).encode())
    return digest.hexdigest()


def remarks_on(manifest: Manifest, options: AddOptions) -> Iterator[str]:
    """What no file says, or what was found by a test, so that a caller who knows better can say it."""
    if not options.templates:
        yield f"no file says with which prompt it was trained: {TEMPLATES[0]!r} is taken; another: --template"
    text = manifest.text
    case = "" if text.clean in ("none", "whitespace") else ", lower-cased"
    bare = ", without punctuation" if text.clean == "canonicalize" else ""
    cut = "cut to their length" if text.dynamic else "always the whole length: the graph gives others for shorter ones"
    yield f"texts: up to {text.context_length} tokens, filled with id {text.pad_id}{case}{bare}; {cut}"
