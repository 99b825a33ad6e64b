"""The note in a memory's folder that says which service has it open, for commands of the same user on this machine.

It holds a token that opens the service, so only the user who serves may read it, who could write the memory's files as
well. It also holds its own inode, which no copy keeps: a copied folder is not the one that is served.
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
    """Where a service answers."""

    url: str
    token: str = field(repr=False)
    process: int | None = None

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Leave it in a memory's folder.

        Raises:
            OSError: it cannot be written.
        """

        def write(file: BinaryIO) -> None:
            Path(file.name).chmod(0o600)  # before the token is in it
            file.write(json.dumps(vars(self) | {"inode": os.fstat(file.fileno()).st_ino}, indent=2).encode())

        write_whole(Path(folder) / NAME, write)

    def remove(self, folder: str | os.PathLike[str]) -> None:
        """Take it away again, unless another service left one since."""
        with suppress(OSError):
            if read_note(folder) == self:
                (Path(folder) / NAME).unlink()


def _is_trusted(owner: int, folder: str | os.PathLike[str]) -> bool:
    """Whether a note is of this user, of root or of the folder's owner: a key is sent where it says."""
    return not hasattr(os, "geteuid") or owner in (os.geteuid(), 0, Path(folder).stat().st_uid)


def read_note(folder: str | os.PathLike[str]) -> Note | None:
    """The note in a folder, perhaps of a service that is gone; None without one that this user may read and trust."""
    try:
        with (Path(folder) / NAME).open("rb") as file:
            found, stat = json.load(file), os.fstat(file.fileno())
        if not stat.st_ino or found.pop("inode") != stat.st_ino or not _is_trusted(stat.st_uid, folder):
            return None
        return Note(**found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
