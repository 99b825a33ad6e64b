"""Refine the sides of a retrieval task, and rank the true candidates."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, Unpack, get_args

import numpy as np
import numpy.typing as npt

from ..errors import InputError, MemoryStoreError
from ..fusion.exact_scores import Refines
from ..fusion.scores import score_pairs
from ..options import RefineHow
from ..types import Modality, Moves, Refinement, Vectors, other

Side: TypeAlias = Literal["image", "text", "both"]
"""What is refined in a task, by modality."""
SIDES: tuple[Side, ...] = get_args(Side)
TIE = 1e-6
"""Cosines this close are equal: float32 sums differ by as much with the order of their terms."""
_BLOCK = 1 << 22  # similarities at a time: 16 MiB
_QUERIES = 4096  # a call, which holds the vectors of all their neighbours: 80 MiB at k = 10 and D = 512
Labels = npt.NDArray[np.integer[Any]]
Ranks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TaskItems:
    """N queries or candidates of one modality.

    Attributes:
        vectors: (N, D) unit-norm, frozen or refined.
        labels: (N,); candidates with the label of a query are its true ones.
        excluded: N collections of ids of pairs that are hidden from the item.
        texts: N texts for the search by words; None: items are found by vectors alone.
        ids: N ids of images; empty for texts.
        moves: for exact scores; None if frozen, or refined by a fuser without exact scores.
        coverage: share of the candidates that the memory knows; None if unknown.
    """

    vectors: Vectors
    modality: Modality
    labels: npt.NDArray[np.int64]
    excluded: Sequence[Collection[str]] | None = None
    texts: Sequence[str] | None = None
    ids: Sequence[str] = ()
    moves: Moves | None = None
    coverage: float | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, chosen: npt.NDArray[np.bool_]) -> TaskItems:
        """Select items by mask (N,)."""
        rows = np.flatnonzero(chosen).tolist()
        excluded = None if self.excluded is None else [self.excluded[row] for row in rows]
        texts = None if self.texts is None else [self.texts[row] for row in rows]
        ids = [self.ids[row] for row in rows if self.ids]
        moves = None if self.moves is None else self.moves.take(chosen)
        return TaskItems(self.vectors[chosen], self.modality, self.labels[chosen], excluded, texts, ids, moves)


@dataclass(frozen=True)
class Task:
    """N queries among C candidates, with L labels.

    Attributes:
        groups: (N,) groups of correlated queries, for intervals.
        classes: L names of the labels.
    """

    queries: TaskItems
    candidates: TaskItems
    groups: npt.NDArray[Any]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.queries)

    def only(self, chosen: npt.NDArray[np.bool_]) -> Task:
        """Select queries by mask (N,), among all candidates."""
        return replace(self, queries=self.queries.only(chosen), groups=self.groups[chosen])

    def among(self, chosen: npt.NDArray[np.bool_]) -> Task:
        """Select the queries and the candidates of some labels, by mask (L,)."""
        part = self.only(chosen[self.queries.labels])
        return replace(part, candidates=self.candidates.only(chosen[self.candidates.labels]))


def rank_candidates(
    queries: Vectors, candidates: Vectors, labels: Labels, candidate_labels: Labels | None = None
) -> Ranks:
    """Rank of the best true candidate of each query (B, D) among candidates (C, D), by cosine; (B,), 0 is best.

    A tie counts as wrong, so collapsed vectors rank last. Further true candidates of the query do not count.

    >>> rank_candidates(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), np.array([0, 0])).tolist()
    [0, 1]
    >>> rank_candidates(np.float32([[1, 0]]), np.float32([[1, 0], [1, 0], [0, 1]]), np.array([0])).tolist()  # a tie
    [1]

    Args:
        queries: unit-norm.
        candidates: unit-norm.
        labels: (B,).
        candidate_labels: (C,); None: a candidate's label is its position.

    Raises:
        InputError: shapes do not fit, or a query has no true candidate.
    """
    known = np.arange(len(candidates)) if candidate_labels is None else np.asarray(candidate_labels)
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1] or len(candidates) == 0:
        raise InputError(f"queries (B, D) and candidates (C, D) expected, got {queries.shape} and {candidates.shape}")
    if labels.shape != (len(queries),) or known.shape != (len(candidates),):
        raise InputError(f"labels {labels.shape} and candidate labels {known.shape} do not fit queries and candidates")
    if not (has_candidate := np.isin(labels, known)).all():
        row = int(np.argmin(has_candidate))
        raise InputError(f"query {row} has label {labels[row]}, which no candidate has")
    ranks = np.empty(len(queries), np.int64)
    for rows in _blocks(len(queries), len(candidates)):
        ranks[rows] = _rank_scores(queries[rows] @ candidates.T, labels[rows], known)
    return ranks


def _rank_scores(scores: npt.NDArray[np.floating[Any]], labels: Labels, candidate_labels: Labels) -> Ranks:
    """Rank (B,) of each query's best true candidate by scores (B, C)."""
    true = labels[:, None] == candidate_labels[None]  # (B, C)
    best = np.where(true, scores, -np.inf).max(axis=1, keepdims=True)  # (B, 1)
    return np.asarray(((scores >= best - TIE) & ~true).sum(axis=1), np.int64)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows with at most ``_BLOCK`` similarities each."""
    step = max(1, _BLOCK // max(columns, 1))
    return (slice(start, start + step) for start in range(0, rows, step))


def hits_at(ranks: Ranks, k: int) -> npt.NDArray[np.float64]:
    """Whether a true candidate is among the first k, (N,).

    >>> hits_at(np.array([0, 3]), 1).tolist()
    [1.0, 0.0]
    """
    return np.asarray(ranks < k, np.float64)


def refine_task(reco: Refines, task: Task, sides: Collection[str] = SIDES, **options: Unpack[RefineHow]) -> Task:
    """Refine the named sides of a task: queries independently, candidates as one set.

    If both have one modality, only the queries are refined. With both sides, the share of candidates that the memory
    knows also limits the queries' moves in exact scores.

    Raises:
        MemoryStoreError: the memory failed, so that vectors stayed frozen.
    """
    wanted, queries, candidates = set(sides), task.queries, task.candidates
    if queries.modality == candidates.modality:
        return replace(task, queries=_refine_queries(reco, queries, candidates.modality, **options))
    both = "both" in wanted or wanted >= {queries.modality, candidates.modality}
    if both or queries.modality in wanted:
        queries = _refine_queries(reco, queries, **options)
    if both or candidates.modality in wanted:
        candidates = _refine_candidates(reco, candidates, **options)
    if both and candidates.coverage is not None and queries.moves is not None:
        options["coverage"] = candidates.coverage
        queries = replace(queries, moves=_refine_queries(reco, task.queries, **options).moves)
    return replace(task, queries=queries, candidates=candidates)


def _refine_queries(
    reco: Refines, items: TaskItems, among: Modality | None = None, **options: Unpack[RefineHow]
) -> TaskItems:
    """Refine queries in batches; ``among`` is the candidates' modality, the other one by default."""
    aimed: RefineHow = {"target": among or other(items.modality), **options}

    def refine_rows(rows: slice) -> Refinement:
        excluded = None if items.excluded is None else items.excluded[rows]
        texts = None if items.texts is None else items.texts[rows]
        result = reco.refine(items.vectors[rows], modality=items.modality, texts=texts, exclude=excluded, **aimed)
        return _complete(result)

    parts = [refine_rows(slice(start, start + _QUERIES)) for start in range(0, len(items), _QUERIES)]
    moves = [part.moves for part in parts if part.moves is not None]
    return replace(
        items,
        vectors=np.concatenate([part.vectors for part in parts]),
        moves=Moves.join(moves) if len(moves) == len(parts) else None,
    )


def _refine_candidates(reco: Refines, items: TaskItems, **options: Unpack[RefineHow]) -> TaskItems:
    """Refine candidates as one set, since they compete."""
    result = reco.refine(items.vectors, modality=items.modality, role="candidate", exclude=items.excluded, **options)
    result = _complete(result)
    coverage = None if result.coverage is None else result.coverage.answered
    return replace(items, vectors=result.vectors, moves=result.moves, coverage=coverage)


def _complete(result: Refinement) -> Refinement:
    """Refuse a degraded refinement, because the figures would not show that its vectors are frozen."""
    if result.degraded:
        raise MemoryStoreError(
            f"refinement failed ({result.degraded}), and only refined vectors are measured here: "
            "see the warning above, or open the model with on_memory_failure='fail'"
        )
    return result


def rank_task(task: Task) -> Ranks:
    """Ranks (N,) of the true candidates, by exact scores if both sides were refined, else by cosine."""
    queries, candidates = task.queries, task.candidates
    if queries.moves is None or candidates.moves is None:
        return rank_candidates(queries.vectors, candidates.vectors, queries.labels, candidates.labels)
    rows, ranks = np.arange(len(task)), np.empty(len(task), np.int64)
    for part in _blocks(len(task), len(candidates)):
        ranks[part] = _rank_scores(scores_of(task, rows[part]), queries.labels[part], candidates.labels)
    return ranks


def rank_sides(task: Task, refined: Task, sides: Sequence[str]) -> dict[str, Ranks]:
    """Refined side -> ranks (N,) with that side alone taken from ``refined``; ``frozen`` comes first."""
    return {"frozen": rank_task(task)} | {side: rank_task(with_side(task, refined, side)) for side in sides}


def with_side(task: Task, refined: Task, side: str) -> Task:
    """The frozen task with one side, or both, from the refined one."""
    if side == "both":
        return refined
    if side == task.queries.modality:
        return replace(task, queries=refined.queries)
    return replace(task, candidates=refined.candidates)


def scores_of(task: Task, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Scores (b, C) of queries by row (b,): exact if both sides were refined, else cosines."""
    queries, candidates = task.queries, task.candidates
    if queries.moves is not None and candidates.moves is not None:
        return score_pairs(queries.moves.take(rows), candidates.moves)
    return np.asarray(queries.vectors[rows] @ candidates.vectors.T, np.float32)


def nearest(task: Task, row: int, count: int) -> list[int]:
    """Rows of the candidates nearest to a query, nearest first."""
    scores = scores_of(task, np.arange(row, row + 1))[0]
    return [int(place) for place in np.argsort(-scores, kind="stable")[:count]]
