"""From similarities to ranks, of candidates in one array or in blocks, with one rule for ties; shares of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..types import Vectors

TIE = 1e-6
"""Cosines this close are equal: float32 sums differ by about as much with the order of the terms."""
_BLOCK = 1 << 22  # similarities at a time: 16 MiB
RECALL_AT = (1, 5, 10)
"""The k of a table of recall@k."""

Labels = npt.NDArray[np.integer[Any]]


def ranks(
    queries: Vectors, candidates: Vectors, labels: Labels, candidate_labels: Labels | None = None
) -> npt.NDArray[np.int64]:
    """Rank of each query's best true candidate: how many wrong ones are at least as near, 0 is best.

    Ties count as wrong: a wrong candidate within ``TIE`` of the true one ranks before it, so vectors that all collapse
    to one point come last and not, by luck, first. Other true candidates of the same query never count.

    >>> ranks(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), np.array([0, 0])).tolist()
    [0, 1]
    >>> ranks(np.float32([[1, 0]]), np.float32([[1, 0], [1, 0], [0, 1]]), np.array([0])).tolist()  # a tie
    [1]

    Args:
        queries: (B, D) unit-norm.
        candidates: (C, D) unit-norm.
        labels: (B,) label of each query.
        candidate_labels: (C,) label of each candidate; its position when None. Equal labels match.

    Returns:
        (B,) ranks from 0.

    Raises:
        InputError: shapes that do not fit, or a query without any true candidate.
    """
    own = np.arange(len(candidates)) if candidate_labels is None else np.asarray(candidate_labels)
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1] or len(candidates) == 0:
        raise InputError(f"queries (B, D) and candidates (C, D) expected, got {queries.shape} and {candidates.shape}")
    if labels.shape != (len(queries),) or own.shape != (len(candidates),):
        raise InputError(f"labels {labels.shape} and candidate labels {own.shape} do not fit queries and candidates")
    check_known(labels, np.isin(labels, own))
    out = np.empty(len(queries), np.int64)
    for rows in parts(len(queries), len(candidates)):
        out[rows] = ranks_among(queries[rows] @ candidates.T, labels[rows], own)
    return out


def ranks_among(
    scores: npt.NDArray[np.floating[Any]], labels: Labels, candidate_labels: Labels
) -> npt.NDArray[np.int64]:
    """Rank (B,) of each query's best true candidate by scores (B, C), see :func:`ranks`."""
    true = labels[:, None] == candidate_labels[None]  # (B, C)
    best = np.where(true, scores, -np.inf).max(axis=1, keepdims=True)  # (B, 1)
    return np.asarray(((scores >= best - TIE) & ~true).sum(axis=1), np.int64)


def parts(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows with at most ``_BLOCK`` similarities each."""
    step = max(1, _BLOCK // max(columns, 1))
    return (slice(start, start + step) for start in range(0, rows, step))


def check_known(labels: Labels, known: npt.NDArray[np.bool_]) -> None:
    """Refuse queries (B,) without a true candidate."""
    if not known.all():
        row = int(np.argmin(known))
        raise InputError(f"query {row} has label {labels[row]}, which no candidate has")


@dataclass(frozen=True)
class Ranking:
    """The rankings of B queries. Ties count as wrong, as in :func:`ranks`."""

    ranks: npt.NDArray[np.int64]  # (B,) ranks of the best true candidate, as in :func:`ranks`
    nearest: npt.NDArray[np.int64]  # (B, K) rows of the nearest candidates, nearest first; -1 where there are fewer
    hits: npt.NDArray[np.bool_]  # (B, K) whether these are true
    relevant: npt.NDArray[np.int64]  # (B,) number of true candidates, near or not


@dataclass(frozen=True)
class Blocks:
    """Candidates of one array, some thousand rows at a time; the array may be a memory map."""

    vectors: npt.NDArray[np.floating[Any]]  # (C, D) float32, or float16, which is converted to float32 and normalised
    rows: int = 1 << 15  # of a block

    def __iter__(self) -> Iterator[Vectors]:
        """Iterate over blocks (c, D) in order, as often as needed."""
        for start in range(0, len(self.vectors), self.rows):
            block = np.asarray(self.vectors[start : start + self.rows], np.float32)
            if self.vectors.dtype == np.float16:
                block = block / np.linalg.norm(block, axis=1, keepdims=True)
            yield block


def rank_blocks(
    queries: Vectors,
    candidates: Iterable[Vectors],
    labels: Labels,
    candidate_labels: Labels | None = None,
    *,
    k: int = 10,
) -> Ranking:
    """Rank all true candidates of each query among candidates that come in blocks.

    The blocks are read twice: for the similarity of the true candidates, which costs little since only queries with a
    true candidate in a block are compared with it, and then to count what is nearer. At no time is there more than one
    block, ``2 ** 22`` similarities (or one query's, of a larger block) and the K nearest of each query.

    >>> east, north, between = np.float32([[1, 0]]), np.float32([[0, 1]]), np.float32([[0.6, 0.8]])
    >>> found = rank_blocks(east, [north, np.vstack([between, east])], np.array([7]), np.array([7, 5, 7]), k=3)
    >>> found.nearest.tolist(), found.hits.tolist(), found.ranks.tolist(), found.relevant.tolist()
    ([[2, 1, 0]], [[True, False, True]], [0], [2])

    Args:
        queries: (B, D) unit-norm.
        candidates: blocks (c, D), unit-norm, C rows in all; can be iterated over more than once.
        labels: (B,) label of each query.
        candidate_labels: (C,) label of each candidate; its row when None. Equal labels match.
        k: K, the nearest to keep; 0 skips them.

    Raises:
        InputError: shapes that do not fit, blocks that can be read only once, or a query without any true candidate.
    """
    if iter(candidates) is candidates:
        raise InputError("candidates are read twice: give a list or Blocks, not a generator")
    if queries.ndim != 2 or labels.shape != (len(queries),) or k < 0:
        raise InputError(f"queries (B, D), labels (B,) and k from 0 expected, got {queries.shape}, {labels.shape}, {k}")
    best, relevant = _best_true(queries, candidates, labels, candidate_labels)
    check_known(labels, relevant > 0)
    ahead, top = np.zeros(len(queries), np.int64), _Nearest(len(queries), k)
    for first, block, own in _label_blocks(queries, candidates, candidate_labels):
        for rows in parts(len(queries), len(block)):
            similarity = queries[rows] @ block.T  # (b, c)
            true = labels[rows, None] == own[None]
            ahead[rows] += ((similarity >= best[rows, None] - TIE) & ~true).sum(axis=1)
            if k:
                top.see(rows, similarity, true, first)
    return Ranking(ahead, top.ids, top.true, relevant)


def rank_scores(
    score: Callable[[slice], npt.NDArray[np.float32]], labels: Labels, candidate_labels: Labels, *, k: int = 0
) -> Ranking:
    """Rank as :func:`rank_blocks`, by scores that are no cosines: ``score`` gives those (b, C) of some queries."""
    ahead, relevant = np.zeros(len(labels), np.int64), np.zeros(len(labels), np.int64)
    top = _Nearest(len(labels), k)
    for rows in parts(len(labels), len(candidate_labels)):
        scores, true = score(rows), labels[rows, None] == candidate_labels[None]  # (b, C)
        ahead[rows], relevant[rows] = ranks_among(scores, labels[rows], candidate_labels), true.sum(axis=1)
        if k:
            top.see(rows, scores, true, 0)
    check_known(labels, relevant > 0)
    return Ranking(ahead, top.ids, top.true, relevant)


def top_k(found: npt.NDArray[np.integer[Any]], k: int) -> float:
    """Share of ranks (N,) below k; with ranks of the best true candidate, recall@k of *any* true candidate.

    >>> top_k(np.array([0, 4, 5, 9]), 5)
    0.5
    """
    if len(found) == 0:
        raise InputError("no ranks: there were no queries")
    return float(np.mean(found < k))


def recall(
    hits: npt.NDArray[np.bool_], relevant: npt.NDArray[np.integer[Any]], k: int | None = None
) -> npt.NDArray[np.float64]:
    """Recall at k of *all* true candidates, per query: the share of them among the first k.

    >>> recall(np.array([[True, False, True]]), np.array([4])).tolist()
    [0.5]

    Args:
        hits: (B, K) whether the first, second, … result is true, as in :class:`Ranking`.
        relevant: (B,) number of true candidates, found or not; at least 1.
        k: K when None.

    Returns:
        (B,) shares.

    Raises:
        InputError: shapes that do not fit, a query without any true candidate, or more hits than true candidates.
    """
    return np.asarray(_first(hits, relevant, k).sum(axis=1) / relevant, np.float64)


def ndcg(
    hits: npt.NDArray[np.bool_], relevant: npt.NDArray[np.integer[Any]], k: int | None = None
) -> npt.NDArray[np.float64]:
    """Normalised discounted cumulative gain at k, nDCG@k, per query; a candidate is true or not.

    The gain of a true candidate at position 1, 2, … is 1 / log2(position + 1); the sum is given as a share of the
    best order's.

    >>> ndcg(np.array([[False, True, True]]), np.array([2])).round(4).tolist()  # (.6309 + .5) / (1 + .6309)
    [0.6934]

    Arguments, shapes and errors are those of :func:`recall`.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002, with the
    discount log2(position + 1) of ``trec_eval`` and ``torchmetrics``.
    """
    first = _first(hits, relevant, k)
    gains = 1.0 / np.log2(np.arange(2, first.shape[1] + 2))  # (k,)
    ideal = np.cumsum(gains)[np.minimum(relevant, first.shape[1]) - 1]  # (B,)
    return np.asarray(first @ gains / ideal, np.float64)


def graded_ndcg(found: npt.NDArray[np.float64], best: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """NDCG per query, (B,), where candidates are right by degrees; of grades 0 and 1 it is :func:`ndcg`.

    >>> graded_ndcg(np.array([[0.0, 1, 1]]), np.array([[1.0, 1, 0]])).round(4).tolist()
    [0.6934]

    Args:
        found: (B, K) grades of the first, second, … result; 0 is wrong.
        best: (B, K) the highest grades that there are for the query, falling.
    """
    gains = 1.0 / np.log2(np.arange(2, found.shape[1] + 2))  # (K,)
    ideal = best @ gains
    return np.asarray(np.divide(found @ gains, ideal, out=np.zeros(len(found)), where=ideal > 0), np.float64)


def _best_true(
    queries: Vectors, candidates: Iterable[Vectors], labels: Labels, candidate_labels: Labels | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Similarity (B,) of the best true candidate and number (B,) of true ones."""
    best, relevant = np.full(len(queries), -np.inf, np.float32), np.zeros(len(queries), np.int64)
    for _, block, own in _label_blocks(queries, candidates, candidate_labels):
        concerned = np.flatnonzero(np.isin(labels, own))
        for part in parts(len(concerned), len(block)):
            rows = concerned[part]
            true = labels[rows, None] == own[None]
            similarity = np.where(true, queries[rows] @ block.T, -np.inf)
            best[rows] = np.maximum(best[rows], similarity.max(axis=1))
            relevant[rows] += true.sum(axis=1)
    return best, relevant


class _Nearest:
    """The K nearest so far; true candidates are set back by ``TIE`` and come after equally near wrong ones."""

    def __init__(self, queries: int, k: int) -> None:
        self.ids = np.full((queries, k), -1, np.int64)
        self.true = np.zeros((queries, k), np.bool_)
        self._similarity = np.full((queries, k), -np.inf, np.float32)

    def see(self, rows: slice, similarity: Vectors, true: npt.NDArray[np.bool_], first: int) -> None:
        k = self.ids.shape[1]
        fair = np.where(true, similarity - np.float32(TIE), similarity)  # (b, c)
        near = np.argpartition(-fair, k - 1, axis=1)[:, :k] if fair.shape[1] > k else np.arange(fair.shape[1])[None]
        near = np.broadcast_to(near, (len(fair), near.shape[1]))
        values = np.hstack([self._similarity[rows], np.take_along_axis(fair, near, 1)])  # (b, <= 2K)
        hits = np.hstack([self.true[rows], np.take_along_axis(true, near, 1)])
        ids = np.hstack([self.ids[rows], first + near])
        order = np.lexsort((ids, hits, -values))[:, :k]
        self._similarity[rows] = np.take_along_axis(values, order, 1)
        self.true[rows], self.ids[rows] = np.take_along_axis(hits, order, 1), np.take_along_axis(ids, order, 1)


def _label_blocks(
    queries: Vectors, candidates: Iterable[Vectors], candidate_labels: Labels | None
) -> Iterator[tuple[int, Vectors, Labels]]:
    """Each block (c, D) with the row of its first candidate and its labels (c,)."""
    first = 0
    for block in candidates:
        if block.ndim != 2 or block.shape[1] != queries.shape[1]:
            raise InputError(f"candidate blocks (c, {queries.shape[1]}) expected, got {block.shape}")
        rows = np.arange(first, first + len(block))
        own = rows if candidate_labels is None else np.asarray(candidate_labels)[first : first + len(block)]
        if len(own) != len(block):
            raise InputError(f"more candidates than candidate labels: {first + len(block)} > {first + len(own)}")
        yield first, block, own
        first += len(block)
    if candidate_labels is not None and first != len(candidate_labels):
        raise InputError(f"fewer candidates than candidate labels: {first} < {len(candidate_labels)}")


def _first(hits: npt.NDArray[np.bool_], relevant: npt.NDArray[np.integer[Any]], k: int | None) -> npt.NDArray[np.bool_]:
    """Check shapes; returns the first hits (B, k)."""
    if hits.ndim != 2 or relevant.shape != (len(hits),) or (k is not None and not 1 <= k <= hits.shape[1]):
        raise InputError(
            f"hits (B, K), relevant (B,) and k from 1 to K expected, got {hits.shape}, {relevant.shape}, {k}"
        )
    if (wrong := hits.sum(axis=1) > relevant).any():
        row = int(np.argmax(wrong))
        raise InputError(f"query {row} has more hits ({hits[row].sum()}) than true candidates ({relevant[row]})")
    if not (relevant > 0).all():
        raise InputError(f"query {int(np.argmin(relevant > 0))} has no true candidate")
    return hits[:, :k]
