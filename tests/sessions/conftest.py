"""One graph, and inputs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def graph(model: Path) -> Path:
    return model / "clip_text" / "1" / "model.onnx"


@pytest.fixture
def tokens() -> dict[str, Any]:
    return {"tokens": np.arange(1, 13, dtype=np.int32).reshape(2, 6)}
