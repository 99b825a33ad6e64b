"""Files that are written atomically, and digests of contents."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import DataError

PARTIAL = ".partial"
"""Suffix of a file or folder that is being written; a leftover is unfinished and may be replaced."""


def in_home(path: str | os.PathLike[str]) -> Path:
    """A path whose ``~`` is the home, where no shell said so: in quotes, a file, the environment.

    That of a user who is not known stays as it is, so whoever opens it says that nothing is there.

    >>> str(in_home("~nobody-of-this-name/memory"))
    '~nobody-of-this-name/memory'
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises of an unknown user


@contextmanager
def as_data_error(what: str) -> Iterator[None]:
    """Turn an error of the system into one of data.

    Raises:
        DataError: ``what``, as in "x.csv cannot be read", and why.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{what}: {error.strerror or error}") from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; moved to ``path`` if the block succeeds, else removed.

    Raises:
        DataError: it cannot be written there.
    """
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        with as_data_error(f"{path} cannot be written"):
            yield part
            part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically: a temporary file, synced and renamed, or deleted if the disk is full."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    sync_folder(path.parent)


def weights_file(graph: Path) -> Path:
    """The file that holds the weights of an ONNX graph which are not in its own file."""
    return graph.with_name(f"{graph.name}.data")


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
