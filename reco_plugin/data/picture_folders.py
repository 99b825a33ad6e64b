"""Pictures of stored pairs: a memory keeps vectors, so they come from the payload or from image files in known folders.

The playground may show those of the folders that a memory in a folder was filled from on this machine. The command that
fills the memory notes them in its folder; HTTP requests never do. The note holds its own inode, which
no copy, archive or download keeps: a memory from elsewhere allows nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from ..errors import MemoryStoreError
from ..files import write_whole
from ..types import Payload

NAME = "pictures.json"
THUMBNAIL = "thumbnail"
"""Where a payload holds a picture, as a data URI."""
_LONGEST = 100_000  # characters of a data URI that is shown
_URI = re.compile(r"data:image/(?:avif|gif|jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")


class PictureFiles:
    """Finds the image file of a pair in some folders.

    By the path in its payload (``image``) or by its id, which is a path for pairs from a folder or table. Paths that
    lead out of the folders are ignored, and so are paths that exist in several of them.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = [folder.resolve() for folder in folders]

    def of(self, id_: str, payload: Payload) -> Path | None:
        """The file; None where there is none."""
        for name in (payload.get("image"), id_):
            if not isinstance(name, str) or not name:
                continue
            found = {file for folder in self._folders if (file := _inside(folder, name))}
            if len(found) == 1:
                return found.pop()
        return None


def stored_thumbnail(payload: Payload) -> str | None:
    """The data URI of a small picture that a payload holds itself; None without one."""
    given = payload.get(THUMBNAIL)
    return given if isinstance(given, str) and len(given) <= _LONGEST and _URI.fullmatch(given) else None


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


def _inside(folder: Path, name: str) -> Path | None:
    try:
        file = (folder / name).resolve()
        return file if file.is_relative_to(folder) and file.is_file() else None
    except (OSError, ValueError):  # too long a name, or one with a null in it
        return None
