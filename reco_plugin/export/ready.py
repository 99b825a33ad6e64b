"""Imports ONNX towers of optimum or transformers.js as a model folder. Needs no torch.

Each graph gets nodes before and after the tower: casts, the normalisation of pixels, the attention mask of texts, and
the norm of the vector. So it has the inputs and the output of every model folder.
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
from .folder import Card, EncoderCard, graph_bytes, graph_file, save, to_precision, write_beside
from .parity import COUNT, Parity, check, compare, sample_images, sample_texts, takes_short_texts
from .ready_files import TextSteps, find_files, read_pixels, read_texts

_INPUTS: Mapping[Modality, str] = {"image": "pixel_values", "text": "input_ids"}
_TEXT_INPUTS = ("attention_mask", "token_type_ids")
_VECTORS: Mapping[Modality, tuple[str, ...]] = {
    "image": ("image_embeds", "pooler_output"),
    "text": ("text_embeds", "pooler_output"),
}
"""Names of the output; pooler_output is that of SigLIP, whose towers have no projection."""
_PORTS: Mapping[Modality, str] = {"image": "pixels", "text": "tokens"}
_ROWS = 8  # inputs of one run


@dataclass(frozen=True)
class Tower:
    """One tower of an ONNX file."""

    modality: Modality
    path: Path
    model: onnx.ModelProto  # the part of the graph that computes the vector
    output: str  # name of the output (B, D)

    @property
    def types(self) -> dict[str, int]:
        """Input name -> ONNX element type."""
        return {one.name: one.type.tensor_type.elem_type for one in self.model.graph.input}


def load_tower(path: Path, modality: Modality) -> Tower:
    """Read the tower of a modality from a file that may have both.

    Raises:
        ArtifactError: the file cannot be read, or has no such tower.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf errors, or OSError for a missing file of weights
        raise ArtifactError(f"{path} cannot be read as an ONNX graph ({error}): fetch it again") from None
    weights = {one.name for one in model.graph.initializer}
    inputs = [one.name for one in model.graph.input if one.name not in weights]
    outputs = [one.name for one in model.graph.output]
    output = next((name for name in _VECTORS[modality] if name in outputs), None)
    if output is None or _INPUTS[modality] not in inputs:
        raise ArtifactError(
            f"{path} has the inputs {', '.join(inputs)} and the outputs {', '.join(outputs)}, but the {modality} tower "
            f"has {_INPUTS[modality]} and {' or '.join(_VECTORS[modality])}: export it by optimum, with its projection"
        )
    used = [name for name in inputs if name == _INPUTS[modality] or (modality == "text" and name in _TEXT_INPUTS)]
    return Tower(modality, path, utils.Extractor(model).extract_model(used, [output]), output)


def add(source: str, options: AddOptions, out: Path, serving: Serving | None = None) -> list[Parity]:
    """Import ONNX towers as a model folder; returns how close the new graphs are to the original ones.

    Args:
        source: a folder or a repository of the hub with the files of the model.
        options: entries of the manifest, and the revision of a repository.
        out: the folder; the complete model replaces an older model there.
        serving: Triton's batches, queue and accelerator.

    Raises:
        ConfigError: a file is missing or has an invalid value; int8 for a GPU.
        DataError: a file or the hub cannot be read.
        ArtifactError: a graph is not a tower, or the new graph differs from it; nothing is written.
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
    original = {modality: _run_original(towers[modality], inputs[modality]) for modality in MODALITIES}
    dimension, parities = _dimension(towers, original), []
    with whole_model(out) as folder:
        for modality in MODALITIES:
            path = graph_file(folder, name := clip_graph(modality))
            if modality == "image":
                save(wrap_image(towers["image"], image, dimension), path)
            else:
                texts = _write_text(towers["text"], texts, dimension, path, ids)
            to_precision(path, options.precision)
            vectors = _runner(path, "features")({_PORTS[modality]: rows[modality]})
            parities.append(compare(name, original[modality], vectors, size_bytes=graph_bytes(path)))
            check(parities[-1], options.precision, "add it by --precision fp32")
        encoder = EncoderCard(
            files.name, _digest(towers, image, texts), dimension, image, texts.text, texts.tokenizer_json
        )
        made_with = {package: version(package) for package in ("reco-plugin", "onnx")} | {"layout": files.layout}
        graphs = [one.graph for one in parities]
        write_beside(folder, graphs, encoder, card, options.precision, serving, made_with)
    return parities


def _runner(path: Path, output: str) -> Callable[[Arrays], Vectors]:
    """Return a function that runs a graph in batches and returns unit-norm vectors (N, D)."""
    session = OrtSession(path, Settings(provider="cpu"), logs=False)

    def run(inputs: Arrays) -> Vectors:
        count, parts = len(next(iter(inputs.values()))), []
        for start in range(0, count, _ROWS):
            part = {name: values[start : start + _ROWS] for name, values in inputs.items()}
            parts.append(np.asarray(session.run(part)[output], np.float32))
        vectors = np.concatenate(parts)
        norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
        if vectors.ndim != 2 or not np.isfinite(vectors).all() or not norms.all():
            raise ArtifactError(f"{output} {vectors.shape} must be finite vectors (B, D): are the weights damaged?")
        return np.asarray(vectors / norms, np.float32)

    return run


def _run_original(tower: Tower, inputs: Arrays) -> Vectors:
    """Return unit-norm vectors (N, D) of the original graph."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "original.onnx"
        save(tower.model, path)
        try:
            return _runner(path, tower.output)(inputs)
        except SessionError as error:
            raise ArtifactError(f"{tower.path} fails on samples: {error}") from None


def _dimension(towers: Mapping[Modality, Tower], vectors: Mapping[Modality, Vectors]) -> int:
    """Return the dimension of both towers; ArtifactError if they differ."""
    image, text = (int(vectors[modality].shape[1]) for modality in MODALITIES)
    if image != text:
        raise ArtifactError(
            f"{towers['image'].path} has {image} dimensions, but {towers['text'].path} has {text}: one belongs to "
            "another model, or has no projection"
        )
    return image


def _pixel_inputs(image: ImageConfig, pixels: npt.NDArray[np.uint8]) -> Arrays:
    """Return the inputs of the original image tower for pixels (N, H, W, 3)."""
    mean, std = (np.asarray(each, np.float32) for each in (image.mean, image.std))
    values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return {"pixel_values": np.ascontiguousarray(values.transpose(0, 3, 1, 2))}


def _text_inputs(tower: Tower, texts: TextSteps, ids: npt.NDArray[np.int32]) -> Arrays:
    """Return the inputs of the original text tower for ids (N, L)."""
    positions, ones = np.arange(ids.shape[1]), np.ones_like(ids)
    needed = ((ids != texts.text.pad_id) * (positions + 1)).max(axis=1) + (texts.text.end_id is not None)
    mask = (positions < needed[:, None]) if texts.masked else ones
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ones * 0}
    return {name: inputs[name].astype(helper.tensor_dtype_to_np_dtype(kind)) for name, kind in tower.types.items()}


def _write_text(tower: Tower, texts: TextSteps, dimension: int, path: Path, ids: npt.NDArray[np.int32]) -> TextSteps:
    """Write the text tower; returns ``texts`` with ``dynamic`` set if shorter inputs have the same vectors."""
    cut = replace(texts, text=replace(texts.text, dynamic=True))
    save(wrap_text(tower, cut, dimension), path)
    run = _runner(path, "features")
    try:
        exact = takes_short_texts(lambda rows: run({"tokens": rows}), ids, cut.text)
    except SessionError:  # the graph has a fixed length
        exact = False
    if not exact:
        cut = texts
        save(wrap_text(tower, cut, dimension), path)
    return replace(cut, text=replace(cut.text, buckets=cut.text.lengths))


def _digest(towers: Mapping[Modality, Tower], image: ImageConfig, texts: TextSteps) -> str:
    """Return sha256 over the original towers, preprocessing and tokenizer."""
    digest = hashlib.sha256()
    for tower in towers.values():
        for part in (*tower.model.graph.node, *tower.model.graph.initializer):
            digest.update(part.SerializeToString(deterministic=True))
    text = replace(texts.text, dynamic=False, buckets=())  # these change no vector
    digest.update(repr((image.to_dict(), text.to_dict(), texts.masked)).encode())
    digest.update(texts.tokenizer_json.encode())
    return digest.hexdigest()


def remarks_on(manifest: Manifest, options: AddOptions) -> Iterator[str]:
    """Yield remarks on entries that no file has, and on texts of a fixed length."""
    if not options.templates:
        yield f"no file has the prompt of the training: {TEMPLATES[0]!r} is assumed; set another by --template"
    if not manifest.text.dynamic:
        yield "short texts take as long as long ones, since the graph needs texts of the whole context"


@dataclass
class _Nodes:
    """Nodes to add to a graph, and their constants, with unique names."""

    prefix: str
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant; returns its name."""
        name = f"{self.prefix}_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = out or f"{self.prefix}_{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def reduce(self, operator: str, value: str) -> str:
        """Reduce (B, N) to (B, 1). From opset 18 on, the axes are an input."""
        if self.opset >= 18:
            return self.add(operator, value, self.constant([1], np.int64), keepdims=1)
        return self.add(operator, value, axes=[1], keepdims=1)


def _nodes(tower: Tower, prefix: str) -> _Nodes:
    return _Nodes(prefix, next(one.version for one in tower.model.opset_import if one.domain in ("", "ai.onnx")))


def wrap_image(tower: Tower, image: ImageConfig, dimension: int) -> onnx.ModelProto:
    """Return a graph of ``pixels`` (B, H, W, 3) uint8 -> ``features`` (B, D), unit-norm."""
    do = _nodes(tower, "reco_in")
    value = do.add("Cast", "pixels", to=TensorProto.FLOAT)  # first, since TensorRT takes bytes only into a cast
    value = do.add("Mul", do.add("Transpose", value, perm=[0, 3, 1, 2]), do.constant(1 / 255))
    mean, std = (do.constant(np.reshape(each, (1, 3, 1, 1))) for each in (image.mean, image.std))
    do.add("Div", do.add("Sub", value, mean), std, out="pixel_values")
    shape: list[str | int | None] = ["batch", *image.size, 3]
    return _join(tower, do, helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape), dimension)


def wrap_text(tower: Tower, texts: TextSteps, dimension: int) -> onnx.ModelProto:
    """Return a graph of ``tokens`` (B, L) int32 -> ``features`` (B, D), unit-norm; L is fixed unless ``dynamic``."""
    do = _nodes(tower, "reco_in")
    zeros = do.add("Sub", "tokens", "tokens")
    inputs = {"input_ids": "tokens", "token_type_ids": zeros}
    if "attention_mask" in tower.types:
        ones = do.add("Add", zeros, do.constant(1, np.int32))
        inputs["attention_mask"] = _mask(do, texts) if texts.masked else ones
    for name, kind in tower.types.items():
        do.add("Cast", inputs[name], to=kind, out=name)
    size = "length" if texts.text.dynamic else texts.text.context_length
    port = helper.make_tensor_value_info("tokens", TensorProto.INT32, ["batch", size])
    return _join(tower, do, port, dimension)


def _mask(do: _Nodes, texts: TextSteps) -> str:
    """Add the attention mask (B, L) int32: 1 for the tokens of a text, the end token included."""
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
    """Return the tower with nodes before it and the norm after it."""
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
