"""Smaller storage for an ONNX graph's weights; the arithmetic stays float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SMALL = 256  # weights with fewer values are kept: they save nothing and include constants such as epsilons


def to_precision(path: Path, precision: str) -> None:
    """Rewrite a float32 graph in place: ``fp32`` leaves it, ``fp16`` halves it, ``int8`` quarters its matrices."""
    if precision == "fp16":
        _store_fp16(path)
    elif precision == "int8":
        _quantise(path)


def _store_fp16(path: Path) -> None:
    """Keep weights as float16 and cast them up when the graph is loaded: half the bytes on any processor."""
    model = onnx.load(str(path))
    graph = model.graph
    casts, kept = [], []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < _SMALL:
            kept.append(tensor)
            continue
        half = numpy_helper.to_array(tensor).astype(np.float16)
        kept.append(numpy_helper.from_array(half, f"{tensor.name}_fp16"))
        casts.append(helper.make_node("Cast", [f"{tensor.name}_fp16"], [tensor.name], to=TensorProto.FLOAT))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, str(path))


def _quantise(path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = path.with_suffix(".int8")
    quantize_dynamic(
        str(path), str(small), per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
    )
    small.replace(path)
