"""Refine the sides of a task, and rank the true candidates: how many wrong ones are at least as near."""

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
"""The sides of a task to refine, by modality."""
SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True)
class TaskItems:
    """N vectors of one modality, each with the label of what it shows.

    Attributes:
        vectors: (N, D) unit-norm, frozen or refined.
        modality: of all.
        labels: (N,); the true candidates of a query are those of its label.
        own: N collections of ids of pairs to hide from the respective vector; None: nothing is hidden.
        ids: N, of pictures; empty of others.
        texts: N, what was encoded, by whose words captions are found as for a user's query; None: by vectors alone.
        moves: how they moved, for exact scores; None where frozen, or refined by a fusion without.
        answered: share of them, as candidates, that the memory knows; None where that is not known.
    """

    vectors: Vectors
    modality: Modality
    labels: npt.NDArray[np.int64]
    own: Sequence[Collection[str]] | None = None
    texts: Sequence[str] | None = None
    ids: Sequence[str] = ()
    moves: Moves | None = None
    answered: float | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, chosen: npt.NDArray[np.bool_]) -> TaskItems:
        """Select some of them, by mask (N,)."""
        rows = np.flatnonzero(chosen).tolist()
        own, texts = ([of[row] for row in rows] if of is not None else None for of in (self.own, self.texts))
        moves, ids = (
            None if self.moves is None else self.moves.take(chosen),
            [self.ids[row] for row in rows if self.ids],
        )
        return TaskItems(self.vectors[chosen], self.modality, self.labels[chosen], own, texts, ids, moves)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Task:
    """N queries among C candidates, of L labels.

    Attributes:
        queries: N.
        candidates: C.
        groups: (N,) groups of queries that are drawn whole for intervals.
        classes: L names, where labels have names.
    """

    queries: TaskItems
    candidates: TaskItems
    groups: npt.NDArray[Any]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.queries)

    def only(self, chosen: npt.NDArray[np.bool_]) -> Task:
        """Select queries, among all candidates; ``chosen`` is (N,)."""
        return replace(self, queries=self.queries.only(chosen), groups=self.groups[chosen])

    def among(self, chosen: npt.NDArray[np.bool_]) -> Task:
        """Select the queries and the candidates of some labels, as the demo's groups; ``chosen`` is (L,)."""
        part = self.only(chosen[self.queries.labels])
        return replace(part, candidates=self.candidates.only(chosen[self.candidates.labels]))


TIE = 1e-6
"""Cosines this close are equal: float32 sums differ by about as much with the order of the terms."""
_BLOCK = 1 << 22  # similarities at a time: 16 MiB
_QUERIES = 4096  # per call, which holds the vectors of all their neighbours: 80 MiB at K=10, D=512
Labels = npt.NDArray[np.integer[Any]]
Ranks = npt.NDArray[np.int64]


def ranks(queries: Vectors, candidates: Vectors, labels: Labels, candidate_labels: Labels | None = None) -> Ranks:
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
    if not (known := np.isin(labels, own)).all():
        row = int(np.argmin(known))
        raise InputError(f"query {row} has label {labels[row]}, which no candidate has")
    out = np.empty(len(queries), np.int64)
    for rows in _parts(len(queries), len(candidates)):
        out[rows] = _ranks_among(queries[rows] @ candidates.T, labels[rows], own)
    return out


def _ranks_among(scores: npt.NDArray[np.floating[Any]], labels: Labels, candidate_labels: Labels) -> Ranks:
    """Rank (B,) of each query's best true candidate by scores (B, C), see :func:`ranks`."""
    true = labels[:, None] == candidate_labels[None]  # (B, C)
    best = np.where(true, scores, -np.inf).max(axis=1, keepdims=True)  # (B, 1)
    return np.asarray(((scores >= best - TIE) & ~true).sum(axis=1), np.int64)


def _parts(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows with at most ``_BLOCK`` similarities each."""
    step = max(1, _BLOCK // max(columns, 1))
    return (slice(start, start + step) for start in range(0, rows, step))


def refine_queries(
    reco: Refines, items: TaskItems, searched: Modality | None = None, **options: Unpack[RefineHow]
) -> TaskItems:
    """Refine queries (N, D), some thousand at a time: they do not depend on one another.

    ``searched`` is what they are compared with: the other modality where None.

    Raises:
        MemoryStoreError: the memory failed, so that vectors stayed frozen.
    """
    aimed: RefineHow = {"target": searched or other(items.modality), **options}

    def refine_rows(rows: slice) -> Refinement:
        hidden = None if items.own is None else items.own[rows]
        texts = None if items.texts is None else items.texts[rows]
        found = reco.refine(items.vectors[rows], modality=items.modality, texts=texts, exclude=hidden, **aimed)
        return _complete(found)

    found = [refine_rows(slice(start, start + _QUERIES)) for start in range(0, len(items), _QUERIES)]
    moving = [part.moves for part in found]
    moves = Moves.join([one for one in moving if one is not None]) if None not in moving else None
    return replace(items, vectors=np.concatenate([part.vectors for part in found]), moves=moves)


def refine_candidates(reco: Refines, items: TaskItems, **options: Unpack[RefineHow]) -> TaskItems:
    """Refine candidates (C, D), all in one call: they compete, so they are refined as a set.

    Raises:
        MemoryStoreError: see :func:`refine_queries`.
    """
    found = _complete(
        reco.refine(items.vectors, modality=items.modality, role="candidate", exclude=items.own, **options)
    )
    answered = None if found.coverage is None else found.coverage.answered
    return replace(items, vectors=found.vectors, moves=found.moves, answered=answered)


def _complete(result: Refinement) -> Refinement:
    """Refuse a degraded refinement: the figures would not show that its vectors are frozen."""
    if result.degraded:
        raise MemoryStoreError(
            f"refinement failed ({result.degraded}), and only refined vectors are measured here: "
            "see the warning above, or open the model with on_memory_failure='fail'"
        )
    return result


def refine_task(reco: Refines, task: Task, sides: Collection[str] = SIDES, **options: Unpack[RefineHow]) -> Task:
    """Refine the named sides of a task, by modality: queries one by one, candidates as a set.

    Where both are of one modality, the queries alone move. For ``both``, queries also move as far as the share of
    candidates that the memory knows allows, which exact scores use; their vectors stay.
    """
    wanted, queries, candidates = set(sides), task.queries, task.candidates
    if queries.modality == candidates.modality:
        return replace(task, queries=refine_queries(reco, queries, candidates.modality, **options))
    both = "both" in wanted or wanted >= {queries.modality, candidates.modality}
    if both or queries.modality in wanted:
        queries = refine_queries(reco, queries, **options)
    if both or candidates.modality in wanted:
        candidates = refine_candidates(reco, candidates, **options)
    if both and candidates.answered is not None and queries.moves is not None:
        options["coverage"] = candidates.answered
        queries = replace(queries, moves=refine_queries(reco, task.queries, **options).moves)
    return replace(task, queries=queries, candidates=candidates)


@dataclass(frozen=True)
class Measured:
    """The ranks of N queries."""

    ranks: Ranks  # (N,) of the best true candidate, 0 is best

    def top(self, k: int) -> npt.NDArray[np.float64]:
        """Whether a true candidate is among the first k, (N,).

        >>> Measured(np.array([0, 3])).top(1).tolist()
        [1.0, 0.0]
        """
        return np.asarray(self.ranks < k, np.float64)


def measure(task: Task) -> Measured:
    """Rank the true candidates of a task, by cosines, or by exact scores where both sides moved."""
    queries, candidates = task.queries, task.candidates
    if not _is_exact(task):
        return Measured(ranks(queries.vectors, candidates.vectors, queries.labels, candidates.labels))
    rows, out = np.arange(len(task)), np.empty(len(task), np.int64)
    for part in _parts(len(task), len(candidates)):
        out[part] = _ranks_among(scores_of(task, rows[part]), queries.labels[part], candidates.labels)
    return Measured(out)


def measure_sides(task: Task, refined: Task, sides: Sequence[str] | None = None) -> dict[str, Measured]:
    """Measure with neither, either or both sides refined, by the modality that was refined; frozen comes first.

    Args:
        task: frozen.
        refined: the same with all sides refined that are measured.
        sides: queries, candidates and both when None.
    """
    queries, candidates = task.queries.modality, task.candidates.modality
    variants = {
        candidates: replace(task, candidates=refined.candidates),
        queries: replace(task, queries=refined.queries),  # last: of pictures among pictures, the queries move
        "both": refined,
    }
    wanted = tuple(variants) if sides is None else sides
    return {"frozen": measure(task)} | {side: measure(variants[side]) for side in wanted}


def _is_exact(task: Task) -> bool:
    """Whether both sides moved by the closed form: then one cosine is not their score."""
    return task.queries.moves is not None and task.candidates.moves is not None


def scores_of(task: Task, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Scores (b, C) of some queries by row (b,): exact ones where both sides moved, else cosines."""
    queries, candidates = task.queries, task.candidates
    if _is_exact(task) and queries.moves is not None and candidates.moves is not None:
        return score_pairs(queries.moves.take(rows), candidates.moves)
    return np.asarray(queries.vectors[rows] @ candidates.vectors.T, np.float32)


def nearest(task: Task, row: int, count: int = 5) -> list[int]:
    """Rows of the candidates nearest to a query, nearest first."""
    scores = scores_of(task, np.arange(row, row + 1))[0]
    return [int(place) for place in np.argsort(-scores, kind="stable")[:count]]
