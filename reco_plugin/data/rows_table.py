"""Rows of ``.csv``, ``.tsv`` and ``.jsonl``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..types import Pair
from .parts import ColumnNames, Part, Rejected, RowError, shielded
from .row_maker import RowMaker
from .tables import Stretch, Table


@dataclass(frozen=True)
class TablePart:
    """Some rows of a table."""

    table: Table
    stretch: Stretch
    maker: RowMaker

    @property
    def name(self) -> str:
        """The file; and the lines before these rows, where they are not all of it."""
        if self.stretch.rows == len(self.table):
            return str(self.table.path)
        return f"{self.table.path}, {self.stretch.rows:,} rows after line {self.stretch.line}"

    @property
    def folder(self) -> Path:
        """That paths of images are relative to."""
        return self.maker.folder

    def read(self) -> Iterator[Pair | Rejected]:
        """Its rows in order."""
        return shielded(self.name, self._read())

    def _read(self) -> Iterator[Pair | Rejected]:
        for row in self.table.read(self.stretch):
            yield row.rejected if isinstance(row, RowError) else self.maker.make(row.where, row.values)


def open_table(path: Path, names: ColumnNames, folder: Path) -> tuple[tuple[Part, ...], int]:
    """The rows of a table, ten thousand in a part, and how many there are.

    Reads the file once, to know where its rows lie and which columns are numbers.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    table = Table(path, (names.image, names.text), (names.id, names.image, names.text))
    maker = RowMaker(names, folder)
    if path.suffix.lower() != ".jsonl":
        maker.check(str(path), list(table.columns))
    return tuple(TablePart(table, stretch, maker) for stretch in table.stretches), len(table)
