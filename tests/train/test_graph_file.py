"""Graphs of one file or two: the same values, whole or not at all, and clear errors for what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from reco_plugin.errors import ArtifactError
from reco_plugin.files import sha256_file, weights_file
from reco_plugin.train import graph_file
from reco_plugin.train.graph_file import CHECKSUM, ONE_FILE, graph_bytes, read_graph, write_graph

TOKENS = np.array([[0, 5, 299], [7, 7, 1]], np.int64)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Embeddings of 300 words, then a product: about 50 kB of weights in one file."""
    return write_example(tmp_path / "model.onnx")


def write_example(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    table, matrix = (rng.normal(size=shape).astype(np.float32) for shape in ((300, 32), (32, 64)))
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
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


def run(path: Path) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"tokens": TOKENS})[0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_graph_is_split_and_joined_without_a_change_of_its_values(graph: Path) -> None:
    before = run(graph)
    write_graph(read_graph(graph), graph, limit=1000)
    assert names(graph.parent) == ["model.onnx", "model.onnx.data"]
    assert graph_bytes(graph) > 300 * 32 * 4 > graph.stat().st_size
    onnx.checker.check_model(str(graph))
    np.testing.assert_array_equal(run(graph), before)
    write_graph(read_graph(graph), graph, limit=1000)  # from the file that it replaces
    np.testing.assert_array_equal(run(graph), before)
    write_graph(read_graph(graph), graph, limit=ONE_FILE)
    assert names(graph.parent) == ["model.onnx"]
    assert CHECKSUM not in read_graph(graph).metadata_props
    np.testing.assert_array_equal(run(graph), before)


def test_the_second_file_is_named_without_its_folder_and_large_tensors_begin_with_a_page(graph: Path) -> None:
    write_graph(read_graph(graph), graph, limit=0)
    tensors = [value.const_value for value in read_graph(graph).graph.initializers.values()]
    outside = [tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor)]
    assert len(outside) == 2 and {str(tensor.location) for tensor in outside} == {"model.onnx.data"}
    assert all((tensor.offset or 0) % 4096 == 0 for tensor in outside)


def test_a_graph_holds_the_checksum_of_its_weights_so_its_own_tells_models_apart(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        path = write_example(tmp_path / name / "model.onnx", seed)
        write_graph(read_graph(path), path, limit=0)
        assert read_graph(path).metadata_props[CHECKSUM] == sha256_file(weights_file(path))
    assert sha256_file(tmp_path / "a" / "model.onnx") != sha256_file(tmp_path / "b" / "model.onnx")


def test_a_missing_or_short_second_file_is_named_with_the_way_out(graph: Path) -> None:
    write_graph(read_graph(graph), graph, limit=0)
    weights = weights_file(graph)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(ArtifactError, match=r"model\.onnx\.data has 1,000 bytes.*truncated.*Copy both files again"):
        read_graph(graph)
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx\.data is missing.*copy both files together"):
        read_graph(graph)
    graph.write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be read as an ONNX graph"):
        read_graph(graph)


@pytest.mark.parametrize("limit", [0, ONE_FILE])
def test_what_fails_half_way_leaves_the_old_files(limit: int, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seam is the last step before the files are moved, when a disk is full at the latest."""
    write_graph(read_graph(graph), graph, limit=0)
    before, model = run(graph), read_graph(graph)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_file.ir, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_graph(model, graph, limit)
    assert names(graph.parent) == ["model.onnx", "model.onnx.data"]
    np.testing.assert_array_equal(run(graph), before)
