"""The search index of both modalities, by FAISS: inverted lists of 8-bit vectors in fewer dimensions.

Vectors are projected to the directions in which they are long, and each lies in the list of its nearest centre by dot
product. A search looks through the lists whose centres are nearest. How many lists that takes is measured on pairs of
the memory, for queries of its own modality and for those of the other, which lie apart from it (the modality gap).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import numpy.typing as npt

from ..machine.blas import multiply
from ..types import MODALITIES, Modality, Vectors

if TYPE_CHECKING:
    from .edge_reading import ShardReader

RECALL = 0.99
"""Share of the true ten nearest that the lists must hold, on the memory's own pairs, where queries are its kind."""
RECALL_ACROSS = 0.97
"""The same where queries are of the other modality: the last percents cost as much as the rest."""
_ENERGY = 0.97  # share of the squared length that the projection keeps; more dimensions find no more neighbours
_ROUNDS, _PER_LIST = 10, 40  # of k-means, and vectors per centre in it; FAISS wants 39
_ASKED, _NEAREST = 100, 10
_LISTS_PER_ROOT = 4  # FAISS's advice: 4 to 16 times the root of the number of vectors
_MOST = 4  # at most a quarter of all lists is looked through
_PER_THREAD = 300_000
"""Vectors to compare with for each more thread, about 20 ms: for less, threads wait for one another longer."""
IndexRows = npt.NDArray[np.int64]
_PER_READ = 64
"""Pairs per read of the store, which holds Python's lock for about 3 ms then."""
_GROWN, _REPLACED = 4, 1.5
"""The lists are made anew for so many times the pairs, and if there are so many times more rows than pairs."""
_UUID_BYTES = 16
Points = npt.NDArray[np.uint8]
"""UUIDs of N points, (N, 16)."""
StopCheck = Callable[[], None]
"""Raises where the work should stop."""


@dataclass
class Built:
    """Both modalities' indexes."""

    sides: dict[Modality, SideIndex]  # their rows are the same
    points: Points  # UUIDs of the rows (rows or more, 16); a pair that was replaced has several
    rows: int
    made_for: int  # number of pairs that the lists were made for
    pairs: int  # number of pairs of the store when it was saved

    def append(self, points: Sequence[str], vectors: Mapping[Modality, Vectors]) -> None:
        """Add points with vectors (N, D)."""
        rows = self.rows + len(points)
        if rows > len(self.points):
            grown = np.zeros((max(rows, len(self.points) * 3 // 2), _UUID_BYTES), np.uint8)
            grown[: self.rows] = self.points[: self.rows]
            self.points = grown
        self.points[self.rows : rows] = to_points(points)
        for modality, side in self.sides.items():
            side.add(vectors[modality])
        self.rows = rows

    def append_from(self, store: ShardReader, points: Sequence[str], check: StopCheck) -> None:
        """Add those of the points that the store has."""
        for start in range(0, len(points), _PER_READ):
            check()
            self.append(*store.point_vectors(points[start : start + _PER_READ]))

    def nearest(self, by: Modality, queries: Vectors, depth: int, wider: int) -> list[list[str]]:
        """About the nearest points of each query (B, D), see :meth:`SideIndex.nearest`."""
        rows = self.sides[by].nearest(queries, depth, wider)
        return [to_ids(self.points[some[some >= 0]]) for some in rows]

    def some_points(self, most: int) -> list[str]:
        """A sample of its points."""
        return to_ids(self.points[: self.rows : max(1, self.rows // most)])

    def outgrown(self, pairs: int) -> bool:
        """Whether it should be made anew for so many pairs."""
        return pairs > _GROWN * self.made_for or self.rows > _REPLACED * pairs

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All of it, to store."""
        parts = {f"{m}_{name}": array for m, side in self.sides.items() for name, array in side.arrays().items()}
        return {"points": self.points[: self.rows], "numbers": np.array([self.made_for, self.pairs]), **parts}

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
        return cls(sides, points, len(points), *(int(number) for number in arrays["numbers"]))


def build(store: ShardReader, check: StopCheck) -> Built:
    """Read all pairs of a store, twice a part of them, and make their index."""
    points = []
    for page in store.point_ids():
        check()
        points += page
    pairs = len(points)
    drawn = np.random.default_rng(0).choice(pairs, sample_for(pairs), replace=False)
    read = []
    for start in range(0, len(drawn), _PER_READ):
        check()
        read.append(store.point_vectors([points[row] for row in drawn[start : start + _PER_READ]])[1])
    sample = {m: np.concatenate([vectors[m] for vectors in read]) for m in MODALITIES}
    sides: dict[Modality, SideIndex] = {}
    for own, other in (MODALITIES, MODALITIES[::-1]):
        sides[own] = SideIndex.train(sample[own], sample[other], pairs, check)
    built = Built(sides, np.zeros((pairs, _UUID_BYTES), np.uint8), 0, pairs, pairs)
    built.append_from(store, points, check)
    for own, other in (MODALITIES, MODALITIES[::-1]):
        sides[own].measure(sample[own], sample[other], check)
    return built


def use_threads(count: int) -> None:
    """Let FAISS work with so many threads, for the calling thread only."""
    faiss.omp_set_num_threads(count)


def to_points(ids: Sequence[str]) -> Points:
    """The UUIDs of points as bytes (N, 16).

    >>> to_points(["6e0b7f0c-9d55-4b8e-8a4c-0f6b9a6c2a11"]).tobytes().hex()
    '6e0b7f0c9d554b8e8a4c0f6b9a6c2a11'
    """
    return np.frombuffer(bytes.fromhex("".join(ids).replace("-", "")), np.uint8).reshape(-1, _UUID_BYTES)


def to_ids(points: Points) -> list[str]:
    """The UUIDs of points (N, 16) as text without hyphens, which Qdrant reads too."""
    return [point.hex() for point in np.ascontiguousarray(points).view("V16")[:, 0].tolist()]


def lists_for(pairs: int) -> int:
    """Number of inverted lists."""
    return max(1, int(_LISTS_PER_ROOT * pairs**0.5))


def sample_for(pairs: int) -> int:
    """Number of pairs to train with."""
    return min(pairs, _PER_LIST * lists_for(pairs))


class SideIndex:
    """One modality's index: rows are numbered as they are added."""

    def __init__(self, lists: Any, axes: Vectors, own: Vectors, other: Vectors, probes: tuple[int, int]) -> None:
        """Wrap trained lists; ``axes`` is (P, D), ``own`` and ``other`` are the means (D,) of both modalities."""
        self._lists, self._axes = lists, np.ascontiguousarray(axes)
        self._own, self._other, self.probes = own, other, probes
        self._apart = own - other

    @classmethod
    def train(cls, sample: Vectors, other: Vectors, pairs: int, check: Callable[[], None]) -> SideIndex:
        """An empty index for so many pairs, from samples (N, D) of its modality and, for their mean, of the other one.

        ``check`` raises where training should stop, and is called every few seconds.
        """
        axes = _axes(sample)
        projected, count = sample @ axes.T, min(lists_for(pairs), len(sample))
        kmeans, centres = faiss.Kmeans(len(axes), count, niter=1, spherical=True, min_points_per_centroid=1), None
        for _ in range(_ROUNDS):
            check()
            kmeans.train(projected, init_centroids=centres)
            centres = kmeans.centroids
        nearest = faiss.IndexFlatIP(len(axes))
        nearest.add(centres)
        kind = (faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False)
        lists = faiss.IndexIVFScalarQuantizer(nearest, len(axes), count, *kind)
        lists.train(projected)
        return cls(lists, axes, sample.mean(axis=0), other.mean(axis=0), (count, count))

    def __len__(self) -> int:
        return int(self._lists.ntotal)

    def add(self, vectors: Vectors) -> None:
        """Add vectors (N, D)."""
        self._lists.add(np.ascontiguousarray(vectors @ self._axes.T))

    def nearest(self, queries: Vectors, depth: int, wider: int = 1) -> IndexRows:
        """Rows (B, depth) that are about the nearest, nearest first; -1 where there are none.

        Args:
            queries: (B, D).
            depth: how many; more than wanted, since 8 bits order them roughly.
            wider: so many times the usual number of lists.
        """
        across = np.einsum("bd,d->b", queries, self._apart) < 0  # nearer to the other modality than to this one
        if not across.any() or across.all():
            return self._search(queries, depth, wider * self.probes[int(across.any())])
        rows = np.full((len(queries), depth), -1, np.int64)
        for kind in (False, True):
            rows[across == kind] = self._search(queries[across == kind], depth, wider * self.probes[kind])
        return rows

    def measure(self, own: Vectors, other: Vectors, check: Callable[[], None]) -> None:
        """Set how many lists are looked through, by queries (N, D) of both modalities, pairs of the memory."""
        wanted = zip((own, other), (RECALL, RECALL_ACROSS), strict=True)
        self.probes = tuple(self._find_probes(queries[:_ASKED], recall, check) for queries, recall in wanted)  # type: ignore[assignment]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All of it as arrays, to store."""
        return {
            "lists": faiss.serialize_index(self._lists),
            "axes": self._axes,
            "own": self._own,
            "other": self._other,
            "probes": np.array(self.probes),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> SideIndex:
        """The index of stored arrays."""
        lists = faiss.deserialize_index(arrays["lists"])
        own, other = (int(probes) for probes in arrays["probes"])
        return cls(lists, arrays["axes"], arrays["own"], arrays["other"], (own, other))

    def _find_probes(self, queries: Vectors, recall: float, check: Callable[[], None]) -> int:
        """The least number of lists that hold this share of what all lists hold."""
        truth = []
        for start in range(0, len(queries), 10):  # slow: each looks through all
            check()
            truth.append(self._search(queries[start : start + 10], _NEAREST + 1, self._lists.nlist))
        true = np.concatenate(truth)[:, 1:]  # without the query itself
        probes, most = 8, max(1, int(self._lists.nlist) // _MOST)
        while probes < most:
            check()
            found = self._search(queries, 4 * _NEAREST, probes)
            held = np.mean([np.isin(row, some).mean() for row, some in zip(true, found, strict=True)])
            if held >= recall:
                return probes
            probes = probes * 5 // 4
        return most

    def _search(self, queries: Vectors, depth: int, probes: int) -> IndexRows:
        probes = min(probes, int(self._lists.nlist))
        compared = len(queries) * probes * len(self) // int(self._lists.nlist)
        params, most = faiss.SearchParametersIVF(nprobe=probes), faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(min(most, 1 + compared // _PER_THREAD))  # of the calling thread
        try:
            _, rows = self._lists.search(multiply(queries, self._axes.T), depth, params=params)
        finally:
            faiss.omp_set_num_threads(most)
        return np.asarray(rows, np.int64)


def _axes(sample: Vectors) -> Vectors:
    """Orthogonal directions (P, D) that keep most of the vectors' squared length, P a multiple of 16."""
    lengths, directions = np.linalg.eigh(sample.T @ sample)
    kept = np.cumsum(lengths[::-1]) / lengths.sum()
    count = min(len(lengths), -(-(int(np.searchsorted(kept, _ENERGY)) + 1) // 16) * 16)
    return np.asarray(directions[:, ::-1][:, :count].T, np.float32)
