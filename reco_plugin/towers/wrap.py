"""A tower in the form in which the package serves all: bytes of pixels or int32 tokens in, unit vectors out.

The nodes before and after a tower are added to its own graph: casts, the normalisation of pixels, the mask of a text's
padding, the norm of the vector. So nothing is special about an imported model afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from .graph import Tower, opset_of
from .nodes import Nodes, floats
from .pixels import Pixels
from .texts import TextSteps

_PORTS = ("pixels", "tokens", "features")
_BYTE = 1 / 255


def wrap_image(tower: Tower, pixels: Pixels, dimension: int) -> onnx.ModelProto:
    """A graph of ``pixels`` uint8 (B, H, W, 3) -> ``features`` (B, D), unit-norm."""
    do, value, main = Nodes("reco_in", tower.opset), "pixels", tower.main
    if main.type != TensorProto.UINT8:
        value = do.cast(value, TensorProto.FLOAT)  # first: TensorRT takes bytes only into a cast
    if not tower.channels_last:
        value = do.add("Transpose", value, perm=[0, 3, 1, 2])
    if main.type != TensorProto.UINT8:
        value = _normalise(do, value, pixels, last=tower.channels_last)
        value = do.cast(value, main.type)
    do.add("Identity", value, out=_inner(main.name))
    shape: list[str | int | None] = ["batch", *pixels.image.size, 3]
    return _join(tower, do, helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape), dimension)


def _normalise(do: Nodes, value: str, pixels: Pixels, *, last: bool) -> str:
    shape = (1, 1, 1, 3) if last else (1, 3, 1, 1)
    if pixels.scale == _BYTE:
        value = do.add("Div", value, do.constant(255.0))
    elif pixels.scale != 1.0:
        value = do.add("Mul", value, do.constant(pixels.scale))
    mean, std = (np.reshape(each, shape) for each in (pixels.image.mean, pixels.image.std))
    if mean.any():
        value = do.add("Sub", value, do.constant(mean))
    return value if (std == 1).all() else do.add("Div", value, do.constant(std))


def wrap_text(tower: Tower, texts: TextSteps, dimension: int) -> onnx.ModelProto:
    """A graph of ``tokens`` int32 (B, L) -> ``features`` (B, D), unit-norm; L is fixed where the tower's is."""
    do, main = Nodes("reco_in", tower.opset), tower.main
    do.cast("tokens", main.type, out=_inner(main.name))
    if tower.others:
        positions, zeros = _positions(do), do.add("Sub", "tokens", "tokens")
        found = {
            "mask": _mask(do, texts, positions) if texts.masked else do.add("Add", zeros, do.constant(1, np.int32)),
            "position_ids": do.add("Add", zeros, positions),
            "token_type_ids": zeros,
        }
        for role, value in tower.others.items():
            do.cast(found[role], value.type, out=_inner(value.name))
    length = tower.main.sizes[1] or "length"
    port = helper.make_tensor_value_info("tokens", TensorProto.INT32, ["batch", length])
    return _join(tower, do, port, dimension)


def _positions(do: Nodes) -> str:
    """0 to L - 1, (L,) int32."""
    length = do.add("Gather", do.add("Shape", "tokens"), do.constant(1, np.int64), axis=0)
    count = do.add("Range", do.constant(0, np.int64), length, do.constant(1, np.int64))
    return do.cast(count, TensorProto.INT32)


def _mask(do: Nodes, texts: TextSteps, positions: str) -> str:
    """1 up to the last token that is no padding, and one more where padding ends a text; (B, L) int32."""
    told = do.cast(do.add("Equal", "tokens", do.constant(texts.text.pad_id, np.int32)), TensorProto.INT32)
    filled = do.add("Sub", do.constant(1, np.int32), told)
    reached = do.add("Mul", filled, do.add("Add", positions, do.constant(1, np.int32)))
    needed = do.reduce("ReduceMax", reached)
    if texts.text.end_id is not None:
        needed = do.add("Add", needed, do.constant(1, np.int32))
    return do.cast(do.add("Less", positions, needed), TensorProto.INT32)


def _inner(name: str) -> str:
    """A name of the tower's, where a port of ours has the same."""
    return f"reco_{name}" if name in _PORTS else name


def _rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Give values other names, also in the graphs inside of nodes."""
    for node in nodes:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
        for attribute in node.attribute:
            for graph in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
                _rename(graph.node, names)
                for port in graph.output:
                    port.name = names.get(port.name, port.name)


def _join(tower: Tower, before: Nodes, port: onnx.ValueInfoProto, dimension: int) -> onnx.ModelProto:
    """The tower with nodes before it, and the norm after it."""
    model = onnx.ModelProto()
    model.CopyFrom(tower.model)
    graph = model.graph
    _rename(graph.node, {name: _inner(name) for name in _PORTS})
    for weights in graph.initializer:
        weights.name = _inner(weights.name)
    after = Nodes("reco_out", tower.opset)
    after.unit(after.cast(_inner(tower.output), TensorProto.FLOAT), "features")
    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    graph.input.append(port)
    graph.output.append(floats("features", dimension))
    return model


def row_by_row(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph for any batch, of one that works for a batch of one only: each row in turn."""
    source, model = model, onnx.ModelProto()
    model.CopyFrom(source)
    graph = model.graph
    port, dimension = graph.input[0], graph.output[0].type.tensor_type.shape.dim[1].dim_value
    sizes = [one.dim_value or -1 for one in port.type.tensor_type.shape.dim][1:]
    opset = opset_of(model)
    _rename(graph.node, {port.name: "reco_one", "features": "reco_one_vector"})
    before, after = Nodes("reco_row", opset), Nodes("reco_vector", opset)
    before.add("Reshape", "reco_row", before.constant([1, *sizes], np.int64), out="reco_one")
    after.add("Reshape", "reco_one_vector", after.constant([dimension], np.int64), out="reco_vector")
    row = helper.make_tensor_value_info(
        "reco_row", port.type.tensor_type.elem_type, [size if size > 0 else None for size in sizes]
    )
    vector = helper.make_tensor_value_info("reco_vector", TensorProto.FLOAT, [dimension])
    body = helper.make_graph([*before.nodes, *graph.node, *after.nodes], "row", [row], [vector])
    scan = helper.make_node("Scan", [port.name], ["features"], "reco_scan", body=body, num_scan_inputs=1)
    del graph.node[:], graph.value_info[:]
    graph.node.append(scan)
    graph.initializer.extend([*before.constants, *after.constants])
    return model
