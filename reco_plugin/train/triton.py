"""``config.pbtxt`` of a graph, from one typed description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_BATCH = 64

DataType = Literal["TYPE_UINT8", "TYPE_INT32", "TYPE_FP32"]


@dataclass(frozen=True)
class Port:
    """One input or output: name, type and dimensions without the batch (-1: any)."""

    name: str
    type: DataType
    dims: tuple[int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One graph's ports."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def clip_image_spec(height: int, width: int, dimension: int) -> GraphSpec:
    """Image encoder: pixels as they are decoded, normalisation is inside."""
    pixels = Port("pixels", "TYPE_UINT8", (height, width, 3))
    return GraphSpec("clip_image", (pixels,), (_features(dimension),))


def clip_text_spec(length: int, dimension: int) -> GraphSpec:
    """Text encoder: token ids, of any length (-1) where the tower is causal."""
    return GraphSpec("clip_text", (Port("tokens", "TYPE_INT32", (length,)),), (_features(dimension),))


def fusion_spec(name: str, dimension: int) -> GraphSpec:
    """Fusion: the query and what was retrieved for it."""
    return GraphSpec(
        name,
        (
            Port("query", "TYPE_FP32", (dimension,)),
            Port("neighbours", "TYPE_FP32", (-1, dimension)),
            Port("similarity", "TYPE_FP32", (-1,)),
            Port("trust", "TYPE_FP32", (-1,)),
        ),
        (Port("refined", "TYPE_FP32", (dimension,)), Port("weights", "TYPE_FP32", (-1,))),
    )


def _features(dimension: int) -> Port:
    return Port("features", "TYPE_FP32", (dimension,))


def render_config(spec: GraphSpec) -> str:
    """The file's text. KIND_AUTO runs on GPUs where there are any and on the CPU where not."""
    return "\n".join(
        [
            'backend: "onnxruntime"',
            f"max_batch_size: {MAX_BATCH}",
            *(_port("input", port) for port in spec.inputs),
            *(_port("output", port) for port in spec.outputs),
            "instance_group [{ kind: KIND_AUTO count: 1 }]",
            "dynamic_batching { }",
            "",
        ]
    )


def _port(kind: str, port: Port) -> str:
    dims = ", ".join(map(str, port.dims))
    return f'{kind} [{{ name: "{port.name}" data_type: {port.type} dims: [ {dims} ] }}]'
