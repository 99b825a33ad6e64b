"""Rows of a source, one by one: pairs, or rejected rows with the reason.

::

    source ──► Rows ──► SourcePart ──► Pair | Rejected

``docs/sources.md`` lists the sources.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from ..types import Pair
from .images import RemoteImage
from .source import ColumnNames

_DIGITS = 16
"""64 bits, which suffice to compare two rows with the same id."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used, and why."""

    where: str  # as in ``catalogue.csv, line 17`` or ``000.tar, key 0001``
    reason: str  # what is wrong with it
    id: str | None = None  # the pair's id, where readable
    half: bool = False  # only the image or the text is missing, e.g. after a failed download

    def __str__(self) -> str:
        return _sentence(self.where, self.reason)


class RowError(DataError):
    """One row cannot be used; others may."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(_sentence(where, reason))
        self.rejected = Rejected(where, reason)


def _sentence(where: str, reason: str) -> str:
    return f"{where} {reason}" if reason.startswith("is ") else f"{where}: {reason}"


class SourcePart(Protocol):
    """A file, a shard or a range of rows. It can be pickled, and read on any machine with the same files."""

    @property
    def name(self) -> str:
        """Name, for messages."""
        ...

    def read(self) -> Iterator[Pair | Rejected]:
        """Its rows in order; images are not decoded. A damaged part ends with a rejected row."""
        ...


@dataclass(frozen=True)
class FilePart:
    """A part that a function reads, whose arguments say which."""

    name: str  # for messages
    rows: Callable[[], Iterable[Pair | Rejected]]  # may fail at any row; can be pickled, as the partial of a function

    def read(self) -> Iterator[Pair | Rejected]:
        """Its rows in order; where reading fails, a rejected row is the last."""
        read = 0
        try:
            for row in self.rows():
                yield row
                read += 1
        except (DataError, OSError) as error:
            yield Rejected(self.name, f"{error} (reading stopped after {read:,} rows)")


@dataclass(frozen=True)
class Rows:
    """All rows of a source; can be iterated over again."""

    name: str
    parts: tuple[SourcePart, ...]  # in order
    total: int | None = None  # number of rows, where cheap to count, else None
    check: bool | None = None  # whether vectors are compared with the captions and pictures at hand; None: unless told
    note: str = ""  # what a user should know of its ids
    told: bool = False  # a memory, which tells the encoder of its vectors
    folders: tuple[Path, ...] = ()  # base folders of its image paths, each once
    beside: tuple[Path, ...] = ()  # folders of its vectors, where pictures may stand, too
    stamps: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)  # of its tables, from before they were read
    columns: ColumnNames | None = None  # of a table

    def check_unchanged(self) -> None:
        """Check, at the end, that no table changed while it was read: rows would be missing without a word."""
        for path, stamp in self.stamps.items():
            if stamp_of(path) != stamp:
                raise DataError(
                    f"{path} changed while it was read, so rows may be missing: read it again when it is complete"
                )

    def __iter__(self) -> Iterator[Pair | Rejected]:
        """The rows of all parts, in order."""
        for part in self.parts:
            yield from part.read()
        self.check_unchanged()


def stamp_of(path: Path) -> tuple[int, ...]:
    """Size, time and inode of a file, one of which changes if it is written or replaced; empty if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def digest(pair: Pair) -> str:
    """Digest a pair in 16 hex digits: image (bytes, vector, URL or path), text and payload, not the id.

    >>> digest(Pair("a", b"", "fox")) == digest(Pair("b", b"", "fox")) != digest(Pair("a", b"", "a fox"))
    True
    """
    total = hashlib.sha256()
    payload = json.dumps(dict(pair.payload), sort_keys=True, default=repr).encode(errors="surrogatepass")
    for part in (*_side(pair.image), *_side(pair.text), payload):
        total.update(len(part).to_bytes(8, "little"))  # separates the parts
        total.update(part)
    return total.hexdigest()[:_DIGITS]


def _side(value: Any) -> tuple[bytes, bytes]:
    """Kind and content of one side."""
    match value:
        case np.ndarray():
            return b"vector", np.ascontiguousarray(value, np.float32).tobytes()
        case RemoteImage():
            return b"url", value.url.encode(errors="surrogatepass")
        case bytes():
            return b"bytes", value
        case Path():
            return b"path", str(value).encode("utf-8", "surrogateescape")
        case str():
            return b"text", value.encode(errors="surrogatepass")
    picture = value.convert("RGBA")  # a PIL image
    return b"pixels", str(picture.size).encode() + picture.tobytes()
