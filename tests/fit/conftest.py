"""Made-up catalogues as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reco_plugin.data import write_pairs
from reco_plugin.types import Records


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A function that writes pairs as vectors and returns the file's name."""
    folder = tmp_path_factory.mktemp("sources")

    def write(records: Records) -> str:
        path: Path = folder / f"{len(list(folder.iterdir()))}.npz"
        write_pairs(path, [records])
        return str(path)

    return write
