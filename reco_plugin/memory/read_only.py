"""A folder that may be read and not written, as of a read-only disk: Qdrant Edge writes even to read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from ..errors import MemoryStoreError
from .points import locked_error
from .room import bytes_on_disk, check_room

_LOG = "wal"  # the folder that Edge locks


def copied(shard: Path) -> tempfile.TemporaryDirectory[str]:
    """Copy a shard to where it can be opened.

    Raises:
        MemoryLocked: a process that may write it has it open.
        MemoryStoreError: it cannot be read, or there is no room for the copy.
    """
    copy = tempfile.TemporaryDirectory(prefix="reco-memory-")
    try:
        check_room(Path(copy.name), "copy, to read it,", bytes_on_disk(shard))
        with _locked(shard / _LOG):
            shutil.copytree(shard, copy.name, dirs_exist_ok=True)
    except BaseException as error:
        copy.cleanup()
        if isinstance(error, OSError):
            raise MemoryStoreError(f"{shard} can be read by copying it only, and that failed: {error}") from error
        raise
    return copy


def refuse_write(location: str) -> NoReturn:
    """Say that nothing can be changed.

    Raises:
        MemoryStoreError: always.
    """
    raise MemoryStoreError(
        f"the memory at {location!r} was opened to be read only, since its folder cannot be written: allow this user "
        "to write it, or copy it to where that is allowed, and open it again"
    )


@contextmanager
def _locked(log: Path) -> Iterator[None]:
    """Keep writers out, where the system knows such locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(log, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise locked_error(str(log.parent.parent)) from None
    finally:
        os.close(handle)
