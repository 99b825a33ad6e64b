"""A tower in a file: what of the graph it is, what it takes, and what it gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from ..errors import ArtifactError, ConfigError
from ..types import Modality

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_WHOLE = (TensorProto.INT64, TensorProto.INT32)
_MASKS = ("attention_mask", "mask", "input_mask")
_WORDS = {"image": ("image", "vision", "visual", "pixel"), "text": ("text", "textual")}
_CHANNELS = 3


@dataclass(frozen=True)
class Value:
    """An input or output: element type as ONNX numbers it, and sizes, None where any."""

    name: str
    type: int
    sizes: tuple[int | None, ...]


@dataclass
class Tower:
    """One tower of a file, alone."""

    modality: Modality
    path: Path  # of the file
    model: onnx.ModelProto  # pruned to what the vector needs
    main: Value  # pixels or token ids
    others: dict[str, Value]  # of a text: mask, types, positions, by role
    output: str  # name of the vector (B, D)

    @property
    def one_row(self) -> bool:
        """Whether the graph takes batches of one only, as it stands."""
        return self.main.sizes[0] is not None

    @property
    def channels_last(self) -> bool:
        """Whether pixels are (B, H, W, 3)."""
        return self.main.sizes[3] == _CHANNELS and self.main.sizes[1] != _CHANNELS

    @property
    def side(self) -> tuple[int | None, int | None]:
        """Height and width of pixels, None where any."""
        return (
            (self.main.sizes[1], self.main.sizes[2]) if self.channels_last else (self.main.sizes[2], self.main.sizes[3])
        )

    @property
    def opset(self) -> int:
        """Version of the operators."""
        return opset_of(self.model)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of a model's operators."""
    return int(next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")))


def load(path: Path) -> onnx.ModelProto:
    """Read a graph; weights in files of their own stay there, since they may be larger than the RAM.

    Raises:
        ArtifactError: it cannot be read, or a file of its weights is missing.
    """
    for weights in weights_beside(path):
        if not weights.is_file():
            raise ArtifactError(f"{weights} is missing: it holds weights of {path.name}. Fetch both, into one folder")
    return onnx.load(str(path), load_external_data=False)


def weights_beside(path: Path) -> list[Path]:
    """The files in which a graph keeps its weights, where they are not in its own."""
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        raise ArtifactError(f"{path} cannot be read as an ONNX graph ({error}): fetch it again") from None
    said = (entry for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location")
    return [path.parent / name for name in dict.fromkeys(entry.value for entry in said)]


def take_tower(model: onnx.ModelProto, path: Path, modality: Modality, output: str | None, both: bool) -> Tower:
    """Cut one tower out of a file.

    Args:
        model: the file's content.
        path: of the file.
        modality: of the tower.
        output: name of the vector; None: told by the names.
        both: whether the file holds both towers.

    Raises:
        ArtifactError: the graph has no such tower.
        ConfigError: which output is meant is not clear.
    """
    name = output or _choose_output(model, path, modality, both)
    values = {one.name: one for one in model.graph.output}
    if name not in values:
        raise ConfigError(f"{path} has no output {name!r}; it has {', '.join(values)}")
    alone = _prune(model, name)
    inputs = [_value(one) for one in alone.graph.input]
    main, others = _image_input(inputs, path) if modality == "image" else _text_inputs(inputs, path)
    unused = sorted({one.name for one in _true_inputs(model)} - {one.name for one in alone.graph.input})
    if main is None:
        what = "pictures (B, 3, H, W)" if modality == "image" else "token ids (B, L)"
        dead = f"; {', '.join(unused)} is dead: nothing depends on it" if unused and not both else ""
        raise ArtifactError(
            f"{path}: {name} depends on no input of {what}, but on {_describe(inputs)}{dead}. Choose another graph by "
            f"--{modality}, or output by --{modality}-output"
        )
    return Tower(modality, path, alone, main, others, name)


def _choose_output(model: onnx.ModelProto, path: Path, modality: Modality, both: bool) -> str:
    """The output whose name, or form, says that it is the vector."""
    found = [_value(one) for one in model.graph.output]
    flat = [one for one in found if len(one.sizes) in (0, 2) and "logits" not in one.name]
    if both:
        flat = [one for one in flat if any(word in one.name for word in _WORDS[modality])]
    for words in (("embed", "feature"), ("",)):
        named = sorted((one.name for one in flat if any(word in one.name for word in words)), key=len)
        if words == ("",) and len(named) > 1:
            named = [name for name in named if name != "pooler_output"] or named
        if len(named) == 1 or (named and len(named[0]) < len(named[1])):
            return named[0]
        if named:
            raise ConfigError(
                f"{path} has several outputs that may be the vector, {', '.join(named)}: choose by --{modality}-output"
            )
    if any(one.name == "last_hidden_state" or len(one.sizes) == 3 for one in found):
        raise ArtifactError(
            f"{path} ends in the states of all {'patches' if modality == 'image' else 'tokens'} ({_describe(found)}), "
            "before pooling and projection: take a graph that was exported with them (image_embeds, text_embeds), or "
            "the weights of transformers themselves as SOURCE"
        )
    raise ArtifactError(f"{path} has no output of vectors (B, D), but {_describe(found)}: choose another graph")


def _describe(values: list[Value]) -> str:
    shapes = (f"{one.name} ({', '.join('any' if size is None else str(size) for size in one.sizes)})" for one in values)
    return ", ".join(shapes) or "nothing"


def _image_input(inputs: list[Value], path: Path) -> tuple[Value | None, dict[str, Value]]:
    pictures = [one for one in inputs if len(one.sizes) == 4 and one.type in (*_FLOATS, TensorProto.UINT8)]
    if pictures and (more := [one.name for one in inputs if one not in pictures[:1]]):
        raise ArtifactError(f"{path} needs {', '.join(more)} beside pictures, which is not supported")
    if not pictures:
        return None, {}
    return pictures[0], {}


def _text_inputs(inputs: list[Value], path: Path) -> tuple[Value | None, dict[str, Value]]:
    roles: dict[str, Value] = {}
    rest = []
    for one in inputs:
        if one.name in _MASKS:
            roles["mask"] = one
        elif one.name in ("token_type_ids", "position_ids"):
            roles[one.name] = one
        else:
            rest.append(one)
    ids = [one for one in rest if len(one.sizes) == 2 and one.type in _WHOLE]
    if len(ids) == 1 and len(rest) > 1:
        raise ArtifactError(f"{path} needs {', '.join(one.name for one in rest if one not in ids)} beside token ids")
    if len(ids) > 1:
        raise ArtifactError(
            f"{path} takes several inputs of whole numbers, {_describe(ids)}: which are ids is not clear"
        )
    return (ids[0] if ids else None), roles


def _value(info: onnx.ValueInfoProto) -> Value:
    tensor = info.type.tensor_type
    sizes = tuple(
        one.dim_value if one.HasField("dim_value") and one.dim_value > 0 else None for one in tensor.shape.dim
    )
    return Value(info.name, tensor.elem_type, sizes)


def _true_inputs(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """Inputs that are no weights, which old files list, too."""
    weights = {one.name for one in model.graph.initializer}
    return (one for one in model.graph.input if one.name not in weights)


def _prune(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """The same model with one output, and only what it depends on."""
    wanted, kept = {output}, []
    for node in reversed(model.graph.node):  # they are sorted
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(_reads(node))
    alone = onnx.ModelProto()
    _copy_head(alone, model)
    graph = alone.graph
    graph.node.extend(reversed(kept))
    graph.initializer.extend(one for one in model.graph.initializer if one.name in wanted)
    graph.input.extend(one for one in _true_inputs(model) if one.name in wanted)
    graph.output.extend(one for one in model.graph.output if one.name == output)
    return alone


def _copy_head(alone: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Copy all but the weights and nodes, which are most of a file."""
    alone.ir_version = model.ir_version
    alone.opset_import.extend(model.opset_import)
    alone.functions.extend(model.functions)
    alone.metadata_props.extend(model.metadata_props)
    alone.graph.name = model.graph.name or "tower"
    alone.graph.sparse_initializer.extend(model.graph.sparse_initializer)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, also those that the graphs inside it read from outside."""
    yield from node.input
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
        for graph in graphs:
            for inner in graph.node:
                yield from _reads(inner)
            yield from (one.name for one in graph.output)


def embedding_rows(tower: Tower) -> int | None:
    """How many tokens the text tower has vectors for; None where the graph does not show it."""
    ids = {tower.main.name}
    weights = {one.name: one for one in tower.model.graph.initializer}
    sizes: dict[str, int] = {}
    for node in tower.model.graph.node:
        if node.op_type in ("Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze") and node.input[0] in ids:
            ids.update(node.output)
        elif node.op_type in ("Cast", "Identity", "DequantizeLinear", "Transpose") and node.input[0] in weights:
            sizes[node.output[0]] = weights[node.input[0]].dims[0]
        elif node.op_type in ("Gather", "GatherBlockQuantized") and len(node.input) > 1 and node.input[1] in ids:
            table = node.input[0]
            return weights[table].dims[0] if table in weights else sizes.get(table)
    return None
