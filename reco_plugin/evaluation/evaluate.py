"""``reco eval``: what refinement changes on pictures with classes or captions, by side and direction.

::

    LabelledSet ──► QuerySplit ──► Task of each direction ──► ranks, plain and refined ──► Record
    (labelled_set)  (here, memories)   (ranking)                                           (record)
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import numpy as np
import numpy.typing as npt

from ..defaults import DEFAULT_K
from ..errors import DataError
from ..fusion.exact_scores import Refines
from ..fusion.refiner import Refiner
from ..memory import Searches
from ..options import RefineHow
from ..reco import Reco
from ..types import Fingerprint
from ..values import counted
from .labelled_set import LabelledSet
from .memories import RamMemory, draw_queries, find_copies, ram_memory
from .ranking import SIDES, Side, Task, TaskItems, hits_at, nearest, rank_sides, refine_task, with_side
from .record import Basis, Example, Line, Record, ShownHit, Verdict, pick_extremes
from .report import Thumbnails
from .statistics import MIN_CHANGED, Figures, bootstrap, compare_pairs, points
from .verdict import decide_refinement

Direction: TypeAlias = str
"""``text->image``, ``image->text`` or ``image->image``: modality of the queries and of the candidates."""
MAX_QUERIES = 4000
"""More queries would take longer and narrow the intervals by little."""
_MAX_DISTRACTORS = 10_000  # labels without queries whose texts are candidates
MEASURED: Mapping[Direction, Sequence[Side]] = {
    "text->image": ("text",),
    "image->text": SIDES,
    "image->image": ("image",),
}
"""Sides to refine: an index of images stays as it is, and names of classes may be refined as one set."""
_RESULTS = 6  # of each side of an example
_NAMES: Mapping[str, str] = {"image": "pictures", "text": "texts", "both": "both"}


@dataclass(frozen=True)
class QuerySplit:
    """Pairs of a source that are queries, and what is hidden from each.

    Attributes:
        rows: (Q,) rows of the queries in the source.
        test: (Q,) whether a query is in the part that tests a tuned policy.
        memory: the other pairs; None if the memory is not of this source.
        excluded: Q collections of ids in the memory: the query's own pair and copies of its image.
        same_label: the same with all ids of the query's label; empty if the memory is not of this source.
    """

    source: LabelledSet
    rows: npt.NDArray[np.int64]
    test: npt.NDArray[np.bool_]
    memory: RamMemory | None
    excluded: Sequence[Collection[str]]
    same_label: Sequence[Collection[str]] = ()

    def tasks(self, chosen: npt.NDArray[np.bool_] | None = None, *, known: bool = True) -> dict[Direction, Task]:
        """Make the task of each direction.

        Args:
            chosen: (Q,) mask of the queries; None: all.
            known: whether the memory holds other pairs with their labels.
        """
        some = np.flatnonzero(np.ones(len(self.rows), np.bool_) if chosen is None else chosen)
        hidden = self.excluded if known else self.same_label
        rows, excluded = self.rows[some], [set(hidden[place]) for place in some.tolist()]
        pairs = self.source.pairs.take(rows)
        names, numbers = np.unique([self.source.labels[row] for row in rows], return_inverse=True)
        labels, classes, drawn = numbers.astype(np.int64), tuple(names.tolist()), set(names.tolist())
        images = TaskItems(pairs.image, "image", labels, excluded, ids=pairs.ids)
        texts = self._distinct_texts(rows, labels, excluded)
        distractors = {label: row for row, label in enumerate(self.source.labels) if label not in drawn}
        others = list(distractors.values())[:_MAX_DISTRACTORS]
        candidates = TaskItems(
            np.concatenate([texts.vectors, self.source.pairs.text[others]]),
            "text",
            np.concatenate([texts.labels, len(classes) + np.arange(len(others))]),
            [*(texts.excluded or ()), *[set[str]()] * len(others)],
        )
        tasks = {
            "text->image": Task(texts, images, texts.labels, classes),
            "image->text": Task(images, candidates, labels, (*classes, *distractors)),
        }
        is_indexed = np.zeros(len(rows), np.bool_)  # the first image of each label; the others are queries
        is_indexed[np.unique(labels, return_index=True)[1]] = True
        if not is_indexed.all():
            among = TaskItems(pairs.image[is_indexed], "image", labels[is_indexed], ids=pairs.take(is_indexed).ids)
            tasks["image->image"] = Task(images.only(~is_indexed), among, labels[~is_indexed], classes)
        return tasks

    def _distinct_texts(
        self, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], excluded: Sequence[set[str]]
    ) -> TaskItems:
        """Each text of a label once; what is excluded from any of its pairs is excluded from the text."""
        vectors = self.source.pairs.text[rows]
        places, chosen, merged = dict[tuple[int, bytes], int](), list[int](), list[set[str]]()
        for row, label in enumerate(labels.tolist()):
            place = places.setdefault((label, vectors[row].tobytes()), len(merged))
            if place == len(merged):
                chosen.append(row)
                merged.append(set())
            merged[place] |= excluded[row]
        words = [self.source.texts[row] for row in rows[chosen].tolist()]
        return TaskItems(vectors[chosen], "text", labels[chosen], merged, words)


def hold_out(source: LabelledSet, fingerprint: Fingerprint, seed: int = 0) -> QuerySplit:
    """Draw queries from a source, and build a memory of its other pairs.

    Raises:
        DataError: the source has too few pairs for both.
    """
    is_query, test = draw_queries(source.pairs.ids, source.labels, MAX_QUERIES, seed)
    rows = np.flatnonzero(is_query)
    if min(len(rows), len(source) - len(rows)) < MIN_CHANGED:
        raise DataError(
            f"{source.name} has {len(source):,} pictures of {len(set(source.labels)):,} things, too few to hold some "
            f"out: {len(rows):,} would be queries and {len(source) - len(rows):,} the memory, and each needs "
            f"{MIN_CHANGED}. Give more, or a memory that is filled already (--memory)"
        )
    memory = ram_memory(source.pairs.take(~is_query), fingerprint)
    of_label: dict[str, set[str]] = {}
    for row in np.flatnonzero(~is_query).tolist():
        of_label.setdefault(source.labels[row], set()).add(source.pairs.ids[row])
    copies = find_copies(memory.store, source.pairs.image[rows], [()] * len(rows))
    same = [of_label.get(source.labels[row], set()) | ids for row, ids in zip(rows.tolist(), copies, strict=True)]
    return QuerySplit(source, rows, test[rows], memory, copies, same)


def query_memory(source: LabelledSet, memory: Searches) -> QuerySplit:
    """Make all pairs of a source queries to an existing memory, or a sample of them."""
    rows = np.arange(len(source))
    if len(rows) > MAX_QUERIES:
        rows = np.sort(np.random.default_rng(0).permutation(len(rows))[:MAX_QUERIES])
    same_ids = [(source.pairs.ids[row],) for row in rows.tolist()]
    excluded = find_copies(memory, source.pairs.image[rows], same_ids)
    return QuerySplit(source, rows, np.zeros(len(rows), np.bool_), None, excluded)


@dataclass(frozen=True)
class DirectionOutcome:
    """One direction, plain and refined, for Q queries.

    Attributes:
        plain, refined: the task, frozen and with all sides refined.
        known: side -> whether the first result is right, (Q,); ``frozen`` is plain.
        unknown: the same if the memory holds nothing with the query's label; empty if that was not measured.
    """

    direction: Direction
    plain: Task
    refined: Task
    known: Mapping[str, Figures]
    unknown: Mapping[str, Figures]

    def gain(self, side: Side) -> Figures:
        """Change by refining a side, (Q,)."""
        return self.known[side] - self.known["frozen"]

    def line(self, name: str, side: Side, *, tried: int = 1, seed: int = 0) -> Line:
        """Test a side, one of ``tried``."""
        gain, groups = self.gain(side), self.plain.groups
        lost = self.unknown[side] - self.unknown["frozen"] if self.unknown else None
        return Line(
            name,
            len(gain),
            {"plain": float(self.known["frozen"].mean()), "refined": float(self.known[side].mean())},
            compare_pairs(gain, groups, tried=tried, seed=seed),
            float((gain > 0).mean()),
            float((gain < 0).mean()),
            unknown=None if lost is None else bootstrap(lost, groups, seed=seed),
        )


def measure_directions(
    split: QuerySplit,
    reco: Refines,
    chosen: npt.NDArray[np.bool_] | None = None,
    directions: Collection[Direction] = tuple(MEASURED),
    **how: Unpack[RefineHow],
) -> dict[Direction, DirectionOutcome]:
    """Measure directions, plain and with each of their sides refined, for some queries by mask (Q,)."""

    def first(task: Task, refined: Task, sides: Sequence[Side]) -> dict[str, Figures]:
        return {side: hits_at(ranks, 1) for side, ranks in rank_sides(task, refined, sides).items()}

    outcomes = dict[Direction, DirectionOutcome]()
    unknown = split.tasks(chosen, known=False) if split.same_label else {}
    for direction, task in split.tasks(chosen).items():
        if direction in directions:
            sides, lost = MEASURED[direction], dict[str, Figures]()
            refined = refine_task(reco, task, sides, **how)
            if direction in unknown:
                lost = first(unknown[direction], refine_task(reco, unknown[direction], sides, **how), sides)
            outcomes[direction] = DirectionOutcome(direction, task, refined, first(task, refined, sides), lost)
    return outcomes


def evaluate(split: QuerySplit, reco: Refines, *, seed: int = 0, command: str = "", **how: Unpack[RefineHow]) -> Record:
    """Measure each direction, plain and with each of its sides refined by the memory of the split."""
    lines, verdicts, examples = list[Line](), list[Verdict](), list[_TaskExamples]()
    basis: Basis = "labels" if split.source.kind == "classes" else "titles"
    for direction, outcome in measure_directions(split, reco, **how).items():
        sides = MEASURED[direction]
        names = {side: f"{_words(direction)}, {_NAMES[side]} refined" for side in sides}
        tested = {side: outcome.line(names[side], side, tried=len(sides), seed=seed) for side in sides}
        best = max(sides, key=lambda side, tested=tested: tested[side].change.interval.mean)  # type: ignore[misc]
        lines += tested.values()
        verdicts.append(_decide(direction, best, tested[best], basis))
        examples.append(_TaskExamples(split.source, outcome, best))
    shown = max(examples, key=lambda one: abs(float(one.gains.mean())))
    return Record(
        title=f"What refinement changes on {Path(split.source.name).name or split.source.name}",
        command=command,
        setup={"pictures": f"{len(split.source):,}", **{str(name): str(value) for name, value in how.items()}},
        verdicts=verdicts,
        metric="Right result first",
        lines=lines,
        notes=_notes_of(split),
        examples=[shown.of(row) for row in pick_extremes(shown.gains)],
    )


def evaluate_held_out(
    source: LabelledSet, reco: Reco | None = None, *, seed: int = 0, command: str = "", **how: Unpack[RefineHow]
) -> tuple[QuerySplit, Record]:
    """Evaluate on queries that are held out from a source.

    The other pairs are added to the empty memory of ``reco``; None: the vectors are of an unknown encoder.
    """
    if reco is None:
        vectors = source.pairs.image
        fingerprint = Fingerprint("vectors", hashlib.sha256(vectors.tobytes()).hexdigest(), vectors.shape[1])
    else:
        fingerprint = reco.manifest.fingerprint
    split = hold_out(source, fingerprint, seed)
    if reco is not None and split.memory is not None:
        reco.memory.add_records([split.memory.pairs])
    refines = reco or make_refiner(split, how.get("k") or DEFAULT_K)
    return split, evaluate(split, refines, seed=seed, command=command, **how)


def make_refiner(split: QuerySplit, k: int, **options: Any) -> Refiner:
    """A refiner with the memory of :func:`hold_out`."""
    assert split.memory is not None  # noqa: S101 - the split is held out
    return Refiner(split.memory.at(k), None, k=k, **options)


def _words(direction: Direction) -> str:
    query, _, candidate = direction.partition("->")
    return f"{_NAMES[query]} search {_NAMES[candidate]}"


def _notes_of(split: QuerySplit) -> list[str]:
    """What the source was taken for, what is hidden, and the notes of the source."""
    source, hidden = split.source, sum(map(len, split.excluded))
    memory = "; the other pairs are the memory" if split.memory is not None else " to the memory"
    kind = "pictures of classes" if source.kind == "classes" else "pictures with captions"
    notes = [
        f"{source.name} was taken for {kind}: {len(source):,} pictures of {len(set(source.labels)):,} things.",
        f"{len(split.rows):,} pairs are queries{memory}. The query's own pair and copies of its picture are hidden "
        f"from it: {counted(hidden, 'pair')} in all.",
    ]
    if len(set(source.labels)) >= 0.9 * len(source):
        notes.append(
            "Nearly every picture shows a thing of its own, so there is little to learn, and a picture that shows the "
            "same counts as wrong: name the column of what a picture shows (--group)."
        )
    return [*notes, *source.notes]


def _decide(direction: Direction, side: Side, line: Line, basis: Basis) -> Verdict:
    """Decide for a direction by the side that gains most."""
    return decide_refinement(
        f"{_NAMES[side]} where {_words(direction)}",
        line.change,
        (line.values["plain"], line.values["refined"]),
        f"{points(line.change.interval)} points on {line.queries:,} queries",
        basis,
        "The captions are taken as true: a wrong one counts as right, too.",
    )


@dataclass
class _TaskExamples:
    """Makes examples of queries of one direction, by row, with one side refined."""

    source: LabelledSet
    outcome: DirectionOutcome
    side: Side
    thumbnails: Thumbnails = field(default_factory=Thumbnails)

    @property
    def gains(self) -> Figures:
        """Change of each query, (Q,)."""
        return self.outcome.gain(self.side)

    def of(self, row: int) -> Example:
        """Make one example."""
        task = self.outcome.plain
        name = task.classes[task.queries.labels[row]]
        plain, refined = (
            [self._hit(place, row) for place in nearest(one, row, _RESULTS)]
            for one in (task, with_side(task, self.outcome.refined, self.side))
        )
        picture, gain = self._picture(task.queries, row), float(self.gains[row])
        return Example(f"{self.outcome.direction} {row}", name, plain, refined, picture, gain)

    def _hit(self, place: int, row: int) -> ShownHit:
        task = self.outcome.plain
        label = task.candidates.labels[place]
        right = bool(label == task.queries.labels[row])
        return ShownHit(task.classes[label], self._picture(task.candidates, place), right)

    def _picture(self, items: TaskItems, place: int) -> str | None:
        id_ = items.ids[place] if items.ids else ""
        image = self.source.pictures.get(id_)
        return None if image is None else self.thumbnails.of(id_, image)
