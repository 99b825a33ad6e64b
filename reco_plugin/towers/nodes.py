"""Nodes and constants that are put around a graph, and the closed form's step, which consists of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..calibration.gate import CONSTANTS, LEAST, RELIABILITY_STEP, SHORTEST, SIGNALS, STRONGEST

AXES_ARE_INPUTS = 18
"""Opset from which reductions take their axes as an input."""
LEAST_NORM = 1e-12
_OPSET, _IR = 17, 8  # what ONNX Runtime, OpenVINO and TensorRT of the last years read


@dataclass
class Nodes:
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

    def split(self, value: str, sizes: list[int], names: list[str]) -> None:
        """Columns of (B, N), under these names."""
        parts = self.constant(sizes, np.int64)
        self.nodes.append(helper.make_node("Split", [value, parts], names, f"{self.prefix}_split_{value}", axis=1))

    def cast(self, value: str, to: int, out: str | None = None) -> str:
        """The value in another element type."""
        return self.add("Cast", value, out=out, to=to)

    def reduce(self, operator: str, value: str) -> str:
        """Reduce (B, N) to (B, 1)."""
        if self.opset >= AXES_ARE_INPUTS:
            return self.add(operator, value, self.constant([1], np.int64), keepdims=1)
        return self.add(operator, value, axes=[1], keepdims=1)

    def unit(self, value: str, out: str) -> None:
        """Rows of (B, D) with norm 1."""
        norm = self.add("Max", self.reduce("ReduceL2", value), self.constant(LEAST_NORM))
        self.add("Div", value, norm, out=out)


def make_step(dimension: int) -> onnx.ModelProto:
    """The graph of :func:`reco_plugin.calibration.gate.step` for vectors (B, D)."""
    do = Nodes("step", _OPSET)
    do.split("constants", [6, 6, 6, 1, 1], ["phi", "low", "high", "spread", "scale"])
    do.split("signals", [1] * 8, ["known", "own", "honest", "best", "above", "length", "rank", "used"])
    least, one = do.constant(LEAST), do.constant(1)
    columns = [
        do.cast(do.add("Equal", "known", "known"), TensorProto.FLOAT),
        do.add("Log", do.add("Max", "known", least)),
        do.add("Log", do.add("Max", "own", least)),
        do.add("Log", do.add("Add", "honest", do.constant(RELIABILITY_STEP))),
        do.add("Div", do.add("Sub", "best", one), "spread"),
        do.add("Div", "above", "spread"),
    ]
    features = do.add("Concat", *columns, axis=1)
    bounded = do.add("Min", do.add("Max", features, "low"), "high")
    total = do.add("ReduceSum", do.add("Mul", bounded, "phi"), do.constant([1], np.int64), keepdims=1)
    logit = do.add("Clip", total, do.constant(-2 * STRONGEST), do.constant(STRONGEST))
    share = do.add("Mul", do.add("Mul", "scale", "used"), do.add("Exp", logit))
    do.add("Div", share, do.add("Max", "length", do.constant(SHORTEST)), out="strength")
    do.unit(do.add("Add", "query", do.add("Mul", "strength", "evidence")), "refined")
    ports = {"query": dimension, "evidence": dimension, "signals": SIGNALS, "constants": CONSTANTS}
    graph = helper.make_graph(
        do.nodes,
        "step",
        [floats(name, size) for name, size in ports.items()],
        [floats("refined", dimension), floats("strength", 1)],
        do.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


def floats(name: str, size: int) -> onnx.ValueInfoProto:
    """A port (B, N) of float32."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
