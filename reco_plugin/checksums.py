"""Digests of files. Those of large ones are kept, so that a start does not read a model that did not change."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from .config import cache_folder

_LARGE = 2**25
"""Bytes; below it, reading takes a tenth of a second."""


def sha256_file(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """Hex digest of a file, which is read where its size or a time stamp is not as it was when it was read last.

    The time stamps are those of its contents and of its inode, which no program can set back. What is known is kept in
    :func:`~reco_plugin.config.cache_folder`; where that cannot be written, the file is read each time.
    """
    now, folder = path.stat(), cache_folder()
    if now.st_size < _LARGE or folder is None:
        return sha256_file(path)
    stamp = f"{now.st_size} {now.st_mtime_ns} {now.st_ctime_ns}"
    note = folder / "sha256" / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    with suppress(OSError, ValueError):
        digest, then = note.read_text("ascii").split(" ", 1)
        if then == stamp:
            return digest
    digest = sha256_file(path)
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        part = note.with_suffix(f".{os.getpid()}")
        part.write_text(f"{digest} {stamp}", "ascii")
        part.replace(note)
    return digest
