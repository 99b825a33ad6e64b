"""The search index of both modalities, by FAISS: inverted lists of 8-bit vectors.

Each vector lies in the list of its nearest centre by dot product, and a search looks through the lists whose centres
are nearest. Queries of the other modality lie apart from it (the modality gap) and look through more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import numpy.typing as npt

from ..types import MODALITIES, Modality, Vectors

if TYPE_CHECKING:
    from .edge import EdgeMemory

_LISTS_PER_ROOT = 4  # FAISS's advice: 4 to 16 times the root of the number of vectors
_PER_LIST = 40  # vectors per centre that k-means learns from; FAISS wants 39
_SHARE, _ACROSS = 16, 4
"""Of all lists, a search looks through one in 16, and with a query of the other modality one in 4."""
_PER_READ = 64
"""Pairs per read of the store, which holds Python's lock for about 3 ms then."""
_UUID_BYTES = 16
Points = npt.NDArray[np.uint8]
"""UUIDs of N points, (N, 16)."""
StopCheck = Callable[[], None]
"""Raises where the work should stop."""


@dataclass
class Built:
    """An index for each modality; their rows are the same."""

    lists: dict[Modality, Any]  # of FAISS
    apart: Vectors  # (D,) from the mean of the texts to that of the images
    points: Points  # UUIDs of the rows (rows, 16); a pair that was replaced has several, a deleted one stays

    def append(self, points: Sequence[str], vectors: Mapping[Modality, Vectors]) -> None:
        """Add points with vectors (N, D)."""
        for modality, lists in self.lists.items():
            lists.add(np.ascontiguousarray(vectors[modality]))
        self.points = np.concatenate([self.points, to_points(points)])

    def append_from(self, store: EdgeMemory, points: Sequence[str], check: StopCheck) -> None:
        """Add those of the points that the store has."""
        found = []
        for start in range(0, len(points), _PER_READ):
            check()
            there, vectors = store.point_vectors(points[start : start + _PER_READ])
            for modality, lists in self.lists.items():
                lists.add(np.ascontiguousarray(vectors[modality]))
            found.append(to_points(there))
        self.points = np.concatenate([self.points, *found])

    def nearest(self, by: Modality, queries: Vectors, depth: int, wider: int) -> list[list[str]]:
        """About the nearest points of each query (B, D), nearest first.

        Args:
            by: modality of the vectors to compare with.
            queries: (B, D).
            depth: how many; more than wanted, since 8 bits order them roughly.
            wider: so many times the usual number of lists.
        """
        lists, gap = self.lists[by], queries @ self.apart
        across = (gap < 0) if by == "image" else (gap > 0)  # nearer to the other modality than to this one
        share = _ACROSS if across.any() else _SHARE
        probes = min(int(lists.nlist), max(8, wider * int(lists.nlist) // share))
        params = faiss.SearchParametersIVF(nprobe=probes)
        _, rows = lists.search(np.ascontiguousarray(queries, np.float32), depth, params=params)
        return [to_ids(self.points[some[some >= 0]]) for some in rows]


def build(store: EdgeMemory, check: StopCheck) -> Built:
    """Read all pairs of a store, twice a part of them, and make their index."""
    points = list[str]()
    for page in store.point_ids():
        check()
        points += page
    count = max(1, int(_LISTS_PER_ROOT * len(points) ** 0.5))
    drawn = np.random.default_rng(0).choice(len(points), min(len(points), _PER_LIST * count), replace=False)
    read = []
    for start in range(0, len(drawn), _PER_READ):
        check()
        read.append(store.point_vectors([points[row] for row in drawn[start : start + _PER_READ]])[1])
    sample = {m: np.concatenate([vectors[m] for vectors in read]) for m in MODALITIES}
    lists: dict[Modality, Any] = {}
    for modality, side in sample.items():
        check()
        made = faiss.index_factory(side.shape[1], f"IVF{min(count, len(side))},SQ8", faiss.METRIC_INNER_PRODUCT)
        made.cp.min_points_per_centroid = 1  # with fewer than 39, FAISS writes a warning to stderr, past Python
        made.train(np.ascontiguousarray(side))
        lists[modality] = made
    apart = (sample["image"].mean(axis=0) - sample["text"].mean(axis=0)).astype(np.float32)
    built = Built(lists, apart, np.zeros((0, _UUID_BYTES), np.uint8))
    built.append_from(store, points, check)
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
