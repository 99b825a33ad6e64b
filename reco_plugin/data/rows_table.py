"""Rows of tables: ``.csv``, ``.tsv``, ``.jsonl``; and Parquet, whose images and texts may be vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..types import Pair
from .cells import CellError, Vector, unit_rows
from .columns import holds_vectors, open_parquet_file
from .files import stamp_of
from .parts import ColumnNames, FilePart, Rejected, RowError, SourcePart
from .row_maker import RowMaker
from .tables import Stretch, TableFile

_LEAST_ROWS = 1000  # of a part
_BATCH = 256


@dataclass(frozen=True)
class TablePart(FilePart):
    """Some rows of a table."""

    table: TableFile
    stretch: Stretch
    maker: RowMaker
    stamp: tuple[int, ...]  # of the file, from before it was read

    @property
    def path(self) -> Path:
        """The file."""
        return self.table.path

    @property
    def name(self) -> str:
        """The file; of a part of it, also the lines before."""
        if self.stretch.rows == len(self.table):
            return str(self.table.path)
        return f"{self.table.path}, {self.stretch.rows:,} rows after line {self.stretch.line}"

    @property
    def folder(self) -> Path:
        """Base of the image paths."""
        return self.maker.folder

    def _read(self) -> Iterator[Pair | Rejected]:
        for row in self.table.read(self.stretch):
            yield row.rejected if isinstance(row, RowError) else self.maker.make(row.where, row.values)


def open_table(path: Path, names: ColumnNames, folder: Path) -> tuple[tuple[SourcePart, ...], int]:
    """Open the rows of a table, ten thousand in a part; returns their number too.

    Reads the file once, to find its rows and the numeric columns.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    stamp = stamp_of(path)
    table = TableFile(path, (names.image, names.text), (names.id, names.image, names.text), names)
    maker = RowMaker(names, folder)
    if path.suffix.lower() != ".jsonl":
        maker.check(str(path), list(table.columns))
    return tuple(TablePart(table, stretch, maker, stamp) for stretch in table.stretches), len(table)


@dataclass(frozen=True)
class ParquetPart(FilePart):
    """Some row groups of a file, and the number of rows before them."""

    path: Path
    groups: tuple[int, ...]
    before: int
    maker: RowMaker
    stamp: tuple[int, ...]  # of the file, from before it was read
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file, and the first row."""
        return f"{self.path}, after row {self.before}" if self.before else str(self.path)

    @property
    def folder(self) -> Path:
        """Base of the image paths."""
        return self.maker.folder

    def _read(self) -> Iterator[Pair | Rejected]:
        for number, values in enumerate(read_groups(self.path, self.groups, self.maker.names), self.before + 1):
            yield self.maker.make(f"{self.path}, row {number}", values, f"{self.path.name}#{number}")


def open_parquet(paths: Sequence[Path], names: ColumnNames, folder: Path | None) -> tuple[tuple[SourcePart, ...], int]:
    """Open the rows of files, a part for each row group or several small ones; returns their number too.

    Image paths are relative to ``folder``, without one to the file's own.

    Raises:
        DataError: a file cannot be read, or lacks a column.
        MissingExtra: pyarrow is not installed.
    """
    parts: list[SourcePart] = []
    total = 0
    for path in paths:
        stamp = stamp_of(path)
        with open_parquet_file(path) as file:
            schema, sizes = file.schema_arrow, row_groups(file)
        maker = RowMaker(names, path.parent if folder is None else folder)
        maker.check(str(path), schema.names)
        vectors = all(holds_vectors(schema.field(name).type) for name in (names.image, names.text))
        maker = replace(maker, unfold=vectors)
        before = 0
        for groups, rows in _gather_groups(sizes):
            parts.append(ParquetPart(path, groups, before, maker, stamp, tuple(schema.names)))
            before += rows
        total += before
    return tuple(parts), total


def row_groups(file: Any) -> list[int]:
    """Number of rows of each row group."""
    return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def read_groups(path: Path, groups: Sequence[int], names: ColumnNames) -> Iterator[dict[str, Any]]:
    """Read rows as values by column; lists of numbers in the columns of images and texts are vectors, each checked.

    Raises:
        DataError: the file is damaged.
    """
    with open_parquet_file(path) as file:
        try:
            for batch in file.iter_batches(_BATCH, row_groups=list(groups)):
                lists = {
                    name: _vectors(column)
                    if name in (names.image, names.text) and holds_vectors(column.type)
                    else column.to_pylist()
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                for row in range(batch.num_rows):
                    yield {name: values[row] for name, values in lists.items()}
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}") from None


def _gather_groups(sizes: Sequence[int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Join consecutive row groups to at least a thousand rows."""
    groups: tuple[int, ...] = ()
    rows = 0
    for group, size in enumerate(sizes):
        groups, rows = (*groups, group), rows + size
        if rows >= _LEAST_ROWS:
            yield groups, rows
            groups, rows = (), 0
    if rows:
        yield groups, rows


def _vectors(column: Any) -> list[Vector | CellError | None]:
    """Convert lists to vectors (D,), each checked; rows of another length than most are errors."""
    lengths = np.array([len(item) if item.is_valid else 0 for item in column])
    usual = int(np.bincount(lengths[lengths > 0]).argmax()) if lengths.any() else 0
    found: list[Vector | CellError | None] = [
        CellError(f"has {length} numbers, others have {usual}") if length else None for length in lengths.tolist()
    ]
    good = np.flatnonzero(lengths == usual) if usual else np.array([], np.int64)
    if len(good):
        flat = column.take(good).flatten().to_numpy(zero_copy_only=False)
        for row, vector in zip(good.tolist(), unit_rows(flat.reshape(len(good), usual)), strict=True):
            found[row] = vector
    return found
