"""The search index of one modality: inverted lists of 8-bit vectors in fewer dimensions, by FAISS.

Vectors are projected to the directions in which they are long, and each lies in the list of its nearest centre by dot
product. A search looks through the lists whose centres are nearest. How many lists that takes is measured on pairs of
the memory, for queries of its own modality and for those of the other, which lie apart from it (the modality gap).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from ..machine.blas import multiply
from ..types import Vectors

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
        """Add vectors (N, D); not while another thread searches."""
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
