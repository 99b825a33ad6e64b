"""What refinement makes of a task: from ranks to shares, gains over frozen, and the lines of a result."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from ..request import RefineHow
from ..types import Coverage, Vectors
from .encoding import Refines, refined_candidates, refined_queries
from .findings import RankedCandidate
from .intervals import DRAWS, Interval, bootstrap, bootstrap_harmonic
from .metrics import ndcg
from .ranking import Blocks, rank_blocks, ranks
from .task import SIDES, Mask, Task


@dataclass(frozen=True)
class Measured:
    """What became of N queries; several trainings of a fusion are averaged query by query.

    Attributes:
        ranks: (S, N) of the best true candidate, 0 is best; a row for each training.
        moved: mean cosine distance of the queries, and of the candidates, from where they were; of the first training.
        coverage: how far the memory answered what was refined, where one side was; of the first training.
        ndcg: (N,) at the depth that was asked for, of the first training.
    """

    ranks: npt.NDArray[np.int64]
    moved: tuple[float, float] = (0.0, 0.0)
    coverage: Coverage | None = None
    ndcg: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def top(self, k: int) -> npt.NDArray[np.float64]:
        """(N,) share of the trainings for which a true candidate is among the first k.

        >>> Measured(np.array([[0, 3], [0, 0]])).top(1).tolist()
        [1.0, 0.5]
        """
        return np.asarray(np.mean(self.ranks < k, axis=0), np.float64)

    def only(self, chosen: Mask) -> Measured:
        """Of some queries, by mask (N,)."""
        return Measured(self.ranks[:, chosen])

    @staticmethod
    def merge(parts: Sequence[tuple[Mask, Measured]]) -> Measured:
        """From parts of the queries, each with its mask (N,); together they cover all."""
        merged = np.empty((len(parts[0][1].ranks), len(parts[0][0])), np.int64)
        for chosen, part in parts:
            merged[:, chosen] = part.ranks
        return Measured(merged)


def refine_task(reco: Refines, task: Task, sides: Collection[str] = SIDES, **options: Unpack[RefineHow]) -> Task:
    """The task with the sides refined that are named, by modality: queries each alone, candidates as a set."""
    wanted, queries, candidates = set(sides), task.queries, task.candidates
    if wanted & {queries.modality, "both"}:
        queries = refined_queries(reco, queries, **options)
    if wanted & {candidates.modality, "both"}:
        candidates = refined_candidates(reco, candidates, **options)
    return replace(task, queries=queries, candidates=candidates)


def measure(task: Task, refined: Iterable[Task] | None = None, depth: int = 0) -> Measured:
    """Rank the true candidates of a task as it was refined.

    Args:
        task: frozen.
        refined: the same by each training, gone through one by one; None: the task as it is.
        depth: K of nDCG; 0 saves it.
    """
    return _all([_measured(task, one, depth) for one in ([task] if refined is None else refined)])


def measure_sides(
    task: Task, refined: Iterable[Task], sides: Sequence[str] | None = None, depth: int = 0
) -> dict[str, Measured]:
    """Measure with neither, either or both sides refined, under the modality that was refined; frozen comes first.

    Args:
        task: frozen.
        refined: the same by each training, with every side refined that is asked for; gone through one by one.
        sides: which; queries, candidates, both when None.
        depth: see :func:`measure`.
    """
    queries, candidates = task.queries.modality, task.candidates.modality
    wanted = (queries, candidates, "both") if sides is None else sides
    found: dict[str, list[Measured]] = {side: [] for side in wanted}
    for one in refined:
        variants = {
            queries: replace(task, queries=one.queries),
            candidates: replace(task, candidates=one.candidates),
            "both": one,
        }
        for side, parts in found.items():
            parts.append(_measured(task, variants[side], depth))
    return {"frozen": measure(task, depth=depth)} | {side: _all(parts) for side, parts in found.items()}


def gain(
    after: Measured, before: Measured, groups: npt.NDArray[Any], *, samples: int = DRAWS, seed: int = 0
) -> Interval:
    """Difference in top-1 on the same queries, with its interval over groups (N,)."""
    return bootstrap(after.top(1) - before.top(1), groups, samples=samples, seed=seed)


def moved(frozen: Vectors, refined: Vectors) -> float:
    """Mean cosine distance of vectors (N, D) from where they were."""
    return 0.0 if refined is frozen else float(np.mean(1.0 - np.sum(frozen * refined, axis=1)))


def nearest(task: Task, row: int, count: int = 5) -> tuple[RankedCandidate, ...]:
    """The candidates that are nearest to a query of named labels, nearest first."""
    label, numbers = task.queries.labels[row], task.candidates.labels
    similarity = task.candidates.vectors @ task.queries.vectors[row]  # (C,)
    return tuple(
        RankedCandidate(
            name=task.classes[numbers[place]], similarity=float(similarity[place]), true=bool(numbers[place] == label)
        )
        for place in np.argsort(-similarity, kind="stable")[:count]
    )


def each_label_once(rows: npt.NDArray[np.int64], task: Task, count: int) -> list[int]:
    """Of some queries, by row, the first of each label; at most so many."""
    _, first = np.unique(task.queries.labels[rows], return_index=True)
    return [int(row) for row in rows[np.sort(first)][:count]]


class _Line:
    """Values and intervals."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; shares are from 0 to 1."""
        return {name: value._asdict() if isinstance(value, Interval) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Variant(_Line):
    """One line of the result of a classification."""

    refined: str  # the side that was refined; ``"frozen"`` for none
    top1: Interval  # share of queries whose class is nearest, with its 95 % interval
    top5: float  # share of queries whose class is among the five nearest
    gain: Interval  # top-1 minus frozen, on the same queries, with its 95 % interval
    moved: float  # mean cosine distance between frozen and refined queries; 0 means untouched
    moved_prompts: float  # the same for the candidates


def variants_of(found: Mapping[str, Measured], groups: npt.NDArray[Any]) -> tuple[Variant, ...]:
    """The lines of a classification.

    Args:
        found: refined side -> what it did; ``"frozen"`` among them.
        groups: (N,) what is drawn together for the intervals.
    """
    return tuple(
        Variant(
            refined=side,
            top1=bootstrap(one.top(1), groups),
            top5=float(one.top(5).mean()),
            gain=gain(one, found["frozen"], groups),
            moved=one.moved[0],
            moved_prompts=one.moved[1],
        )
        for side, one in found.items()
    )


@dataclass(frozen=True)
class Generalised(_Line):
    """Accuracy on seen and on unseen classes when all candidates compete; one line per side that was refined.

    Classifying unseen classes among themselves is easier than the task that a user has. In the generalised setting
    every query is compared with all classes; the harmonic mean of the two accuracies is high only where neither pays
    for the other (Chao et al., An empirical study and analysis of generalized zero-shot learning, ECCV 2016).
    """

    refined: str  # the side that was refined; ``"frozen"`` for none
    seen: Interval  # top-1 (or top-k) of the queries of seen classes, with its 95 % interval
    unseen: Interval  # the same of the queries of unseen classes
    harmonic: Interval  # harmonic mean of the two
    gain_seen: Interval  # seen minus frozen, on the same queries
    gain_unseen: Interval  # unseen minus frozen
    gain: Interval  # harmonic mean minus frozen


def by_unseen(
    found: Mapping[str, Measured],
    unseen: Mask | None,
    groups: npt.NDArray[Any],
    k: int = 1,
    *,
    samples: int = DRAWS,
    seed: int = 0,
) -> tuple[Generalised, ...]:
    """Split what was ranked among all candidates into seen and unseen.

    Args:
        found: refined side -> what it did; ``"frozen"`` among them.
        unseen: (N,) whether the query's class is unseen; None where that is not known.
        groups: (N,) what is drawn together for the intervals.
        k: how many of the nearest candidates count.
        samples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        One line per side; none where all queries are of one kind.
    """
    if unseen is None or unseen.all() or not unseen.any():
        return ()
    how: dict[str, Any] = {"samples": samples, "seed": seed}
    parts = {refined: (one.top(k)[~unseen], one.top(k)[unseen]) for refined, one in found.items()}
    drawn = (groups[~unseen], groups[unseen])
    seen_frozen, unseen_frozen = parts["frozen"]
    return tuple(
        Generalised(
            refined=refined,
            seen=bootstrap(seen, drawn[0], **how),
            unseen=bootstrap(new, drawn[1], **how),
            harmonic=bootstrap_harmonic([seen], [new], drawn, **how),
            gain_seen=bootstrap(seen - seen_frozen, drawn[0], **how),
            gain_unseen=bootstrap(new - unseen_frozen, drawn[1], **how),
            gain=bootstrap_harmonic([seen, seen_frozen], [new, unseen_frozen], drawn, **how),
        )
        for refined, (seen, new) in parts.items()
    )


def _measured(task: Task, refined: Task, depth: int) -> Measured:
    """What one training makes of a task."""
    queries, candidates = refined.queries, refined.candidates
    labels = queries.labels, candidates.labels
    ndcgs = np.empty(0)
    if depth:
        found = rank_blocks(queries.vectors, Blocks(candidates.vectors), *labels, k=depth)
        ranked, ndcgs = found.ranks, ndcg(found.hits, found.relevant)
    else:
        ranked = ranks(queries.vectors, candidates.vectors, *labels)
    sides = ((task.queries, queries), (task.candidates, candidates))
    told = [after.coverage for before, after in sides if after is not before]
    far = [moved(before.vectors, after.vectors) for before, after in sides]
    return Measured(ranked[None], (far[0], far[1]), told[0] if len(told) == 1 else None, ndcgs)


def _all(trainings: Sequence[Measured]) -> Measured:
    """Several trainings as one."""
    return replace(trainings[0], ranks=np.concatenate([one.ranks for one in trainings]))
