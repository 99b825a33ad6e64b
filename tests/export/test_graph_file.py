"""Graphs of one file or two: the same values, and a checksum that covers both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from reco_plugin.export.folder import WEIGHTS_CHECKSUM, graph_bytes, save
from reco_plugin.files import sha256_file, weights_file

pytestmark = pytest.mark.slow

TOKENS = np.array([[0, 5, 2999], [7, 7, 1]], np.int64)


def write(path: Path, seed: int = 0, limit: int = 2**29) -> Path:
    """Embeddings of 3,000 words, then a product."""
    rng = np.random.default_rng(seed)
    table, matrix = (rng.normal(size=shape).astype(np.float32) for shape in ((3000, 32), (32, 64)))
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["found"]),
        helper.make_node("MatMul", ["found", "matrix"], ["features"]),
    ]
    made = helper.make_graph(
        nodes,
        "example",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3, 64])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(matrix, "matrix")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path, limit)
    return path


def run(path: Path) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"tokens": TOKENS})[0])


def test_a_graph_is_split_and_joined_without_a_change_of_its_values(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx")
    before, size = run(path), graph_bytes(path)
    save(onnx.load(path), path, limit=1000)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert path.stat().st_size < size / 10 and graph_bytes(path) >= 3000 * 32 * 4
    np.testing.assert_array_equal(run(path), before)
    save(onnx.load(path), path)
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    np.testing.assert_array_equal(run(path), before)


def test_the_checksum_of_a_graph_tells_models_apart_whose_weights_lie_outside(tmp_path: Path) -> None:
    one, other = (write(tmp_path / str(seed) / "model.onnx", seed, limit=0) for seed in (0, 1))
    told = {prop.key: prop.value for prop in onnx.load(one, load_external_data=False).metadata_props}
    assert told[WEIGHTS_CHECKSUM] == sha256_file(weights_file(one))
    assert sha256_file(one) != sha256_file(other)
