"""One graph, and inputs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_once import open_session

from reco_plugin.encoders.runtimes.onnxruntime import OrtSession


@pytest.fixture(autouse=True)
def each_test_opens_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere, a graph of the shipped model is opened once."""
    monkeypatch.setattr(OrtSession, "__init__", open_session)


@pytest.fixture
def graph(model: Path) -> Path:
    return model / "clip_text" / "1" / "model.onnx"


@pytest.fixture
def tokens() -> dict[str, Any]:
    return {"tokens": np.arange(1, 13, dtype=np.int32).reshape(2, 6)}
