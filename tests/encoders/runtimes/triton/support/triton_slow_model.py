"""Models that misbehave on request, as tiny ONNX graphs in a model repository of their own."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

SLOW = "slow"
SECOND = 400_000
"""Rounds of a loop that take about a second, and never a tenth of one: 0.25 µs each is beyond any interpreter."""

_SLOW_CONFIG = """\
backend: "onnxruntime"
max_batch_size: 1
input [{ name: "rounds" data_type: TYPE_INT64 dims: [ 1 ] }]
output [{ name: "done" data_type: TYPE_INT64 dims: [ 1 ] }]
instance_group [{ kind: KIND_AUTO count: 1 }]
dynamic_batching { default_queue_policy { max_queue_size: 1 } }
"""


def write_slow(repository: Path) -> Path:
    """A graph that counts to ``rounds``, one by one; one request runs, one waits, more are refused."""
    folder = repository / SLOW / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(_SLOW_CONFIG)
    onnx.save(_counting(), str(folder / "model.onnx"))
    return repository


def _counting() -> onnx.ModelProto:
    def value(name: str, type_: int, shape: list[int | str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, type_, shape)

    body = helper.make_graph(
        [
            helper.make_node("Add", ["count_in", "one"], ["count_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            value("round", TensorProto.INT64, []),
            value("go_in", TensorProto.BOOL, []),
            value("count_in", TensorProto.INT64, []),
        ],
        [value("go_out", TensorProto.BOOL, []), value("count_out", TensorProto.INT64, [])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["rounds"], ["trips"], keepdims=0),
        helper.make_node("Loop", ["trips", "", "zero"], ["counted"], body=body),
        helper.make_node("Mul", ["rounds", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "counted"], ["done"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [], [number]) for name, number in (("zero", 0), ("one", 1))
    ]
    ports = [value(name, TensorProto.INT64, ["batch", 1]) for name in ("rounds", "done")]
    graph = helper.make_graph(nodes, SLOW, ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
