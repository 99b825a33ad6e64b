"""A note in a memory's folder that names the service that has it open, for commands of the same user on this machine.

The note holds a key with all rights, so only the user who serves may read it; that user may write the folder anyway. It
also holds its own inode, by which a note in a copy of the folder is recognized and ignored.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..files import write_whole

NAME = "service.json"


@dataclass(frozen=True)
class Note:
    """The address and the key of a service."""

    url: str
    token: str = field(repr=False)
    process: int | None = None

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write the note to a memory's folder."""

        def write(file: BinaryIO) -> None:
            Path(file.name).chmod(0o600)  # before the token is in it
            file.write(json.dumps(vars(self) | {"inode": os.fstat(file.fileno()).st_ino}, indent=2).encode())

        write_whole(Path(folder) / NAME, write)

    def remove(self, folder: str | os.PathLike[str]) -> None:
        """Remove the note, unless another service has replaced it."""
        with suppress(OSError):
            if read_note(folder) == self:
                (Path(folder) / NAME).unlink()


def _is_trusted(owner: int, folder: str | os.PathLike[str]) -> bool:
    """Return whether this user, root or the owner of the folder wrote a note. Its address will get keys."""
    return not hasattr(os, "geteuid") or owner in (os.geteuid(), 0, Path(folder).stat().st_uid)


def read_note(folder: str | os.PathLike[str]) -> Note | None:
    """Read the note in a folder; None without one that this user may read and trust. The service may be gone."""
    try:
        with (Path(folder) / NAME).open("rb") as file:
            fields, stat = json.load(file), os.fstat(file.fileno())
        if not stat.st_ino or fields.pop("inode") != stat.st_ino or not _is_trusted(stat.st_uid, folder):
            return None
        return Note(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
