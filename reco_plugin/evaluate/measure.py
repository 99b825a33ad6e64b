"""Measure a refined task: ranks, shares, gains over frozen, and the lines of a result."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack, get_args

import numpy as np
import numpy.typing as npt

from ..calibration.scores import score_pairs
from ..measure.statistics import DRAWS, Interval, bootstrap, bootstrap_harmonic
from ..options import RefineHow
from ..score import Refines
from ..types import Caution, Coverage, Vectors
from .encoding import refine_candidates, refine_queries
from .findings import RankedCandidate
from .ranking import Blocks, Ranking, ndcg, rank_blocks, rank_scores, ranks
from .task import SIDES, Mask, Task, TaskItems

FEWEST_ALIKE = 20
"""Items that show the same as another one, from which a search among their own modality is measured."""


@dataclass(frozen=True)
class Measured:
    """The ranks of N queries; several trainings of a fusion are averaged query by query. The rest is of the first."""

    ranks: npt.NDArray[np.int64]  # (S, N) ranks of the best true candidate, 0 is best; a row for each training
    moved: tuple[float, float] = (0.0, 0.0)  # mean cosine distance of queries and of candidates from frozen ones
    coverage: Coverage | None = None  # of the refinement, where one side was refined
    ndcg: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # (N,)

    def top(self, k: int) -> npt.NDArray[np.float64]:
        """Share (N,) of the trainings with a true candidate among the first k.

        >>> Measured(np.array([[0, 3], [0, 0]])).top(1).tolist()
        [1.0, 0.5]
        """
        return np.asarray(np.mean(self.ranks < k, axis=0), np.float64)


def refine_task(reco: Refines, task: Task, sides: Collection[str] = SIDES, **options: Unpack[RefineHow]) -> Task:
    """Refine the named sides of a task, by modality: queries one by one, candidates as a set.

    For ``both``, queries also move as far as the candidates that the memory knows allow, which exact scores use.
    """
    wanted, queries, candidates = set(sides), task.queries, task.candidates
    both = "both" in wanted or wanted >= {queries.modality, candidates.modality}
    if both or queries.modality in wanted:
        queries = refine_queries(reco, queries, **options)
    if both or candidates.modality in wanted:
        candidates = refine_candidates(reco, candidates, **options)
    refined = replace(task, queries=queries, candidates=candidates)
    return move_among(reco, task, refined, **options) if both else refined


def move_among(reco: Refines, task: Task, refined: Task, **options: Unpack[RefineHow]) -> Task:
    """Move the refined queries as far as the share of candidates that the memory knows allows; exact scores use that.

    Their vectors stay.
    """
    coverage = refined.candidates.coverage
    if coverage is None or coverage.answered is None or refined.queries.moves is None:
        return refined
    options["answered"] = coverage.answered
    moves = refine_queries(reco, task.queries, **options).moves
    return replace(refined, queries=replace(refined.queries, moves=moves))


def measure(task: Task, refined: Iterable[Task] | None = None, depth: int = 0) -> Measured:
    """Rank the true candidates of a task.

    Args:
        task: frozen.
        refined: the task as each training refines it, read one by one; None: the frozen task.
        depth: K of nDCG; 0 leaves it out.
    """
    return _all([_measure_one(task, one, depth) for one in ([task] if refined is None else refined)])


def measure_sides(
    task: Task, refined: Iterable[Task], sides: Sequence[str] | None = None, depth: int = 0
) -> dict[str, Measured]:
    """Measure with neither, either or both sides refined, by the modality that was refined; frozen comes first.

    Args:
        task: frozen.
        refined: the task as each training refines it, with all sides to measure refined; read one by one.
        sides: queries, candidates and both when None.
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
        for side, trainings in found.items():
            trainings.append(_measure_one(task, variants[side], depth))
    return {"frozen": measure(task, depth=depth)} | {side: _all(trainings) for side, trainings in found.items()}


def measure_exact(task: Task, refined: Task, depth: int = 0) -> Measured | None:
    """Measure one training by exact scores of both sides; None where a side did not move by the closed form."""
    if not _is_exact(refined):
        return None
    found = _rank_exactly(refined, depth)
    return _measured(task, refined, found.ranks, ndcg(found.hits, found.relevant) if depth else None)


def measure_among_own(
    reco: Refines, items: TaskItems, depth: int, **options: Unpack[RefineHow]
) -> tuple[dict[str, Measured], npt.NDArray[np.int64]]:
    """Search N items by others of their modality with the same label, frozen and with the query refined for that.

    Returns what was measured, empty where too few share their label to say anything, and the labels (Q,) of those that
    do.
    """
    vectors, labels = items.vectors, items.labels
    described = np.bincount(labels)[labels] > 1
    asks, found = np.flatnonzero(described), dict[str, Measured]()
    if len(asks) < FEWEST_ALIKE:
        return found, labels[asks]
    asked = items.only(described)
    options["target"] = items.modality
    for name, queries in (("frozen", asked), ("query", refine_queries(reco, asked, **options))):

        def score(rows: slice, query: Vectors = queries.vectors) -> npt.NDArray[np.float32]:
            scores = np.asarray(query[rows] @ vectors.T, np.float32)
            scores[np.arange(len(scores)), asks[rows]] = -np.inf  # itself
            return scores

        one = rank_scores(score, labels[asks], labels, k=min(depth, len(labels) - 1))
        found[name] = Measured(one.ranks[None], ndcg=ndcg(one.hits, one.relevant - 1))
    return found, labels[asks]


def gain(
    after: Measured, before: Measured, groups: npt.NDArray[Any], *, samples: int = DRAWS, seed: int = 0
) -> Interval:
    """Difference in top-1 on the same queries, with its interval over groups (N,)."""
    return bootstrap(after.top(1) - before.top(1), groups, samples=samples, seed=seed)


def try_cautions(reco: Refines, task: Task, refined: TaskItems, **options: Unpack[RefineHow]) -> dict[str, Interval]:
    """Gain of the queries alone with each other named caution; nothing where no gate has one.

    Args:
        reco: refines.
        task: frozen.
        refined: its queries, refined.
        options: they were refined with.
    """
    if refined.coverage is None or refined.coverage.strength is None:
        return {}
    before, found = measure(task), dict[str, Interval]()
    asked = options.get("caution")
    for caution in get_args(Caution):
        if caution != ("balanced" if asked is None else asked):
            queries = refine_queries(reco, task.queries, **{**options, "caution": caution})
            found[caution] = gain(measure(task, [replace(task, queries=queries)]), before, task.groups)
    return found


def mean_move(frozen: Vectors, refined: Vectors) -> float:
    """Mean cosine distance between frozen and refined vectors (N, D)."""
    return 0.0 if refined is frozen else float(np.mean(1.0 - np.sum(frozen * refined, axis=1)))


def nearest(task: Task, row: int, count: int = 5) -> tuple[RankedCandidate, ...]:
    """The candidates nearest to a query, nearest first, by the names of their labels."""
    label, numbers = task.queries.labels[row], task.candidates.labels
    chosen = np.arange(row, row + 1)
    similarity = scores_of(task, chosen)[0]  # (C,)
    return tuple(
        RankedCandidate(
            name=task.classes[numbers[place]], similarity=float(similarity[place]), true=bool(numbers[place] == label)
        )
        for place in np.argsort(-similarity, kind="stable")[:count]
    )


def each_label_once(rows: npt.NDArray[np.int64], task: Task, count: int) -> list[int]:
    """The first of some queries, by row (M,), of each label; at most ``count``."""
    _, first = np.unique(task.queries.labels[rows], return_index=True)
    return [int(row) for row in rows[np.sort(first)][:count]]


class _Line:
    """A line of values and intervals."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values; shares are from 0 to 1."""
        return {name: value._asdict() if isinstance(value, Interval) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Variant(_Line):
    """One line of the result of a classification."""

    refined: str  # the side that was refined; ``"frozen"`` for none
    top1: Interval  # share of queries whose class is nearest, with its 95 % interval
    top5: float  # share of queries whose class is among the five nearest
    gain: Interval  # top-1 minus frozen, on the same queries, with its 95 % interval
    moved: float  # mean cosine distance between frozen and refined queries; 0 means unchanged
    moved_prompts: float  # the same for the candidates


def variants_of(found: Mapping[str, Measured], groups: npt.NDArray[Any]) -> tuple[Variant, ...]:
    """Compute the lines of a classification.

    Args:
        found: refined side -> its ranks; ``"frozen"`` among them.
        groups: (N,) groups that are drawn whole for the intervals.
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

    Classifying unseen classes among themselves is easier than the task in use. In the generalised setting
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
    """Split ranks among all candidates into seen and unseen queries.

    Args:
        found: refined side -> its ranks; ``"frozen"`` among them.
        unseen: (N,) whether the query's class is unseen; None where not known.
        groups: (N,) groups that are drawn whole for the intervals.
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


def _measure_one(task: Task, refined: Task, depth: int) -> Measured:
    """Measure one training on a task."""
    queries, candidates = refined.queries, refined.candidates
    labels = queries.labels, candidates.labels
    if depth:
        found = rank_blocks(queries.vectors, Blocks(candidates.vectors), *labels, k=depth)
        return _measured(task, refined, found.ranks, ndcg(found.hits, found.relevant))
    if _is_exact(refined):
        return _measured(task, refined, _rank_exactly(refined, 0).ranks)
    return _measured(task, refined, ranks(queries.vectors, candidates.vectors, *labels))


def _rank_exactly(task: Task, depth: int) -> Ranking:
    rows = np.arange(len(task))
    return rank_scores(lambda part: scores_of(task, rows[part]), task.queries.labels, task.candidates.labels, k=depth)


def _measured(
    task: Task, refined: Task, ranked: npt.NDArray[np.int64], ndcgs: npt.NDArray[np.float64] | None = None
) -> Measured:
    sides = ((task.queries, refined.queries), (task.candidates, refined.candidates))
    coverages = [after.coverage for before, after in sides if after is not before]
    far = [mean_move(before.vectors, after.vectors) for before, after in sides]
    coverage = coverages[0] if len(coverages) == 1 else None
    return Measured(ranked[None], (far[0], far[1]), coverage, np.empty(0) if ndcgs is None else ndcgs)


def _is_exact(task: Task) -> bool:
    """Whether both sides moved by the closed form: then one cosine is not their score."""
    return task.queries.moves is not None and task.candidates.moves is not None


def scores_of(task: Task, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Scores (b, C) of some queries by row (b,): exact ones where both sides moved, else cosines."""
    queries, candidates = task.queries, task.candidates
    if _is_exact(task) and queries.moves is not None and candidates.moves is not None:
        return score_pairs(queries.moves.take(rows), candidates.moves)
    return np.asarray(queries.vectors[rows] @ candidates.vectors.T, np.float32)


def _all(trainings: Sequence[Measured]) -> Measured:
    """Join several trainings."""
    return replace(trainings[0], ranks=np.concatenate([one.ranks for one in trainings]))
