"""Smaller weights and half precision for a graph of ONNX that is there; loads no torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .parity import Precision
from .recipe import Serving
from .triton import GraphSpec

FloatWidth = Literal["single", "half"]
_SMALL = 256  # weights with fewer values are kept: they save nothing and include constants such as epsilons
_MATRIX_OPS = ["MatMul", "Gemm"]
_IN_SINGLE = ["LayerNormalization", "Softmax", "ReduceL2", "ReduceMean", "ReduceSum", "Pow", "Sqrt"]
"""Sums over many values, in which half precision loses most."""


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress internal logs and warnings of the exporter and the quantiser, on which no caller can act."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def arithmetic_of(spec: GraphSpec, precision: Precision, serving: Serving) -> FloatWidth:
    """Half only for the encoders in fp16 on CUDA: CPUs have no kernels for it, and TensorRT casts by itself."""
    return "half" if precision == "fp16" and serving.accelerator == "cuda" and spec.engine else "single"


def to_precision(path: Path, precision: Precision, arithmetic: FloatWidth = "single") -> None:
    """Rewrite a float32 graph in place; inputs and outputs keep their types.

    Args:
        path: the graph.
        precision: ``fp32`` leaves it, ``fp16`` halves the weights, ``int8`` quarters the matrices.
        arithmetic: of an fp16 graph; in ``single`` the weights are cast up when the graph is loaded.
    """
    if precision == "fp16" and arithmetic == "half":
        _compute_fp16(path)
    elif precision == "fp16":
        _store_fp16(path)
    elif precision == "int8":
        _quantise(path)


def _compute_fp16(path: Path) -> None:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = convert_float_to_float16(
        onnx.load(str(path)), keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_IN_SINGLE]
    )
    onnx.save(model, str(path))


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

    graph = onnx.load(str(path)).graph
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 1}
    nodes = [node.name for node in graph.node if node.op_type in _MATRIX_OPS and matrices & set(node.input)]
    if not nodes:
        return
    small = path.with_suffix(".int8")
    quantize_dynamic(
        str(path),
        str(small),
        per_channel=True,
        weight_type=QuantType.QInt8,
        reduce_range=True,  # 7 bits: products of 8 overflow on processors without VNNI
        op_types_to_quantize=_MATRIX_OPS,
        nodes_to_quantize=nodes,  # not vectors: the quantiser would take them, the kernels then refuse them
    )
    small.replace(path)
