"""Ready ONNX towers, as optimum and transformers.js write them, as a model folder. Needs no torch.

Nodes are added before and after a tower, in its own graph: casts, the normalisation of pixels, the mask of a text's
padding, the norm of the vector. Bytes of pixels or int32 tokens go in, unit vectors come out, as of any model folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, utils

from ..encoders.model_folder import Manifest, clip_graph, whole_model
from ..encoders.preprocess import ImageConfig, Tokenizer, images_to_array
from ..encoders.runtimes.base import Arrays
from ..encoders.runtimes.onnxruntime import OrtSession
from ..errors import ArtifactError, SessionError
from ..settings import Settings
from ..types import MODALITIES, Modality, Vectors
from ..values import TEMPLATES
from .export_options import AddOptions, Serving, check_feasible
from .folder import Card, Described, graph_bytes, graph_file, save, to_precision, write_beside
from .parity import COUNT, Parity, check, compare, sample_images, sample_texts, takes_short_texts
from .ready_files import TextSteps, find_files, read_pixels, read_texts

_MAIN: Mapping[Modality, str] = {"image": "pixel_values", "text": "input_ids"}
_BESIDE = ("attention_mask", "token_type_ids")
_VECTORS: Mapping[Modality, tuple[str, ...]] = {
    "image": ("image_embeds", "pooler_output"),
    "text": ("text_embeds", "pooler_output"),
}
"""Names of the vector; SigLIP's towers have no projection, and call it by the latter."""
_PORTS: Mapping[Modality, str] = {"image": "pixels", "text": "tokens"}
_ROWS = 8  # run at once


@dataclass(frozen=True)
class Tower:
    """One tower of a file, alone."""

    modality: Modality
    path: Path  # of the file
    model: onnx.ModelProto  # what the vector needs
    output: str  # name of the vector (B, D)

    @property
    def types(self) -> dict[str, int]:
        """Element types of its inputs, as ONNX numbers them."""
        return {one.name: one.type.tensor_type.elem_type for one in self.model.graph.input}


def load_tower(path: Path, modality: Modality) -> Tower:
    """Read a tower, cut out of the graph of both where it is one.

    Raises:
        ArtifactError: the file cannot be read, or has no such tower.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # of protobuf's, or of a missing file of weights
        raise ArtifactError(f"{path} cannot be read as an ONNX graph ({error}): fetch it again") from None
    weights = {one.name for one in model.graph.initializer}
    given = [one.name for one in model.graph.input if one.name not in weights]
    made = [one.name for one in model.graph.output]
    output = next((name for name in _VECTORS[modality] if name in made), None)
    if output is None or _MAIN[modality] not in given:
        raise ArtifactError(
            f"{path} has the inputs {', '.join(given)} and the outputs {', '.join(made)}, and the tower of {modality}s "
            f"has {_MAIN[modality]} and {' or '.join(_VECTORS[modality])}: export it by optimum, with its projection"
        )
    inputs = [name for name in given if name == _MAIN[modality] or (modality == "text" and name in _BESIDE)]
    return Tower(modality, path, utils.Extractor(model).extract_model(inputs, [output]), output)


def add(source: str, options: AddOptions, out: Path, serving: Serving | None = None) -> list[Parity]:
    """Import ready ONNX towers as a model folder; returns how far the served graphs are from the maker's.

    Args:
        source: a folder, or a repository of the hub, with the files of the model.
        options: what is not as the files say.
        out: the folder; an older model there is replaced when the new one is complete.
        serving: Triton's batches, queue and accelerator.

    Raises:
        ConfigError: a file is missing or has a value that cannot be used; int8 for a GPU.
        DataError: a file or the hub cannot be read.
        ArtifactError: a graph is no such tower, or what is served differs from it; nothing is written.
    """
    serving, card = serving or Serving(), Card.of(options)
    check_feasible(options.precision, serving)
    files = find_files(source, options)
    image, texts = read_pixels(files.preprocessing, files.preprocess), read_texts(files)
    towers = {modality: load_tower(getattr(files, modality), modality) for modality in MODALITIES}
    pixels = images_to_array(sample_images(COUNT), image)
    ids = Tokenizer(texts.tokenizer_json, texts.text)(sample_texts(COUNT)).ids
    rows: Mapping[Modality, npt.NDArray[Any]] = {"image": pixels, "text": ids}
    inputs = {"image": _pixel_inputs(image, pixels), "text": _text_inputs(towers["text"], texts, ids)}
    made = {modality: _run_as_made(towers[modality], inputs[modality]) for modality in MODALITIES}
    dimension, parities = _dimension(towers, made), []
    with whole_model(out) as folder:
        for modality in MODALITIES:
            path = graph_file(folder, name := clip_graph(modality))
            if modality == "image":
                save(wrap_image(towers["image"], image, dimension), path)
            else:
                texts = _write_text(towers["text"], texts, dimension, path, ids)
            to_precision(path, options.precision)
            found = _runner(path, "features")({_PORTS[modality]: rows[modality]})
            parities.append(compare(name, made[modality], found, size_bytes=graph_bytes(path)))
            check(parities[-1], options.precision, "add it by --precision fp32")
        encoder = Described(
            files.name, _digest(towers, image, texts), dimension, image, texts.text, texts.tokenizer_json
        )
        made_with = {package: version(package) for package in ("reco-plugin", "onnx")} | {"layout": files.layout}
        graphs = [one.graph for one in parities]
        write_beside(folder, graphs, encoder, card, options.precision, serving, made_with)
    return parities


def _runner(path: Path, output: str) -> Callable[[Arrays], Vectors]:
    """Runs a graph on all rows of its inputs, some at a time; unit vectors (N, D)."""
    session = OrtSession(path, Settings(provider="cpu"), logs=False)

    def run(inputs: Arrays) -> Vectors:
        count, parts = len(next(iter(inputs.values()))), []
        for start in range(0, count, _ROWS):
            part = {name: values[start : start + _ROWS] for name, values in inputs.items()}
            parts.append(np.asarray(session.run(part)[output], np.float32))
        found = np.concatenate(parts)
        norms = np.linalg.norm(found, axis=-1, keepdims=True)
        if found.ndim != 2 or not np.isfinite(found).all() or not norms.all():
            raise ArtifactError(f"{output} {found.shape} is no finite vector (B, D) of each sample: damaged weights?")
        return np.asarray(found / norms, np.float32)

    return run


def _run_as_made(tower: Tower, inputs: Arrays) -> Vectors:
    """Vectors (N, D) of the maker's own graph, unit-norm."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "made.onnx"
        save(tower.model, path)
        try:
            return _runner(path, tower.output)(inputs)
        except SessionError as error:
            raise ArtifactError(f"{tower.path} fails on samples: {error}") from None


def _dimension(towers: Mapping[Modality, Tower], made: Mapping[Modality, Vectors]) -> int:
    """Of the vectors of both towers; ArtifactError if they have two."""
    image, text = (int(made[modality].shape[1]) for modality in MODALITIES)
    if image != text:
        raise ArtifactError(
            f"{towers['image'].path} makes vectors of {image} dimensions, {towers['text'].path} of {text}: one is of "
            "another model, or without its projection"
        )
    return image


def _pixel_inputs(image: ImageConfig, pixels: npt.NDArray[np.uint8]) -> Arrays:
    """What the image tower itself takes, of pixels (N, H, W, 3): as its processor would make it."""
    mean, std = (np.asarray(each, np.float32) for each in (image.mean, image.std))
    values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return {"pixel_values": np.ascontiguousarray(values.transpose(0, 3, 1, 2))}


def _text_inputs(tower: Tower, texts: TextSteps, ids: npt.NDArray[np.int32]) -> Arrays:
    """What the text tower itself takes, of ids (N, L): as its tokenizer would make it."""
    places, whole = np.arange(ids.shape[1]), np.ones_like(ids)
    needed = ((ids != texts.text.pad_id) * (places + 1)).max(axis=1) + (texts.text.end_id is not None)
    mask = (places < needed[:, None]) if texts.masked else whole
    found = {"input_ids": ids, "attention_mask": mask, "token_type_ids": whole * 0}
    return {name: found[name].astype(helper.tensor_dtype_to_np_dtype(kind)) for name, kind in tower.types.items()}


def _write_text(tower: Tower, texts: TextSteps, dimension: int, path: Path, ids: npt.NDArray[np.int32]) -> TextSteps:
    """Write the text tower; returns the steps with the lengths that texts are cut to, where that changes no vector."""
    cut = replace(texts, text=replace(texts.text, dynamic=True))
    save(wrap_text(tower, cut, dimension), path)
    run = _runner(path, "features")
    try:
        exact = takes_short_texts(lambda rows: run({"tokens": rows}), ids, cut.text)
    except SessionError:  # the graph has a fixed length inside
        exact = False
    if not exact:
        cut = texts
        save(wrap_text(tower, cut, dimension), path)
    return replace(cut, text=replace(cut.text, buckets=cut.text.lengths))


def _digest(towers: Mapping[Modality, Tower], image: ImageConfig, texts: TextSteps) -> str:
    """sha256 over the makers' towers with their weights, preprocessing and tokenizer."""
    digest = hashlib.sha256()
    for tower in towers.values():
        for part in (*tower.model.graph.node, *tower.model.graph.initializer):
            digest.update(part.SerializeToString(deterministic=True))
    text = replace(texts.text, dynamic=False, buckets=())  # which change no vector
    digest.update(repr((image.to_dict(), text.to_dict(), texts.masked)).encode())
    digest.update(texts.tokenizer_json.encode())
    return digest.hexdigest()


def remarks_on(manifest: Manifest, options: AddOptions) -> Iterator[str]:
    """What no file says, or what was found by a test."""
    if not options.templates:
        yield f"no file says with which prompt it was trained: {TEMPLATES[0]!r} is taken; another: --template"
    if not manifest.text.dynamic:
        yield "short texts cost as much as long ones: the graph gives other vectors for texts that are cut"


@dataclass
class _Nodes:
    """Nodes that are added to a graph, and their constants, under names of their own."""

    prefix: str
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant; returns its name."""
        name = f"{self.prefix}_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """A node with one output; returns that."""
        name = out or f"{self.prefix}_{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def reduce(self, operator: str, value: str) -> str:
        """Reduce (B, N) to (B, 1); from opset 18 on, the axes are an input."""
        if self.opset >= 18:
            return self.add(operator, value, self.constant([1], np.int64), keepdims=1)
        return self.add(operator, value, axes=[1], keepdims=1)


def _nodes(tower: Tower, prefix: str) -> _Nodes:
    return _Nodes(prefix, next(one.version for one in tower.model.opset_import if one.domain in ("", "ai.onnx")))


def wrap_image(tower: Tower, image: ImageConfig, dimension: int) -> onnx.ModelProto:
    """A graph of ``pixels`` uint8 (B, H, W, 3) -> ``features`` (B, D), unit-norm."""
    do = _nodes(tower, "reco_in")
    value = do.add("Cast", "pixels", to=TensorProto.FLOAT)  # first: TensorRT takes bytes only into a cast
    value = do.add("Mul", do.add("Transpose", value, perm=[0, 3, 1, 2]), do.constant(1 / 255))
    mean, std = (do.constant(np.reshape(each, (1, 3, 1, 1))) for each in (image.mean, image.std))
    do.add("Div", do.add("Sub", value, mean), std, out="pixel_values")
    shape: list[str | int | None] = ["batch", *image.size, 3]
    return _join(tower, do, helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape), dimension)


def wrap_text(tower: Tower, texts: TextSteps, dimension: int) -> onnx.ModelProto:
    """A graph of ``tokens`` int32 (B, L) -> ``features`` (B, D), unit-norm; L is fixed unless texts are cut."""
    do = _nodes(tower, "reco_in")
    zeros = do.add("Sub", "tokens", "tokens")
    found = {"input_ids": "tokens", "token_type_ids": zeros}
    if "attention_mask" in tower.types:
        ones = do.add("Add", zeros, do.constant(1, np.int32))
        found["attention_mask"] = _mask(do, texts) if texts.masked else ones
    for name, kind in tower.types.items():
        do.add("Cast", found[name], to=kind, out=name)
    size = "length" if texts.text.dynamic else texts.text.context_length
    port = helper.make_tensor_value_info("tokens", TensorProto.INT32, ["batch", size])
    return _join(tower, do, port, dimension)


def _mask(do: _Nodes, texts: TextSteps) -> str:
    """1 up to the last token that is no padding, and one more where padding ends a text; (B, L) int32."""
    length = do.add("Gather", do.add("Shape", "tokens"), do.constant(1, np.int64), axis=0)
    count = do.add("Range", do.constant(0, np.int64), length, do.constant(1, np.int64))
    positions, one = do.add("Cast", count, to=TensorProto.INT32), do.constant(1, np.int32)
    padding = do.add("Cast", do.add("Equal", "tokens", do.constant(texts.text.pad_id, np.int32)), to=TensorProto.INT32)
    reached = do.add("Mul", do.add("Sub", one, padding), do.add("Add", positions, one))
    needed = do.reduce("ReduceMax", reached)
    if texts.text.end_id is not None:
        needed = do.add("Add", needed, one)
    return do.add("Cast", do.add("Less", positions, needed), to=TensorProto.INT32)


def _join(tower: Tower, before: _Nodes, port: onnx.ValueInfoProto, dimension: int) -> onnx.ModelProto:
    """The tower with nodes before it, and the norm after it."""
    model = onnx.ModelProto()
    model.CopyFrom(tower.model)
    graph, after = model.graph, _nodes(tower, "reco_out")
    norm = after.add("Max", after.reduce("ReduceL2", tower.output), after.constant(1e-12))
    after.add("Div", tower.output, norm, out="features")
    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    graph.input.append(port)
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", dimension]))
    return model
