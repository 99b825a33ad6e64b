"""The shipped towers are as an export writes them today, though they are not trained anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from products import axes_of_products

from benchmarks import shipped_graphs
from benchmarks.shipped_graphs import renew
from reco_plugin.artifact import Artifact
from reco_plugin.train import graph_file

SHIPPED = Path(__file__).resolve().parents[2] / "triton_models"


def test_nothing_is_left_to_do() -> None:
    assert renew(SHIPPED) == []
    for name in ("clip_image", "clip_text"):
        graph = onnx.load(str(SHIPPED / name / "1" / "model.onnx"))
        assert set(axes_of_products(graph, after="Softmax")) <= {2}


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped folder, of which both towers count as such that pick late; their weights get a file."""
    folder = shutil.copytree(SHIPPED, tmp_path / "model")
    monkeypatch.setattr(graph_file.write_graph, "__defaults__", (1000,))
    monkeypatch.setattr(shipped_graphs, "pick_early", lambda model: 1)
    return folder


def test_towers_with_a_second_file_are_rewritten_with_their_checksums(late: Path) -> None:
    assert renew(late) == ["clip_image", "clip_text"]
    graphs = Artifact.load(late).manifest.graphs
    assert all(graphs[name].weights for name in ("clip_image", "clip_text"))
    assert [path.name for path in late.parent.iterdir()] == ["model"]


def test_nothing_is_written_where_the_second_tower_would_answer_otherwise(
    late: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pick(model: ir.Model) -> int:
        if "tokens" in (value.name for value in model.graph.inputs):
            for weights in model.graph.initializers.values():
                if weights.const_value is not None and weights.const_value.dtype == ir.DataType.FLOAT16:
                    weights.const_value = ir.tensor(-weights.const_value.numpy(), name=weights.name)
        return 1

    monkeypatch.setattr(shipped_graphs, "pick_early", pick)
    with pytest.raises(SystemExit, match=r"clip_text.*would give other vectors"):
        renew(late)
    for path in SHIPPED.rglob("*"):
        assert path.is_dir() or (late / path.relative_to(SHIPPED)).read_bytes() == path.read_bytes()
