"""What reading yields: a pair where a row is good, else why it is not; and the parts that a source comes in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ..errors import DataError
from ..types import Pair


@dataclass(frozen=True)
class ColumnNames:
    """What the columns of a table are called; all others are payload."""

    id: str = "id"
    image: str = "image"
    text: str = "text"


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used."""

    where: str  # as in ``catalogue.csv, line 17`` or ``000.tar, key 0001``
    reason: str  # what is wrong with it
    id: str | None = None  # the pair's id, where that much could be read
    half: bool = False  # nothing is damaged, there is only no image or no text (a download failed, say)

    def __str__(self) -> str:
        return _sentence(self.where, self.reason)


class RowError(DataError):
    """One row cannot be used; others may be."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(_sentence(where, reason))
        self.rejected = Rejected(where, reason)


def _sentence(where: str, reason: str) -> str:
    return f"{where} {reason}" if reason.startswith("is ") else f"{where}: {reason}"


class SourcePart(Protocol):
    """A file, a shard or a range of rows. It can be pickled, and read wherever the same files are."""

    @property
    def name(self) -> str:
        """What it is, for messages."""
        ...

    def read(self) -> Iterator[Pair | Rejected]:
        """Its rows in order; images are not decoded. A part that is damaged ends with a rejected row that says so."""
        ...


class FilePart(ABC):
    """A part of files, in which reading may break off: then a rejected row is the last."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is, for messages."""

    @abstractmethod
    def _read(self) -> Iterator[Pair | Rejected]:
        """Its rows in order; raises what breaks them off."""

    def read(self) -> Iterator[Pair | Rejected]:
        """Its rows in order."""
        read = 0
        try:
            for row in self._read():
                yield row
                read += 1
        except (DataError, OSError) as error:
            yield Rejected(self.name, f"{error} (what it holds after {read:,} rows is not read)")
