"""Folders of which the playground may show image files: those that a memory in a folder was filled from, here.

They are noted in the memory's folder by the command that fills it, never by what comes over HTTP. The note holds its
own number on the disk (inode), which no copy, archive or download keeps: a memory from elsewhere allows nothing.
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
    """Allow the image files below some folders, besides those that are allowed already.

    Args:
        memory: folder of a memory; for one in RAM or on a server, nothing is noted.
        folders: that the paths of its pictures start from.

    Raises:
        MemoryStoreError: the note cannot be written.
    """
    place, known = os.fspath(memory), noted_folders(memory)
    added = [folder for folder in dict.fromkeys(map(Path.resolve, folders)) if folder not in known]
    if not added or not _is_folder(place):
        return
    told = [str(folder) for folder in (*known, *added)]

    def write(file: BinaryIO) -> None:
        file.write(json.dumps({"folders": told, "inode": os.fstat(file.fileno()).st_ino}, indent=2).encode())

    try:
        write_whole(Path(place) / NAME, write)
    except OSError as error:
        raise MemoryStoreError(f"cannot write {Path(place) / NAME}: {error}") from error


def noted_folders(memory: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The folders that are allowed; none where the note is a copy, is damaged, or is not there."""
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
