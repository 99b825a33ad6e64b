"""Rows of vectors in arrays: ``.npz``, and folders of ``.npy`` or of clip-retrieval, which are memory-mapped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..types import Pair
from .columns import ColumnArrays, check_rows, holds_vectors, map_array, open_npz_file, open_parquet_file, read_columns
from .row import CellError, ColumnNames, FilePart, Rejected, RowMaker, SourcePart, Vector, unit_rows
from .source import stamp_of

_BATCH = 256
_ROWS_PER_PART = 10_000
_NUMBER = re.compile(r"(\d+)\.\w+$")


@dataclass(frozen=True)
class ArrayFiles:
    """Files with N rows in common."""

    image: Path  # ``.npy`` (N, D)
    text: Path | None  # ``.npy`` (N, D), or None: the texts are raw, in the metadata
    ids: Path | None = None  # ``.npy`` (N,), or None
    metadata: Path | None = None  # ``.parquet`` with N rows, or None


@dataclass(frozen=True)
class ArraysPart(FilePart):
    """Some rows of arrays; ``groups`` are their row groups in the metadata."""

    arrays: ArrayFiles
    start: int
    stop: int
    groups: tuple[int, ...]
    maker: RowMaker

    @property
    def name(self) -> str:
        """The array of images, and the first row."""
        return f"{self.arrays.image}, after row {self.start}" if self.start else str(self.arrays.image)

    def _read(self) -> Iterator[Pair | Rejected]:
        arrays, names = self.arrays, self.maker.names
        mapped = {names.image: map_array(arrays.image)}
        if arrays.text is not None:
            mapped[names.text] = map_array(arrays.text)
        if arrays.ids is not None:
            mapped[names.id] = map_array(arrays.ids)
        beside: Iterator[dict[str, Any]] = repeat({})
        if arrays.metadata is not None:
            beside = read_groups(arrays.metadata, self.groups, names)
        for number, own in enumerate(_rows(mapped, self.start, self.stop), self.start + 1):
            where = f"{arrays.image}, row {number}"
            yield self.maker.make(where, next(beside) | own, f"{arrays.image.stem}#{number}")


@dataclass(frozen=True)
class NpzPart(FilePart):
    """A pair file ``.npz``, see :mod:`reco_plugin.data.columns`; it is read whole."""

    path: Path
    maker: RowMaker

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    def _read(self) -> Iterator[Pair | Rejected]:
        names = self.maker.names
        columns = read_columns(self.path, (names.id, names.image, names.text))
        rows = columns[names.id].size
        check_rows(self.path, columns, rows)
        for number, values in enumerate(_rows(columns, 0, rows), 1):
            yield self.maker.make(f"{self.path}, row {number}", values)


def open_npz(path: Path, names: ColumnNames) -> tuple[SourcePart, ...]:
    """Open a pair file, in one part.

    Raises:
        DataError: it is no npz, or an array is missing.
    """
    maker = RowMaker(names, path.parent, unfold=True)
    with open_npz_file(path) as file:
        columns = list(file.files)
    if names.id not in columns:
        raise DataError(f"{path} has no array {names.id!r}; it has {sorted(columns)}")
    maker.check(str(path), columns)
    return (NpzPart(path, maker),)


def open_arrays(folder: Path, names: ColumnNames) -> tuple[tuple[SourcePart, ...], int]:
    """Open ``image.npy`` and ``text.npy`` of a folder, with ``id.npy`` and ``metadata.parquet`` if present.

    Raises:
        DataError: an array is missing, or of another length.
    """
    optional = {name: path if (path := folder / name).is_file() else None for name in ("id.npy", "metadata.parquet")}
    arrays = ArrayFiles(folder / "image.npy", folder / "text.npy", optional["id.npy"], optional["metadata.parquet"])
    return _parts([arrays], names)


def open_clip_retrieval(folder: Path, names: ColumnNames) -> tuple[tuple[SourcePart, ...], int]:
    """Open ``img_emb/*.npy`` with ``text_emb/*.npy`` and ``metadata/*.parquet`` of the same numbers.

    Ids are ``image_path`` where the id column is missing. Without text embeddings the texts are
    the captions of the metadata.

    Raises:
        DataError: a file of a number is missing, or of another length.
    """
    images, texts = _find_numbered(folder / "img_emb", "npy"), _find_numbered(folder / "text_emb", "npy")
    metadata = _find_numbered(folder / "metadata", "parquet")
    if not images:
        raise DataError(f"{folder / 'img_emb'} holds no .npy: it is empty")
    for kind, found in (("text_emb", texts), ("metadata", metadata)):
        if (missing := sorted(images.keys() - found.keys())) and (found or kind == "metadata"):
            raise DataError(f"{folder / kind} has no file with the number {missing[0]} of {images[missing[0]].name}")
    blocks = [ArrayFiles(images[n], texts.get(n), None, metadata[n]) for n in sorted(images)]
    with open_parquet_file(metadata[min(images)]) as file:
        columns = file.schema_arrow.names
    if names.id == ColumnNames.id and names.id not in columns:
        names = replace(names, id="image_path")
    if not texts and names.text == ColumnNames.text:
        names = replace(names, text="caption")
    return _parts(blocks, names)


def _parts(blocks: Sequence[ArrayFiles], names: ColumnNames) -> tuple[tuple[SourcePart, ...], int]:
    parts: list[SourcePart] = []
    total = 0
    for arrays in blocks:
        maker = RowMaker(names, arrays.image.parent)
        rows = _check(arrays, maker)
        total += rows
        start = 0
        for groups, size in _ranges(arrays, rows):
            parts.append(ArraysPart(arrays, start, start + size, groups, maker))
            start += size
    return tuple(parts), total


def _check(arrays: ArrayFiles, maker: RowMaker) -> int:
    """Count the rows of the files, which must agree."""
    image = map_array(arrays.image)
    rows = len(image) if image.ndim else 0
    columns = [maker.names.image]
    for path, dimensions in ((arrays.image, 2), (arrays.text, 2), (arrays.ids, 1)):
        if path is not None and ((array := map_array(path)).ndim != dimensions or len(array) != rows):
            raise DataError(f"{path} has shape {array.shape}, expected {rows:,} rows in {dimensions} dimensions")
    if arrays.text is not None:
        columns.append(maker.names.text)
    if arrays.metadata is not None:
        with open_parquet_file(arrays.metadata) as file:
            columns += file.schema_arrow.names
            if file.metadata.num_rows != rows:
                raise DataError(f"{arrays.metadata} has {file.metadata.num_rows:,} rows, {arrays.image} {rows:,}")
    maker.check(str(arrays.metadata or arrays.image), columns)
    return rows


def _ranges(arrays: ArrayFiles, rows: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Sizes of the parts; with metadata, its row groups, which cannot be read in part."""
    if arrays.metadata is not None:
        with open_parquet_file(arrays.metadata) as file:
            yield from (((group,), size) for group, size in enumerate(row_groups(file)) if size)
    else:
        yield from (((), min(_ROWS_PER_PART, rows - start)) for start in range(0, rows, _ROWS_PER_PART))


def _rows(columns: ColumnArrays, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Rows as values by column, (N,) or vectors (N, D), each checked."""
    for first in range(start, stop, _BATCH):
        some = {name: values[first : min(first + _BATCH, stop)] for name, values in columns.items()}
        cells = {name: unit_rows(part) if part.ndim == 2 else part.tolist() for name, part in some.items()}
        for values in zip(*cells.values(), strict=True):
            yield dict(zip(cells, values, strict=True))


def _find_numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """Files of a folder by the number at the end of their names."""
    found = ((_NUMBER.search(path.name), path) for path in folder.glob(f"*.{suffix}"))
    return {int(match[1]): path for match, path in found if match}


_LEAST_ROWS = 1000  # of a part


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
