"""Rows of a source, either pairs or rejected ones with the reason; and the parts of a source."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ..errors import DataError
from ..types import Pair


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns of a table; all others are payload."""

    id: str = "id"
    image: str = "image"
    text: str = "text"


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


class FilePart(SourcePart):
    """A part whose reading may fail: then a rejected row is the last."""

    @abstractmethod
    def _read(self) -> Iterator[Pair | Rejected]:
        """Its rows in order; may raise."""

    def read(self) -> Iterator[Pair | Rejected]:
        """Its rows in order."""
        read = 0
        try:
            for row in self._read():
                yield row
                read += 1
        except (DataError, OSError) as error:
            yield Rejected(self.name, f"{error} (reading stopped after {read:,} rows)")
