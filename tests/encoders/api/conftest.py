"""An API that can be told to fail, and a real service that stands for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from api_server import Api, serve_api
from live_service import serve_on_a_free_port
from PIL import Image

from reco_plugin import Reco

MODEL = Path(__file__).resolve().parents[3] / "triton_models"


@pytest.fixture
def api() -> Iterator[Api]:
    """An OpenAI-like API."""
    with serve_api() as served:
        yield served


@pytest.fixture(scope="module")
def local() -> Iterator[Reco]:
    """The shipped model in process."""
    with Reco.open(MODEL) as reco:
        yield reco


@pytest.fixture(scope="module")
def service(local: Reco) -> Iterator[str]:
    """URL of a `reco serve` with that model."""
    with serve_on_a_free_port(local) as (url, _):
        yield url


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Three pictures, of other sizes than the model's."""
    pixels = np.random.default_rng(7).integers(0, 255, (70, 90, 3), np.uint8)
    return [Image.new("RGB", (50, 40), "red"), Image.fromarray(pixels), Image.new("L", (64, 64), 90)]
