"""Folders whose image files the playground may show: those that a memory in a folder was filled from on this machine.

The command that fills the memory notes them in its folder; HTTP requests never do. The note holds its own inode, which
no copy, archive or download keeps: a memory from elsewhere allows nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from ..errors import MemoryStoreError
from ..files import write_whole

NAME = "pictures.json"


def note_folders(memory: str | os.PathLike[str], folders: Iterable[Path]) -> None:
    """Allow the image files below more folders; for a memory in RAM or on a server, nothing is noted.

    Raises:
        MemoryStoreError: the note cannot be written.
    """
    place, known = os.fspath(memory), noted_folders(memory)
    added = [folder for folder in dict.fromkeys(map(Path.resolve, folders)) if folder not in known]
    if not added or not _is_folder(place):
        return
    allowed = [str(folder) for folder in (*known, *added)]

    def write(file: BinaryIO) -> None:
        file.write(json.dumps({"folders": allowed, "inode": os.fstat(file.fileno()).st_ino}, indent=2).encode())

    try:
        write_whole(Path(place) / NAME, write)
    except OSError as error:
        raise MemoryStoreError(f"cannot write {Path(place) / NAME}: {error}") from error


def noted_folders(memory: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The folders that are allowed; none if the note is a copy, damaged or missing."""
    if not _is_folder(os.fspath(memory)):
        return ()
    try:
        with (Path(memory) / NAME).open("rb") as file:
            note, own = json.load(file), os.fstat(file.fileno()).st_ino
        return tuple(map(Path, note["folders"])) if own and note["inode"] == own else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _is_folder(place: str) -> bool:
    return place != ":memory:" and "://" not in place
