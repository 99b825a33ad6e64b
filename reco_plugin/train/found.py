"""What many queries found, each neighbour's vector held once."""

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
    """The neighbours of N queries as rows of one table; reads as :class:`~reco_plugin.types.Neighbours` does.

    10 neighbours a pair held apart would take ten times the room of the pairs, and more than a machine has.

    Attributes:
        table: (M, D) vectors, each neighbour's once; row 0 is zero and stands for padding.
        rows: (N, K) int32 rows of the table, nearest first.
        similarity: (N, K) cosine, larger is nearer; 0 where padded.
        names: (M,) ids of the table's rows; None where the files of :func:`open_rows` hold none.
    """

    table: Vectors
    rows: npt.NDArray[np.int32]
    similarity: npt.NDArray[np.float32]
    names: Sequence[str] | None = None

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """(N, K); False marks padding."""
        return self.rows > 0

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """(N, K, D) the neighbours' vectors, copied out: for a batch, or few queries."""
        return self.table[self.rows]

    @property
    def ids(self) -> list[list[str]]:
        """N lists of at most K ids.

        Raises:
            DataError: it was opened from files, which hold no ids.
        """
        names = self.names
        if names is None:
            raise DataError("stored neighbours have no ids: training needs none")
        return [[names[row] for row in found if row] for found in self.rows.tolist()]


class Collector:
    """Takes what searches found, batch by batch."""

    def __init__(self, folder: Path | None, side: Modality, queries: int, k: int, most: int, dimension: int) -> None:
        """Make room.

        Args:
            folder: for files that hold the arrays; None holds them in memory.
            side: of the queries.
            queries: N.
            k: K.
            most: distinct neighbours that can be found at most.
            dimension: D.
        """
        self._table = new_array(folder, f"{side}.table", (1 + min(most, queries * k), dimension), np.float32)
        self._rows = new_array(folder, f"{side}.rows", (queries, k), np.int32)
        self._similarity = new_array(folder, f"{side}.similarity", (queries, k), np.float32)
        self._row_of: dict[str, int] = {}
        self._names = [""]  # of the padding

    def add(self, first: int, found: Neighbours) -> None:
        """Keep what the queries from this number on found."""
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
        """All that was added."""
        for array in (self._table, self._rows, self._similarity):
            settle(array)
        return FoundRows(self._table[: len(self._names)], self._rows, self._similarity, self._names)


def new_array(folder: Path | None, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros, in memory or in a file that the system pages in and out.

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


def settle(array: npt.NDArray[Any]) -> None:
    """Write an array that has a file out to the disk, which other machines may read."""
    if isinstance(array, np.memmap):
        array.flush()


def open_array(folder: Path, name: str) -> npt.NDArray[Any]:
    """An array that :func:`new_array` made, paged in as it is read; what is written to it stays in this process."""
    array: npt.NDArray[Any] = np.load(
        folder / f"{name}.npy", mmap_mode="c"
    )  # torch wants arrays that can be written to
    return array


def open_rows(folder: Path, side: Modality) -> FoundRows:
    """What a :class:`Collector` left in a folder."""
    table, rows, similarity = (open_array(folder, f"{side}.{part}") for part in _PARTS)
    return FoundRows(table[: int(rows.max(initial=0)) + 1], rows, similarity)
