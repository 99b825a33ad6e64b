"""``reco model add`` of ready towers: read, wrap, compare, write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from ..artifact import MANIFEST, TOKENIZER, FusionInfo, Manifest, ModelFile, Policy, clip_graph, whole_model
from ..config import Settings
from ..errors import ArtifactError, SessionError
from ..preprocess import TextConfig, Tokenizer, images_to_array
from ..preprocess.text import needed_tokens
from ..sessions.base import Arrays
from ..sessions.ort import OrtSession
from ..train.graph_file import graph_bytes, graph_file, save
from ..train.parity import COUNT, Parity, check, compare, sample_images, sample_texts
from ..train.precision import to_precision
from ..train.recipe import Serving, check_feasible
from ..train.triton import graph_specs, render_config
from ..types import MODALITIES, Modality, Vectors
from ..values import TEMPLATES, check_templates
from .graph import Tower, load_tower
from .options import AddOptions
from .pixels import Pixels, read_pixels
from .source import Files
from .texts import TextSteps, read_texts
from .wrap import wrap_image, wrap_text

_ROWS = 8  # run at once
_SAME = 1e-5  # of a value of a unit vector, between a cut text and the whole
_CUTS = 12  # texts on which that is tried
_CPU = Settings(provider="cpu")

SampleRows: TypeAlias = npt.NDArray[np.generic]


def add_model(files: Files, options: AddOptions, out: Path, serving: Serving | None = None) -> list[Parity]:
    """Import ready ONNX towers as a model folder; returns how far the served graphs are from the maker's.

    Args:
        files: of the model.
        options: what is not as the files say.
        out: the folder; an older model there is replaced when the new one is complete.
        serving: Triton's batches, queue and accelerator.

    Raises:
        ConfigError: a value of the files that cannot be used; int8 for a GPU.
        DataError: a file cannot be read.
        ArtifactError: a graph is no such tower, or what is served differs from it; nothing is written.
    """
    serving = serving or Serving()
    templates = check_templates(options.templates) or TEMPLATES
    check_feasible(options.precision, serving)
    pixels, texts = read_pixels(files.preprocessing, files.preprocess), read_texts(files)
    rows: dict[Modality, SampleRows] = {
        "image": images_to_array(sample_images(COUNT), pixels.image),
        "text": Tokenizer(texts.tokenizer_json, texts.text)(sample_texts(COUNT)).ids,
    }
    towers = {modality: load_tower(getattr(files, modality), modality) for modality in MODALITIES}
    inputs = {"image": _pixel_inputs(towers["image"], pixels, rows["image"])}
    inputs["text"] = _text_inputs(towers["text"], texts, rows["text"])
    with whole_model(out) as folder:
        made = {modality: _run_as_made(towers[modality], inputs[modality], folder) for modality in MODALITIES}
        dimension = _dimension(towers, made)
        parities = []
        for modality in MODALITIES:
            path = graph_file(folder, clip_graph(modality))
            path.parent.mkdir(parents=True)
            if modality == "image":
                save(wrap_image(towers["image"], pixels, dimension), path)
            else:
                texts = _write_text(towers["text"], texts, dimension, path, np.asarray(rows["text"], np.int32))
            to_precision(path, options.precision)
            found = _runner(path, "features")({_PORTS[modality]: rows[modality]})
            parity = compare(clip_graph(modality), made[modality], found, size_bytes=graph_bytes(path))
            check(parity, options.precision, "add it by --precision fp32")
            parities.append(parity)
        (folder / TOKENIZER).write_text(texts.tokenizer_json, encoding="utf-8")
        manifest = Manifest(
            name=files.name,
            digest=_digest(towers, pixels, texts),
            dimension=dimension,
            image=pixels.image,
            text=texts.text,
            templates=templates,
            matryoshka=options.matryoshka,
            fusion=FusionInfo(fuser="reco"),
            policy=Policy(),
            precision=options.precision,
            graphs={parity.graph: ModelFile.of(graph_file(folder, parity.graph)) for parity in parities},
            tokenizer=ModelFile.of(folder / TOKENIZER),
            licenses=options.licenses,
            made_with={package: version(package) for package in ("reco-plugin", "onnx")} | {"layout": files.layout},
        )
        _write_manifest(folder, manifest, serving)
    return parities


_PORTS: dict[Modality, str] = {"image": "pixels", "text": "tokens"}


def _runner(path: Path, output: str) -> Callable[[Arrays], Vectors]:
    """Runs a graph on all rows of its inputs, some at a time; unit vectors (N, D)."""
    try:
        session = OrtSession(path, _CPU, logs=False)
    except SessionError as error:
        raise ArtifactError(f"ONNX Runtime cannot load the graph: {error}") from None

    def run(inputs: Arrays) -> Vectors:
        count, parts = len(next(iter(inputs.values()))), []
        for start in range(0, count, _ROWS):
            try:
                part = {name: values[start : start + _ROWS] for name, values in inputs.items()}
                parts.append(np.asarray(session.run(part)[output], np.float32))
            except SessionError as error:
                raise ArtifactError(f"the graph failed on samples: {error}") from None
        found = np.concatenate(parts)
        norms = np.linalg.norm(found, axis=-1, keepdims=True)
        if found.ndim != 2 or not np.isfinite(found).all() or not norms.all():
            raise ArtifactError(f"{output} {found.shape} is no finite vector (B, D) of each sample: damaged weights?")
        return np.asarray(found / norms, np.float32)

    return run


def _run_as_made(tower: Tower, inputs: Arrays, folder: Path) -> Vectors:
    """Vectors (N, D) of the maker's own graph, unit-norm."""
    path = folder / f"made_{tower.modality}.onnx"
    save(tower.model, path)
    try:
        return _runner(path, tower.output)(inputs)
    finally:
        for file in folder.glob(f"{path.name}*"):
            file.unlink()


def _dimension(towers: dict[Modality, Tower], made: dict[Modality, Vectors]) -> int:
    """Of the vectors of both towers.

    Raises:
        ArtifactError: they have two, or all inputs of a tower have one vector.
    """
    for modality, vectors in made.items():
        if np.ptp(vectors, axis=0).max() < _SAME:
            raise ArtifactError(f"{towers[modality].path} gives the same vector for every {modality}: export it again")
    image, text = (int(made[modality].shape[1]) for modality in MODALITIES)
    if image != text:
        raise ArtifactError(
            f"{towers['image'].path} makes vectors of {image} dimensions, {towers['text'].path} of {text}: one is of "
            "another model, or without its projection"
        )
    return image


def _pixel_inputs(tower: Tower, pixels: Pixels, rows: SampleRows) -> Arrays:
    """What the image tower itself takes, of pixels (N, H, W, 3): as its processor would make it."""
    mean, std = (np.asarray(each, np.float32) for each in (pixels.image.mean, pixels.image.std))
    values = (rows.astype(np.float32) * np.float32(pixels.scale) - mean) / std
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tower.types[tower.main])
    return {tower.main: np.ascontiguousarray(values.transpose(0, 3, 1, 2).astype(dtype))}


def _text_inputs(tower: Tower, texts: TextSteps, rows: SampleRows) -> Arrays:
    """What the text tower itself takes, of ids (N, L): as its tokenizer would make it."""
    ids = np.asarray(rows, np.int64)
    places, whole = np.arange(ids.shape[1]), np.ones_like(ids)
    needed = ((ids != texts.text.pad_id) * (places + 1)).max(axis=1) + (texts.text.end_id is not None)
    found = {
        tower.main: ids,
        "attention_mask": (places < needed[:, None]) if texts.masked else whole,
        "position_ids": whole * places,
        "token_type_ids": whole * 0,
    }
    kinds = {name: onnx.helper.tensor_dtype_to_np_dtype(kind) for name, kind in tower.types.items()}
    return {name: found[name].astype(kind) for name, kind in kinds.items()}


def _write_text(tower: Tower, texts: TextSteps, dimension: int, path: Path, ids: npt.NDArray[np.int32]) -> TextSteps:
    """Write the text tower; returns the steps with the lengths that texts are cut to, where that changes no vector."""
    cut = replace(texts, text=replace(texts.text, dynamic=True))
    save(wrap_text(tower, cut, dimension), path)
    if not _takes_short_texts(_runner(path, "features"), ids, cut.text):
        cut = texts
        save(wrap_text(tower, cut, dimension), path)
    return replace(cut, text=replace(cut.text, buckets=cut.text.lengths))


def _takes_short_texts(run: Callable[[Arrays], Vectors], ids: npt.NDArray[np.int32], text: TextConfig) -> bool:
    """Whether texts cut to their length have the vectors of the whole context."""
    lengths = needed_tokens(ids, text)
    try:
        for row in np.argsort(lengths)[:: max(len(ids) // _CUTS, 1)]:
            whole = run({"tokens": ids[row : row + 1]})
            for length in {int(lengths[row]), min(int(lengths[row]) + 3, ids.shape[1])}:
                cut = run({"tokens": np.ascontiguousarray(ids[row : row + 1, :length])})
                if np.abs(cut - whole).max() > _SAME:
                    return False
    except ArtifactError:  # the graph has a fixed length inside
        return False
    return bool(lengths.min() < ids.shape[1])


def _write_manifest(folder: Path, manifest: Manifest, serving: Serving) -> None:
    """The manifest, and Triton's configuration of each graph."""
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    specs = graph_specs(manifest.image, manifest.text, manifest.dimension, manifest.policy.k)
    for name, file in manifest.graphs.items():
        config = render_config(specs[name], serving, half=manifest.precision == "fp16", sha256=file.sha256)
        (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")


def _digest(towers: dict[Modality, Tower], pixels: Pixels, texts: TextSteps) -> str:
    """sha256 over the makers' towers with their weights, preprocessing and tokenizer."""
    digest = hashlib.sha256()
    for tower in towers.values():
        for node in tower.model.graph.node:
            digest.update(node.SerializeToString(deterministic=True))
        for weights in tower.model.graph.initializer:
            digest.update(weights.SerializeToString(deterministic=True))
    text = {name: value for name, value in texts.text.to_dict().items() if name not in ("dynamic", "buckets")}
    for part in (pixels.image.to_dict() | {"scale": pixels.scale}, text, texts.masked):
        digest.update(json.dumps(part, sort_keys=True).encode())
    digest.update(texts.tokenizer_json.encode())
    return digest.hexdigest()


def remarks_on(manifest: Manifest, options: AddOptions) -> Iterator[str]:
    """What no file says, or what was found by a test."""
    if not options.templates:
        yield f"no file says with which prompt it was trained: {TEMPLATES[0]!r} is taken; another: --template"
    text = manifest.text
    case = "" if text.clean in ("none", "whitespace") else ", lower-cased"
    bare = ", without punctuation" if text.clean == "canonicalize" else ""
    cut = "cut to their length" if text.dynamic else "always the whole length: the graph gives others for shorter ones"
    yield f"texts: up to {text.context_length} tokens, filled with id {text.pad_id}{case}{bare}; {cut}"
