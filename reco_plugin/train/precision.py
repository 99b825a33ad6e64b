"""Smaller weights and half precision for a graph of ONNX that is there, one tensor at a time; loads no torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph_file import ONE_FILE, changed, read, read_graph, write_graph
from .parity import Precision
from .recipe import Serving
from .triton import GraphSpec

FloatWidth = Literal["single", "half"]
_SMALL = 256  # weights with fewer values are kept: they save nothing and include constants such as epsilons
_LARGE = 2**18  # values; the converter to half precision copies tensors, so it sees larger ones by name only
_TABLE = 2**14  # values from which a table of embeddings is quantised: the two operators more must be worth it
_IN_SINGLE = ["LayerNormalization", "Softmax", "ReduceL2", "ReduceMean", "ReduceSum", "Pow", "Sqrt"]
"""Sums over many values, in which half precision loses most."""
_PRODUCT = 64  # of 7 bits: sums of two products of 8 overflow on processors without VNNI
_ENTRY = 127  # an embedding is never multiplied as an integer
_ROWS = 4096  # of a table at once

Array = npt.NDArray[Any]


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


def to_precision(path: Path, precision: Precision, arithmetic: FloatWidth = "single", limit: int = ONE_FILE) -> None:
    """Rewrite a float32 graph in place; inputs and outputs keep their types.

    Args:
        path: the graph, of one file or of two.
        precision: ``fp32`` leaves it, ``fp16`` halves the weights, ``int8`` quarters matrices and embeddings.
        arithmetic: of an fp16 graph; in ``single`` the weights are cast up when the graph is loaded.
        limit: bytes of weights above which they lie in a second file.

    Raises:
        ArtifactError: the graph cannot be read.
        OSError: it cannot be written; the old one stays.
    """
    if precision == "fp32":
        return
    model = read_graph(path)
    if precision == "int8":
        _quantise(model.graph)
    elif arithmetic == "half":
        model = _compute_fp16(model)
    else:
        _store_fp16(model.graph)
    write_graph(model, path, limit)


def has_whole_int8(path: Path) -> bool:
    """Whether products of a graph have int8 weights of more than 7 bits, sums of which may overflow.

    Raises:
        ArtifactError: the graph cannot be read.
    """
    for graph in read_graph(path).graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype != ir.DataType.INT8 or tensor.size < _SMALL:
                continue
            looked_up = all(use.node.op_type == "Gather" for use in value.uses())
            if not looked_up and read(tensor, lambda values: np.abs(values, dtype=np.int16).max()) > _PRODUCT:
                return True
    return False


def _half(values: Array) -> Array:
    return values.astype(np.float16)


def _compute_fp16(model: ir.Model) -> ir.Model:
    """Compute in half precision by ONNX Runtime's converter, which sees large weights as inputs without values."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    graph = model.graph
    ports = [value.name for value in (*graph.inputs, *graph.outputs)]
    given = len(graph.inputs)
    large = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size >= _LARGE:
            large[name] = tensor
            del graph.initializers[name]
            value.const_value = None
            graph.inputs.append(value)
    converted = convert_float_to_float16(
        ir.to_proto(model), keep_io_types=ports, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_IN_SINGLE]
    )
    model = ir.from_proto(converted)
    for value in list(model.graph.inputs[given:]):
        model.graph.inputs.remove(value)
        value.const_value = changed(large[str(value.name)], _half, np.float16)
        model.graph.register_initializer(value)
    return model


def _store_fp16(graph: ir.Graph) -> None:
    """Keep weights as float16 and cast them up when the graph is loaded: half the bytes on any processor."""
    casts = []
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _SMALL:
            continue
        half = _add(graph, f"{name}_fp16", changed(tensor, _half, np.float16))
        cast = ir.node("Cast", [half], attributes={"to": ir.DataType.FLOAT})
        casts.append(cast)
        _replace(graph, value, cast.outputs[0])
    first = next(iter(graph), None)
    if first is not None:
        graph.insert_before(first, casts)


def _quantise(graph: ir.Graph) -> None:
    """Dynamic quantisation: products of int8 with activations that are quantised as they come, and tables row by row.

    It is what ONNX Runtime's own quantiser writes for products, which holds all weights in RAM several times, and
    quantises a whole table by one scale.
    """
    activations: dict[ir.Value, tuple[ir.Value, ...]] = {}  # each is quantised once for all its products
    for node in list(graph):
        if node.op_type in ("MatMul", "Gemm") and _is_plain(node):
            first, weights = node.inputs[0], _matrix(graph, node.inputs[1])
            if first is not None and weights is not None:
                _quantise_product(graph, node, first, weights, activations)
        elif node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0:
            table, index = _matrix(graph, node.inputs[0]), node.inputs[1]
            if table is not None and index is not None and table.size >= _TABLE:
                _quantise_table(graph, node, table, index)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _matrix(graph: ir.Graph, value: ir.Value | None) -> ir.TensorProtocol | None:
    """The values of a constant matrix of float32, else None; not of a vector, which the kernels refuse."""
    if value is None or graph.initializers.get(str(value.name)) is not value or value.const_value is None:
        return None
    tensor = value.const_value
    shape = tensor.shape.numpy()
    return tensor if tensor.dtype == ir.DataType.FLOAT and len(shape) == 2 and min(shape) > 1 else None


def _is_plain(node: ir.Node) -> bool:
    """Whether a product is ``x @ w + b`` or ``x @ w.T + b``, without factors."""
    numbers = node.attributes
    return not numbers.get_int("transA", 0) and all(numbers.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))


def _quantise_product(
    graph: ir.Graph,
    node: ir.Node,
    x: ir.Value,
    weights: ir.TensorProtocol,
    activations: dict[ir.Value, tuple[ir.Value, ...]],
) -> None:
    """Replace a product by integers: DynamicQuantizeLinear, MatMulInteger, Cast, Mul, and Add of a Gemm's bias."""
    made, turned = [], node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
    if x not in activations:
        quantise = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
        activations[x] = tuple(quantise.outputs)
        made.append(quantise)
    small, scale, zero = activations[x]
    matrix, scales, zeros = _quantised_matrix(graph, str(node.outputs[0].name), weights, turned=turned)
    product = ir.node("MatMulInteger", [small, matrix, zero, zeros])
    as_float = ir.node("Cast", [product.outputs[0]], attributes={"to": ir.DataType.FLOAT})
    both = ir.node("Mul", [scale, scales])
    scaled = ir.node("Mul", [as_float.outputs[0], both.outputs[0]])
    made += [product, as_float, both, scaled]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        made.append(ir.node("Add", [scaled.outputs[0], node.inputs[2]]))
    _put(graph, node, made)


def _quantised_matrix(
    graph: ir.Graph, name: str, weights: ir.TensorProtocol, *, turned: bool
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Weights (K, N) as int8, scales (N) and zero points (N), of weights (N, K) if ``turned``."""
    axis = 1 if turned else 0  # summed over
    largest = read(weights, lambda values: np.maximum(values.max(axis), -values.min(axis)))
    scales = _scales(largest, _PRODUCT)

    def integers(values: Array) -> Array:
        return _rounded(values.T if turned else values, scales, _PRODUCT)

    shape = weights.shape.numpy()[:: -1 if turned else 1]
    lazy = ir.LazyTensor(lambda: ir.tensor(read(weights, integers)), ir.DataType.INT8, ir.Shape(shape))
    return (
        _add(graph, f"{name}_weights_int8", lazy),
        _add(graph, f"{name}_weights_scale", ir.tensor(scales)),
        _add(graph, f"{name}_weights_zero", ir.tensor(np.zeros(len(scales), np.int8))),
    )


def _quantise_table(graph: ir.Graph, node: ir.Node, tensor: ir.TensorProtocol, index: ir.Value) -> None:
    """Replace a look-up of rows by one of int8 rows and one of their scales."""
    name = str(node.inputs[0].name) if node.inputs[0] is not None else ""
    if f"{name}_int8" in graph.initializers:  # a second look-up in the same table
        rows, factors = graph.initializers[f"{name}_int8"], graph.initializers[f"{name}_scale"]
    else:
        largest = read(tensor, lambda values: np.maximum(values.max(1), -values.min(1)))
        scales = _scales(largest, _ENTRY)[:, None]  # (V, 1)
        rows = _add(graph, f"{name}_int8", changed(tensor, lambda values: _rounded(values, scales, _ENTRY), np.int8))
        factors = _add(graph, f"{name}_scale", ir.tensor(scales))
    found = ir.node("Gather", [rows, index])
    as_float = ir.node("Cast", [found.outputs[0]], attributes={"to": ir.DataType.FLOAT})
    scale = ir.node("Gather", [factors, index])
    _put(graph, node, [found, as_float, scale, ir.node("Mul", [as_float.outputs[0], scale.outputs[0]])])


def _scales(largest: Array, steps: int) -> npt.NDArray[np.float32]:
    """Step of each row or column, whose largest value is given; 1 where all are zero."""
    return np.where(largest > 0, largest / steps, 1.0).astype(np.float32)


def _rounded(values: Array, scales: Array, steps: int) -> npt.NDArray[np.int8]:
    """Values (R, C) in steps of their scales, which broadcast to them; some rows at a time."""
    found = np.empty(values.shape, np.int8)
    for start in range(0, len(values), _ROWS):
        part = slice(start, start + _ROWS)
        step = scales[part] if scales.ndim == 2 else scales
        found[part] = np.clip(np.rint(values[part] / step), -steps, steps)
    return found


def _add(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Add a constant to a graph."""
    tensor.name = name
    value = ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def _put(graph: ir.Graph, old: ir.Node, new: list[ir.Node]) -> None:
    """Replace a node of one output by nodes of which the last has it."""
    ir.convenience.replace_nodes_and_values(graph, old, [old], new, old.outputs, new[-1].outputs)


def _replace(graph: ir.Graph, constant: ir.Value, by: ir.Value) -> None:
    """Give a computed value the name and the uses of a constant, which goes."""
    name = str(constant.name)
    constant.replace_all_uses_with(by, replace_graph_outputs=True)
    del graph.initializers[name]
    by.name, by.shape, by.type = name, constant.shape, constant.type
