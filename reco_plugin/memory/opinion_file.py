"""The file beside ``memory.json`` to which each word of people is appended, durably and with a checksum.

A line holds what one call added and took away, so it counts as a whole or not at all: a line that was not written to
its end, because the process was killed, is cut off before the next one.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import MemoryStoreError
from ..files import sync_folder, write_whole
from .said import SaidRecord, change_said

OPINIONS_NAME = "opinions.jsonl"
_DEAD = 1_000
"""Records that are gone or replaced and still in the file, beyond those that count, before it is written anew."""


class OpinionFile:
    """Appends to the file and follows what others append; not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = self._file = self._written = self._lines = 0
        self._said: dict[str, SaidRecord] = {}

    def read(self, before: Mapping[str, SaidRecord]) -> dict[str, SaidRecord]:
        """All that counts, with what an older version kept elsewhere as if it had been said first.

        Raises:
            MemoryStoreError: the file cannot be read.
        """
        self._begin(before)
        try:
            with self._path.open("rb") as file:
                self._follow(file)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise MemoryStoreError(f"cannot read {self._path}: {error}") from error
        return self._said

    def change(self, added: Sequence[SaidRecord], gone: Collection[str]) -> dict[str, SaidRecord]:
        """Append, durably, what is added and gone; returns all that counts then.

        Raises:
            MemoryStoreError: it cannot be written; then nothing of it counts.
        """
        line = _line({"add": [dict(one) for one in added], "gone": sorted(gone)})
        try:
            with self._alone() as file:
                self._follow(file)
                self._append(file, line)
            self._count(added, gone)
        except OSError as error:
            raise MemoryStoreError(f"cannot write {self._path}: {error}") from error
        if self._written > 2 * len(self._said) + _DEAD:
            self._written = len(self._said)  # where it fails, it is tried again after as many words, not with each
            with suppress(OSError):  # what was said is in the longer file, too
                self._write_anew()
        return self._said

    def _begin(self, before: Mapping[str, SaidRecord]) -> None:
        self._end = self._file = self._written = self._lines = 0
        self._said = dict(before)

    def _append(self, file: FileIO, line: bytes) -> None:
        file.truncate(self._end)  # a line that was not written to its end
        new = self._end == 0
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(self._end)
            raise
        if new:
            sync_folder(self._path.parent)
        self._end += len(line)
        self._lines += 1

    def _follow(self, file: FileIO | BinaryIO) -> None:
        """Read what stands behind the last line that is known; another file from its beginning."""
        now = os.fstat(file.fileno())
        if self._file not in (0, now.st_ino) or now.st_size < self._end:
            self._begin({})  # written anew elsewhere, or restored in its place: all that counts is in it
        self._file = now.st_ino
        if now.st_size == self._end:
            return
        file.seek(self._end)
        for line in file.read().split(b"\n")[:-1]:  # what stands behind the last end of a line was not written whole
            self._lines += 1
            place = f"line {self._lines}"
            why = f"{place} of {self._path} does not match its checksum"
            told = _read(line) or {"add": [{"id": place, "format": -1, "why": why}], "gone": []}
            self._count(told["add"], told["gone"])
            self._end += len(line) + 1

    def _count(self, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        self._said = change_said(self._said, added, gone)
        self._written += len(added) + len(gone)

    def _write_anew(self) -> None:
        """Write only what counts, to another file that takes the place of this one."""
        with self._alone() as file:
            self._follow(file)  # another process may have said something since
            line = _line({"add": [dict(one) for one in self._said.values()], "gone": []})
            write_whole(self._path, lambda new: new.write(line))
        self._end, self._file, self._written, self._lines = len(line), self._path.stat().st_ino, len(self._said), 1

    @contextmanager
    def _alone(self) -> Iterator[FileIO]:
        """The file, open to be read and written; other processes wait, where the system has locks."""
        while True:
            with self._path.open("a+b", buffering=0) as file:  # what could not be written is not tried again
                if os.name == "posix":
                    import fcntl

                    fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_ino == self._path.stat().st_ino:  # it was not written anew meanwhile
                    yield file
                    return


def _line(told: Mapping[str, Any]) -> bytes:
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read(line: bytes) -> dict[str, Any] | None:
    """What a line tells; None where it is not whole."""
    check, _, text = line.partition(b" ")
    if not text or check != b"%08x" % zlib.crc32(text):
        return None
    told: dict[str, Any] = json.loads(text)
    return told
