"""One service for all tests of dialects, since none of them changes anything; in process and over a socket."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from reco_plugin import Pair, Reco

KEY = "any"


@pytest.fixture(scope="session")
def filled(model: Path, drawings: list[Pair]) -> Iterator[Reco]:
    """The shipped model with the drawings in its memory."""
    with Reco.open(model, memory=":memory:") as opened:
        opened.memory.add(drawings)
        yield opened


@pytest.fixture(scope="session")
def client(filled: Reco, served: Any) -> Iterator[TestClient]:
    """The service in this process."""
    with served(filled) as opened:
        yield opened


@pytest.fixture(scope="session")
def url(filled: Reco, live: Any) -> Iterator[str]:
    """The service on a free port, for callers with the key ``any``."""
    with live(filled, api_keys=[KEY]) as (base, _):
        yield base


@pytest.fixture(scope="session")
def picture(red_square: str) -> Image.Image:
    """The red square, decoded."""
    image = Image.open(io.BytesIO(base64.b64decode(red_square)))
    image.load()
    return image
