"""Rows of Parquet and of ``.npz``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..types import Pair
from .cells import CellError, RowMaker, Vector, unit_rows
from .columns import ColumnArrays, check_rows, holds_vectors, open_npz_file, open_parquet_file, read_columns
from .rows import FilePart, Rejected, Rows, stamp_of
from .source import ColumnNames, Location, check_columns, note_ids

_BATCH = 256
_LEAST_ROWS = 1000  # of a part of parquet


def open_npz(path: Path, names: ColumnNames) -> Rows:
    """Open a pair file ``.npz``, see :mod:`reco_plugin.data.columns`; it is read whole, in one part."""
    with open_npz_file(path) as file:
        columns = list(file.files)
    if names.id not in columns:
        raise DataError(f"{path} has no array {names.id!r}; it has {sorted(columns)}")
    check_columns(str(path), columns, names.needed)
    maker = RowMaker(names, path.parent, unfold=True)
    return Rows(str(path), (FilePart(str(path), partial(_read_npz, path, maker)),), beside=(path.parent,))


def _read_npz(path: Path, maker: RowMaker) -> Iterator[Pair | Rejected]:
    names = maker.names
    columns = read_columns(path, (names.id, names.image, names.text))
    rows = columns[names.id].size
    check_rows(path, columns, rows)
    for name, column in columns.items():
        if column.ndim != 1 and name not in (names.image, names.text):
            raise DataError(f"{path}: {name} has shape {column.shape}; a payload column has one value per row")
    for number, values in enumerate(_rows(columns, 0, rows), 1):
        yield maker.make(f"{path}, row {number}", values)


def open_parquet(paths: Sequence[Path], names: ColumnNames, where: Location) -> Rows:
    """Open the rows of files, a part for each row group or several small ones.

    Image paths are relative to the folder that the option ``images`` names, without it to the file's own.
    """
    parts, total, note = list[FilePart](), 0, ""
    stamps, folders = {path: stamp_of(path) for path in paths}, [where.images or path.parent for path in paths]
    for path, base in zip(paths, folders, strict=True):
        with open_parquet_file(path) as file:
            schema, sizes = file.schema_arrow, _group_sizes(file)
        check_columns(str(path), schema.names, names.needed)
        vectors = all(holds_vectors(schema.field(name).type) for name in (names.image, names.text))
        maker, before = RowMaker(names, base, unfold=vectors), 0
        note = note if parts else note_ids(str(path), schema.names, names)
        for groups, rows in _gather_groups(sizes):
            name = f"{path}, after row {before}" if before else str(path)
            parts.append(FilePart(name, partial(_read_parquet, path, groups, before, maker)))
            before += rows
        total += before
    return Rows(
        str(paths[0]),
        tuple(parts),
        total,
        note=note,
        folders=tuple(dict.fromkeys(folders)),
        stamps=stamps,
        columns=names,
    )


def _read_parquet(path: Path, groups: Sequence[int], before: int, maker: RowMaker) -> Iterator[Pair | Rejected]:
    for number, values in enumerate(_read_groups(path, groups, maker.names), before + 1):
        yield maker.make(f"{path}, row {number}", values, f"{path.name}#{number}")


def _group_sizes(file: Any) -> list[int]:
    """Number of rows of each row group."""
    return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def _read_groups(path: Path, groups: Sequence[int], names: ColumnNames) -> Iterator[dict[str, Any]]:
    """Read rows as values by column; lists of numbers in the columns of images and texts are vectors, each checked."""
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


def _rows(columns: ColumnArrays, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Rows as values by column, (N,) or vectors (N, D), each checked."""
    for first in range(start, stop, _BATCH):
        some = {name: values[first : min(first + _BATCH, stop)] for name, values in columns.items()}
        cells = {name: unit_rows(part) if part.ndim == 2 else part.tolist() for name, part in some.items()}
        for values in zip(*cells.values(), strict=True):
            yield dict(zip(cells, values, strict=True))
