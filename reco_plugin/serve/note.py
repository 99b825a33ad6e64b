"""The note in a memory's folder that says which service has it open, for commands on this machine.

It holds no key: the socket is for whoever may enter its folder, which is the user that serves, and so could write the
memory's files as well; over the URL, the admin key is needed. The note holds its own inode, which no copy keeps: a
copied folder is not the one that is served.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..files import write_whole

NAME = "service.json"


@dataclass(frozen=True)
class Note:
    """Where a service answers."""

    name: str  # of the service, which it tells, too
    url: str
    socket: str | None = None  # path of a Unix socket
    process: int | None = None

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Leave it in a memory's folder.

        Raises:
            OSError: it cannot be written.
        """

        def write(file: BinaryIO) -> None:
            file.write(json.dumps(vars(self) | {"inode": os.fstat(file.fileno()).st_ino}, indent=2).encode())

        write_whole(Path(folder) / NAME, write)

    def remove(self, folder: str | os.PathLike[str]) -> None:
        """Take it away again, unless another service left one since."""
        with suppress(OSError):
            if read_note(folder) == self:
                (Path(folder) / NAME).unlink()


def answers(path: str | os.PathLike[str]) -> bool:
    """Whether somebody listens at a Unix socket that this user may reach."""
    try:
        with closing(socket.socket(socket.AF_UNIX)) as tried:
            tried.connect(os.fspath(path))
    except (OSError, AttributeError):  # Windows has none
        return False
    return True


def _is_trusted(owner: int, folder: str | os.PathLike[str]) -> bool:
    """Whether a note is of this user, of root or of the folder's owner: a key is sent where it says."""
    return not hasattr(os, "geteuid") or owner in (os.geteuid(), 0, Path(folder).stat().st_uid)


def read_note(folder: str | os.PathLike[str]) -> Note | None:
    """The note in a folder, perhaps of a service that is gone; None without one, or if it is a copy or damaged."""
    try:
        with (Path(folder) / NAME).open("rb") as file:
            told, stat = json.load(file), os.fstat(file.fileno())
        if not stat.st_ino or told.pop("inode") != stat.st_ino or not _is_trusted(stat.st_uid, folder):
            return None
        return Note(**told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
