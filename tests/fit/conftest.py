"""Made-up catalogues as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from exported_once import graphs_are_made_once  # noqa: F401  # a fixture

from reco_plugin.data import write_pairs
from reco_plugin.types import Records


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two test processes share two cores; and a process that a test starts computes with one, to the last bit."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A function that writes pairs as made-up vectors and returns the source, which tells to compare no captions."""
    folder = tmp_path_factory.mktemp("sources")

    def write(records: Records) -> str:
        path: Path = folder / f"{len(list(folder.iterdir()))}.npz"
        write_pairs(path, [records])
        return f"{path}?check=0"

    return write
