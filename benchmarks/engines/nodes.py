"""What the starters of real engines share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class NotHere(Exception):
    """This machine cannot run the engine; the message says why."""


def need(*programs: str) -> None:
    """Raise NotHere if a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            raise NotHere(f"there is no {program} here")


@contextmanager
def folder_for(name: str) -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix=f"reco-{name}-", ignore_cleanup_errors=True) as made:
        yield Path(made)
