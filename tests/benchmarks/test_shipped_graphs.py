"""The shipped towers are as an export writes them today, though they are not trained anew."""

from __future__ import annotations

from pathlib import Path

import onnx
from products import axes_of_products

from benchmarks.shipped_graphs import renew

SHIPPED = Path(__file__).resolve().parents[2] / "triton_models"


def test_nothing_is_left_to_do() -> None:
    assert renew(SHIPPED) == []
    for name in ("clip_image", "clip_text"):
        graph = onnx.load(str(SHIPPED / name / "1" / "model.onnx"))
        assert set(axes_of_products(graph, after="Softmax")) <= {2}
