"""The neighbours of many queries, each neighbour's vector held once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..files import allocate
from ..types import Modality, Neighbours, Vectors

_PARTS = ("table", "rows", "similarity")


@dataclass(frozen=True)
class FoundRows:
    """The neighbours of N queries as rows of one table, with the fields of :class:`~reco_plugin.types.Neighbours`.

    Separate vectors for 10 neighbours per pair would take ten times the memory of the pairs.
    """

    table: Vectors  # (M, D), each neighbour's once; row 0 is zero and stands for padding
    rows: npt.NDArray[np.int32]  # (N, K) rows of the table, nearest first
    similarity: npt.NDArray[np.float32]  # (N, K) cosine, larger is nearer; 0 where padded
    names: Sequence[str] | None = None  # (M,) ids of the table's rows; None where opened by :func:`open_rows`

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Mask (N, K), False where padded."""
        return self.rows > 0

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The neighbours' vectors (N, K, D), copied; for few queries."""
        return self.table[self.rows]

    @property
    def ids(self) -> list[list[str]]:
        """N lists of at most K ids.

        Raises:
            DataError: opened from files, which hold no ids.
        """
        names = self.names
        if names is None:
            raise DataError("stored neighbours have no ids: training needs none")
        return [[names[row] for row in found if row] for found in self.rows.tolist()]


class Collector:
    """Collects neighbours, batch by batch."""

    def __init__(self, folder: Path | None, side: Modality, queries: int, k: int, most: int, dimension: int) -> None:
        """Allocate the arrays, in files or (without a folder) in RAM, for at most ``most`` distinct neighbours."""
        self._table = new_array(folder, f"{side}.table", (1 + min(most, queries * k), dimension), np.float32)
        self._rows = new_array(folder, f"{side}.rows", (queries, k), np.int32)
        self._similarity = new_array(folder, f"{side}.similarity", (queries, k), np.float32)
        self._row_of: dict[str, int] = {}
        self._names = [""]  # of padding

    def add(self, first: int, found: Neighbours) -> None:
        """Add the neighbours (B, K, D) of the queries from row ``first`` on."""
        for query, ids in enumerate(found.ids):
            for column, id_ in enumerate(ids):
                self._rows[first + query, column] = self._row(id_, found.vectors[query, column])
        self._similarity[first : first + len(found.ids), : found.similarity.shape[1]] = found.similarity

    def _row(self, id_: str, vector: Vectors) -> int:
        row = self._row_of.get(id_)
        if row is None:
            row = self._row_of[id_] = len(self._names)
            self._names.append(id_)
            self._table[row] = vector
        return row

    def rows(self) -> FoundRows:
        """All added neighbours."""
        for array in (self._table, self._rows, self._similarity):
            flush(array)
        return FoundRows(self._table[: len(self._names)], self._rows, self._similarity, self._names)


def new_array(folder: Path | None, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Make zeros of any shape, in RAM or in a memory-mapped file.

    Raises:
        DataError: there is no room for the file.
    """
    if folder is None:
        return np.zeros(shape, dtype)
    path = folder / f"{name}.npy"
    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        allocate(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
    return array


def flush(array: npt.NDArray[Any]) -> None:
    """Write a memory-mapped array of any shape to its disk, which other machines may read."""
    if isinstance(array, np.memmap):
        array.flush()


def open_array(folder: Path, name: str) -> npt.NDArray[Any]:
    """Map an array of :func:`new_array`, of any shape; writes to it stay in this process."""
    array: npt.NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="c")  # torch needs writable arrays
    return array


def open_rows(folder: Path, side: Modality) -> FoundRows:
    """Open the folder of a :class:`Collector`."""
    table, rows, similarity = (open_array(folder, f"{side}.{part}") for part in _PARTS)
    return FoundRows(table[: int(rows.max(initial=0)) + 1], rows, similarity)
