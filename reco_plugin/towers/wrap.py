"""A tower in the form in which the package serves all: bytes of pixels or int32 tokens in, unit vectors out.

The nodes before and after a tower are added to its own graph: casts, the normalisation of pixels, the mask of a text's
padding, the norm of the vector. So nothing is special about an imported model afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .graph import Tower
from .pixels import Pixels
from .texts import TextSteps

_AXES_ARE_INPUTS = 18  # opset from which reductions take their axes as an input
_LEAST_NORM = 1e-12


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
        """Reduce (B, N) to (B, 1)."""
        if self.opset >= _AXES_ARE_INPUTS:
            return self.add(operator, value, self.constant([1], np.int64), keepdims=1)
        return self.add(operator, value, axes=[1], keepdims=1)


def wrap_image(tower: Tower, pixels: Pixels, dimension: int) -> onnx.ModelProto:
    """A graph of ``pixels`` uint8 (B, H, W, 3) -> ``features`` (B, D), unit-norm."""
    do = _Nodes("reco_in", tower.opset)
    value = do.add("Cast", "pixels", to=TensorProto.FLOAT)  # first: TensorRT takes bytes only into a cast
    value = do.add("Mul", do.add("Transpose", value, perm=[0, 3, 1, 2]), do.constant(pixels.scale))
    mean, std = (do.constant(np.reshape(each, (1, 3, 1, 1))) for each in (pixels.image.mean, pixels.image.std))
    value = do.add("Div", do.add("Sub", value, mean), std)
    do.add("Cast", value, to=tower.types[tower.main], out=tower.main)
    shape: list[str | int | None] = ["batch", *pixels.image.size, 3]
    return _join(tower, do, helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape), dimension)


def wrap_text(tower: Tower, texts: TextSteps, dimension: int) -> onnx.ModelProto:
    """A graph of ``tokens`` int32 (B, L) -> ``features`` (B, D), unit-norm; L is fixed unless texts are cut."""
    do = _Nodes("reco_in", tower.opset)
    length = do.add("Gather", do.add("Shape", "tokens"), do.constant(1, np.int64), axis=0)
    count = do.add("Range", do.constant(0, np.int64), length, do.constant(1, np.int64))
    positions, zeros = do.add("Cast", count, to=TensorProto.INT32), do.add("Sub", "tokens", "tokens")
    found = {tower.main: "tokens", "position_ids": do.add("Add", zeros, positions), "token_type_ids": zeros}
    if "attention_mask" in tower.types:
        one = do.constant(1, np.int32)
        found["attention_mask"] = _mask(do, texts, positions) if texts.masked else do.add("Add", zeros, one)
    for name, kind in tower.types.items():
        do.add("Cast", found[name], to=kind, out=name)
    size = "length" if texts.text.dynamic else texts.text.context_length
    port = helper.make_tensor_value_info("tokens", TensorProto.INT32, ["batch", size])
    return _join(tower, do, port, dimension)


def _mask(do: _Nodes, texts: TextSteps, positions: str) -> str:
    """1 up to the last token that is no padding, and one more where padding ends a text; (B, L) int32."""
    one = do.constant(1, np.int32)
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
    graph, after = model.graph, _Nodes("reco_out", tower.opset)
    vector = after.add("Cast", tower.output, to=TensorProto.FLOAT)
    norm = after.add("Max", after.reduce("ReduceL2", vector), after.constant(_LEAST_NORM))
    after.add("Div", vector, norm, out="features")
    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    graph.input.append(port)
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", dimension]))
    return model
