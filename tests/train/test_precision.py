"""Smaller weights: as near as ONNX Runtime's own quantiser, nearer in embeddings, and without a copy of them all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from reco_plugin.train.graph_file import read_graph
from reco_plugin.train.precision import to_precision

RNG_SEED = 5


def write(path: Path, nodes: Sequence[NodeProto], width: int = 48, **weights: np.ndarray) -> Path:
    """A graph with the input ``x``, float (B, width) or ``tokens`` (B, L), and the output ``y``."""
    tokens = any(node.op_type == "Gather" for node in nodes)
    given = helper.make_tensor_value_info(
        "tokens" if tokens else "x", TensorProto.INT64 if tokens else TensorProto.FLOAT, ["b", "l" if tokens else width]
    )
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(list(nodes), "g", [given], [out], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(RNG_SEED + shape[0]).normal(size=shape).astype(np.float32)


def quantised_by_onnxruntime(path: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out = path.with_name("theirs.onnx")
    quantize_dynamic(
        str(path),
        str(out),
        per_channel=True,
        weight_type=QuantType.QInt8,
        reduce_range=True,
        op_types_to_quantize=["MatMul", "Gemm"],
    )
    return out


PRODUCTS = {
    "matmul": helper.make_node("MatMul", ["x", "w"], ["y"]),
    "gemm": helper.make_node("Gemm", ["x", "w", "b"], ["y"]),
    "turned": helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1),
    "without bias": helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_those_of_onnxruntimes_own_quantiser(name: str, tmp_path: Path) -> None:
    node = PRODUCTS[name]
    weights = {"w": normal(64, 48) if "transB" in str(node) else normal(48, 64)}
    weights["w"][:, 3], weights["w"][5] = 0, 0  # a dead row and column
    weights |= {"b": normal(64)} if len(node.input) > 2 else {}
    path = write(tmp_path / "model.onnx", [node], **weights)
    theirs = quantised_by_onnxruntime(path)
    x = normal(7, 48)
    exact, expected = run(path, x=x), run(theirs, x=x)
    to_precision(path, "int8")
    found = run(path, x=x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0 < np.abs(found - exact).max() < 0.5


def test_a_product_with_a_factor_stays_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", [helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5)], w=normal(48, 64))
    x = normal(7, 48)
    before = run(path, x=x)
    to_precision(path, "int8")
    np.testing.assert_array_equal(run(path, x=x), before)


def test_activations_are_quantised_once_for_all_their_products(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "q"], ["first"]),
        helper.make_node("MatMul", ["x", "k"], ["second"]),
        helper.make_node("Add", ["first", "second"], ["y"]),
    ]
    path = write(tmp_path / "model.onnx", nodes, q=normal(48, 64), k=normal(48, 64) + 1)
    to_precision(path, "int8")
    kinds = [node.op_type for node in read_graph(path).graph]
    assert kinds.count("DynamicQuantizeLinear") == 1 and kinds.count("MatMulInteger") == 2


@pytest.mark.parametrize("limit", [2**29, 1000])
def test_a_table_is_quantised_row_by_row(limit: int, tmp_path: Path) -> None:
    table = normal(5000, 32) * np.logspace(-4, 1, 5000, dtype=np.float32)[:, None]  # rows of very different sizes
    table[17] = 0
    path = write(tmp_path / "model.onnx", [helper.make_node("Gather", ["table", "tokens"], ["y"])], table=table)
    size = path.stat().st_size
    to_precision(path, "int8", limit=limit)
    tokens = np.arange(5000, dtype=np.int64)[None]
    found = run(path, tokens=tokens)[0]
    assert sum(part.stat().st_size for part in tmp_path.iterdir()) < 0.3 * size
    assert not found[17].any()
    rows = np.delete(np.arange(5000), 17)
    norms = np.linalg.norm(found[rows], axis=1) * np.linalg.norm(table[rows], axis=1)
    assert ((found[rows] * table[rows]).sum(1) / norms).min() > 0.9998


def test_a_small_table_stays(tmp_path: Path) -> None:
    path = write(
        tmp_path / "model.onnx", [helper.make_node("Gather", ["table", "tokens"], ["y"])], table=normal(50, 32)
    )
    before = path.read_bytes()
    to_precision(path, "int8")
    assert [node.op_type for node in read_graph(path).graph] == ["Gather"]
    assert len(path.read_bytes()) == pytest.approx(len(before), rel=0.05)


@pytest.mark.parametrize(("precision", "arithmetic"), [("fp16", "single"), ("fp16", "half"), ("int8", "single")])
def test_a_graph_of_two_files_is_rewritten_in_place(precision: Any, arithmetic: Any, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["found"]),
        helper.make_node("MatMul", ["found", "w"], ["y"]),
    ]
    path = write(tmp_path / "model.onnx", nodes, table=normal(3000, 48), w=normal(48, 64))
    tokens = np.array([[1, 2, 2999]], np.int64)
    exact = run(path, tokens=tokens)
    apart = Path(shutil.copytree(tmp_path, tmp_path / "apart")) / "model.onnx"
    to_precision(path, precision, arithmetic)
    to_precision(apart, precision, arithmetic, limit=1000)
    assert sorted(part.name for part in apart.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    found = run(apart, tokens=tokens)
    np.testing.assert_array_equal(found, run(path, tokens=tokens))
    assert found.dtype == np.float32 and 0 < np.abs(found - exact).max() < 0.5
