"""Small encoders in the published layouts, each written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from exported_once import graphs_are_made_once  # noqa: F401  # a fixture
from families import FAMILIES

Written = Callable[[str, str], Path]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two test processes share two cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The folder of a family in a layout: transformers_js, optimum, checkpoint."""

    @cache
    def write(family: str, layout: str) -> Path:
        folder = tmp_path_factory.mktemp("written") / f"{family}-{layout}"
        found: Path = getattr(FAMILIES[family], f"write_{layout}")(folder)
        return found

    return write
