"""Makes a search index of all pairs of a store, and keeps it in memory with the points that its rows stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import numpy.typing as npt

from ..types import MODALITIES, Modality, Vectors
from .index_files import UUID_BYTES, Points, to_ids, to_points
from .index_side import SideIndex, sample_for

if TYPE_CHECKING:
    from .edge_reading import ShardReader

_PER_READ = 64
"""Pairs per read of the store, which holds Python's lock for about 3 ms then."""
_READS_PER_ADD = 32
_GROWN, _REPLACED = 4, 1.5
"""The lists are made anew for so many times the pairs, and if there are so many times more rows than pairs."""
StopCheck = Callable[[], None]
"""Raises where the work should stop."""
_Part = tuple[list[str], dict[Modality, Vectors]]
"""Points, and their vectors (N, D)."""


@dataclass
class Built:
    """Both modalities' indexes."""

    sides: dict[Modality, SideIndex]  # their rows are the same
    points: Points  # UUIDs of the rows (rows or more, 16); a pair that was replaced has several
    rows: int
    made_for: int  # number of pairs that the lists were made for

    def append(self, points: Sequence[str], vectors: Mapping[Modality, Vectors]) -> None:
        """Add points with vectors (N, D); not while another thread searches."""
        rows = self.rows + len(points)
        if rows > len(self.points):
            grown = np.zeros((max(rows, len(self.points) * 3 // 2), UUID_BYTES), np.uint8)
            grown[: self.rows] = self.points[: self.rows]
            self.points = grown
        self.points[self.rows : rows] = to_points(points)
        for modality, side in self.sides.items():
            side.add(vectors[modality])
        self.rows = rows

    def append_from(self, store: ShardReader, points: Sequence[str], check: StopCheck) -> None:
        """Add those of the points that the store has."""
        for there, vectors in _read(store, points, check):
            self.append(there, vectors)

    def outgrown(self, pairs: int) -> bool:
        """Whether it should be made anew for so many pairs."""
        return pairs > _GROWN * self.made_for or self.rows > _REPLACED * pairs

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All of it, to store."""
        parts = {f"{m}_{name}": array for m, side in self.sides.items() for name, array in side.arrays().items()}
        return {"points": self.points[: self.rows], "made_for": np.array(self.made_for), **parts}

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Built:
        """The index of stored arrays.

        Raises:
            ValueError: its parts do not fit together.
        """
        sides: dict[Modality, SideIndex] = {}
        for modality in MODALITIES:
            start = f"{modality}_"
            sides[modality] = SideIndex.of({n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)})
        points = arrays["points"]
        if {len(side) for side in sides.values()} != {len(points)}:
            raise ValueError("its parts are of unequal length")
        return cls(sides, points, len(points), int(arrays["made_for"]))


def build(store: ShardReader, check: StopCheck) -> Built:
    """Read all pairs of a store, twice a part of them, and make their index."""
    pages = []
    for page in store.point_ids():
        check()
        pages.append(to_points(page))
    points = np.concatenate(pages)
    pairs = len(points)
    drawn = np.random.default_rng(0).choice(pairs, sample_for(pairs), replace=False)
    read = [vectors for _, vectors in _read(store, to_ids(points[drawn]), check)]
    sample = {m: np.concatenate([vectors[m] for vectors in read]) for m in MODALITIES}
    sides: dict[Modality, SideIndex] = {}
    for own, other in (MODALITIES, MODALITIES[::-1]):
        sides[own] = SideIndex.train(sample[own], sample[other], pairs, check)
    built = Built(sides, np.zeros((pairs, UUID_BYTES), np.uint8), 0, pairs)
    built.append_from(store, _Ids(points), check)
    for own, other in (MODALITIES, MODALITIES[::-1]):
        sides[own].measure(sample[own], sample[other], check)
    return built


def use_threads(count: int) -> None:
    """Let FAISS work with so many threads, for the calling thread only."""
    faiss.omp_set_num_threads(count)


class _Ids(Sequence[str]):
    """UUIDs as text, made when they are read: a million of them would take 100 MB."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, rows: Any) -> Any:
        return to_ids(self._points[rows])


def _read(store: ShardReader, points: Sequence[str], check: StopCheck) -> Iterator[_Part]:
    """Those of the points that exist, in parts."""
    for start in range(0, len(points), _PER_READ * _READS_PER_ADD):
        there: list[str] = []
        parts: dict[Modality, list[Vectors]] = {m: [] for m in MODALITIES}
        for first in range(start, min(start + _PER_READ * _READS_PER_ADD, len(points)), _PER_READ):
            check()
            found, vectors = store.point_vectors(points[first : first + _PER_READ])
            there.extend(found)
            for modality, part in parts.items():
                part.append(vectors[modality])
        if there:
            yield there, {m: np.concatenate(part) for m, part in parts.items()}
