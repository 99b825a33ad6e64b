"""Rows of a source: pairs, rejected rows with the reason, digests and groups.

::

    source ──► Rows ──► SourcePart ──► Pair | Rejected
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from ..types import Pair, Payload, Records
from ..values import did_you_mean
from .images import RemoteImage
from .location import ColumnNames

_DIGITS = 16  # 64 bits, enough to compare two rows with the same id


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used."""

    where: str  # as in ``catalogue.csv, line 17`` or ``000.tar, key 0001``
    reason: str  # what is wrong with it
    id: str | None = None  # the pair's id, if it can be read
    is_incomplete: bool = False  # only the image or the text is missing, for example after a failed download

    def __str__(self) -> str:
        return _sentence(self.where, self.reason)


class RowError(DataError):
    """One row of a source cannot be used."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(_sentence(where, reason))
        self.rejected = Rejected(where, reason)


def _sentence(where: str, reason: str) -> str:
    return f"{where} {reason}" if reason.startswith("is ") else f"{where}: {reason}"


class SourcePart(Protocol):
    """A file, a shard or a range of rows. It can be pickled, and read on another machine with the same files."""

    @property
    def name(self) -> str:
        """Name, for messages."""
        ...

    def read(self) -> Iterator[Pair | Rejected]:
        """Read the rows in order, without decoding images. A damaged part ends with a rejected row."""
        ...


@dataclass(frozen=True)
class FilePart:
    """A part that a function reads."""

    name: str  # for messages
    rows: Callable[[], Iterable[Pair | Rejected]]  # may fail at any row; can be pickled, like a partial

    def read(self) -> Iterator[Pair | Rejected]:
        """See :meth:`SourcePart.read`."""
        read = 0
        try:
            for row in self.rows():
                yield row
                read += 1
        except (DataError, OSError) as error:
            yield Rejected(self.name, f"{error} (reading stopped after {read:,} rows)")


@dataclass(frozen=True)
class Rows:
    """All rows of a source; each iteration reads them again."""

    name: str
    parts: tuple[SourcePart, ...]  # in order
    total: int | None = None  # number of rows; None if counting is expensive
    check: bool = True  # whether vectors are compared with captions and pictures
    how_to_skip: str = ""  # the comparison, for messages; empty: the option check=0
    note: str = ""  # a remark on its ids, for the user
    folders: tuple[Path, ...] = ()  # base folders of its image paths, each once
    stamps: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)  # of its tables, from before they were read
    columns: ColumnNames | None = None  # of a table

    def check_unchanged(self) -> None:
        """Check that no table changed while it was read, because rows could be missing.

        Raises:
            DataError: a table changed.
        """
        for path, stamp in self.stamps.items():
            if stamp_of(path) != stamp:
                raise DataError(
                    f"{path} changed while it was read, so rows may be missing: read it again when it is complete"
                )

    def __iter__(self) -> Iterator[Pair | Rejected]:
        """Read the rows of all parts, in order."""
        for part in self.parts:
            yield from part.read()
        self.check_unchanged()


def stamp_of(path: Path) -> tuple[int, ...]:
    """Size, time and inode of a file, to detect changes; empty if it does not exist."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def digest(pair: Pair) -> str:
    """Digest a pair in 16 hex digits: image (bytes, vector or URL), text and payload, without the id.

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
    return b"text", str(value).encode(errors="surrogatepass")


def check_column(rows: Rows, column: str) -> str:
    """Find the payload key of a column, and check that a pair has a value; reads rows up to the first such pair.

    Raises:
        DataError: no pair has a value; the message suggests columns of the first pair.
    """
    column = payload_key(rows, column)
    known: list[str] | None = None
    for row in chain.from_iterable(part.read() for part in rows.parts):
        if isinstance(row, Rejected):
            continue
        if not _is_empty(row.payload.get(column)):
            return column
        known = [*row.payload] if known is None else known
    if known is not None:
        raise DataError(f"{rows.name}: no pair has a {column!r} to group by; {did_you_mean(column, known)}")
    return column


def payload_key(rows: Rows, column: str) -> str:
    """The key of a table's column in the payload; the column of texts becomes ``caption``."""
    return "caption" if rows.columns is not None and column == rows.columns.text else column


def groups_of(pairs: Records, column: str | None = None) -> list[str]:
    """The group of each of N pairs: the value of a payload column, by default the caption.

    A pair without a value is a group by itself.

    Raises:
        DataError: no pair has a value in this column.
    """
    if column is not None and all(_is_empty(payload.get(column)) for payload in pairs.payloads):
        first = f", the first is {pairs.ids[0]!r}" if len(pairs) else ""
        raise DataError(f"{len(pairs)} pairs have no {column!r} to group by{first}")
    return [_group(id_, payload, column) for id_, payload in zip(pairs.ids, pairs.payloads, strict=True)]


def group_of(pair: Pair, column: str | None) -> str:
    """The group of one pair from a source; see :func:`groups_of`."""
    return _group(pair.id, pair.payload, column)


def _group(id_: str, payload: Payload, column: str | None) -> str:
    value = payload.get(column or "caption")
    return f"\0{id_}" if _is_empty(value) else str(value)  # no value of the column begins with this


def _is_empty(value: Any) -> bool:
    """Whether a value is null, NaN or blank."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())
