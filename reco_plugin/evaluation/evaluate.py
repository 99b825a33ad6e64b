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


def evaluate(split: QuerySplit, reco: Refines, *, seed: int = 0, command: str = "", **how: Unpack[RefineHow]) -> Record:
    """Measure each direction, plain and with each of its sides refined.

    Args:
        split: the queries.
        reco: refines by the memory of the split, with the settings of the service.
        seed: of intervals.
        command: the command line, for the record.
        how: options of the refinement.
    """
    outcomes = list[_SideOutcome]()
    unknown = split.tasks(known=False) if split.same_label else {}
    for direction, task in split.tasks().items():
        sides = MEASURED[direction]
        refined = refine_task(reco, task, sides, **how)
        first = {side: hits_at(ranks, 1) for side, ranks in rank_sides(task, refined, sides).items()}
        lost: dict[str, Figures] = {}
        if direction in unknown:
            without = refine_task(reco, unknown[direction], sides, **how)
            lost = {side: hits_at(one, 1) for side, one in rank_sides(unknown[direction], without, sides).items()}
        for side in sides:
            gain = first[side] - first["frozen"]
            line = Line(
                f"{_words(direction)}, {_NAMES[side]} refined",
                len(task),
                {"plain": float(first["frozen"].mean()), "refined": float(first[side].mean())},
                compare_pairs(gain, task.groups, tried=len(sides), seed=seed),
                float((gain > 0).mean()),
                float((gain < 0).mean()),
                unknown=bootstrap(lost[side] - lost["frozen"], task.groups, seed=seed) if lost else None,
            )
            outcomes.append(_SideOutcome(direction, side, line, gain, task, with_side(task, refined, side)))
    return _record(split, outcomes, command, how)


def evaluate_held_out(
    source: LabelledSet, reco: Reco | None = None, *, seed: int = 0, command: str = "", **how: Unpack[RefineHow]
) -> tuple[QuerySplit, Record]:
    """Evaluate on queries that are held out from a source; the other pairs are the memory.

    Args:
        source: pictures with texts.
        reco: its empty memory takes these pairs; None: the vectors are of an unknown encoder.
        seed: of the draw of queries, and of intervals.
        command: the command line, for the record.
        how: options of the refinement.
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


@dataclass(frozen=True)
class _SideOutcome:
    """One refined side of a direction: its line, the gain of each query (Q,), and both tasks."""

    direction: Direction
    side: Side
    line: Line
    gain: Figures
    plain: Task
    refined: Task


def _record(split: QuerySplit, outcomes: Sequence[_SideOutcome], command: str, how: RefineHow) -> Record:
    source, directions = split.source, dict.fromkeys(one.direction for one in outcomes)
    best = [
        max((one for one in outcomes if one.direction == direction), key=lambda one: one.line.change.interval.mean)
        for direction in directions
    ]
    shown = max(best, key=lambda one: abs(one.line.change.interval.mean))
    examples = _TaskExamples(split, shown)
    hidden = sum(map(len, split.excluded))
    memory = "; the other pairs are the memory" if split.memory is not None else " to the memory"
    kind = "pictures of classes" if source.kind == "classes" else "pictures with captions"
    notes = [
        f"{source.name} was taken for {kind}: {len(source):,} pictures of {len(set(source.labels)):,} things.",
        f"{len(split.rows):,} pairs are queries{memory}. The query's own pair and copies of its picture are hidden "
        f"from it: {counted(hidden, 'pair')} in all.",
        *source.notes,
    ]
    if len(set(source.labels)) >= 0.9 * len(source):
        notes.insert(
            2,
            "Nearly every picture shows a thing of its own, so there is little to learn, and a picture that shows the "
            "same counts as wrong: name the column of what a picture shows (--group).",
        )
    return Record(
        title=f"What refinement changes on {Path(source.name).name or source.name}",
        command=command,
        setup={"pictures": f"{len(source):,}", **{str(name): str(value) for name, value in how.items()}},
        verdicts=[_decide(one, "labels" if source.kind == "classes" else "titles") for one in best],
        metric="Right result first",
        lines=[one.line for one in outcomes],
        notes=notes,
        examples=[examples.of(row) for row in pick_extremes(shown.gain)],
    )


def _decide(one: _SideOutcome, basis: Basis) -> Verdict:
    """Decide for a direction by the side that gains most."""
    values, change = one.line.values, one.line.change
    return decide_refinement(
        f"{_NAMES[one.side]} where {_words(one.direction)}",
        change,
        (values["plain"], values["refined"]),
        f"{points(change.interval)} points on {len(one.gain):,} queries",
        basis,
        "The captions are taken as true: a wrong one counts as right, too.",
    )


@dataclass
class _TaskExamples:
    """Makes examples of queries of one direction, by row."""

    split: QuerySplit
    outcome: _SideOutcome
    thumbnails: Thumbnails = field(default_factory=Thumbnails)

    def of(self, row: int) -> Example:
        """Make one example."""
        one, queries = self.outcome, self.outcome.plain.queries
        name = one.plain.classes[queries.labels[row]]
        plain, refined = (
            [self._hit(place, row) for place in nearest(task, row, _RESULTS)] for task in (one.plain, one.refined)
        )
        gain = float(one.gain[row])
        return Example(f"{one.direction} {row}", name, plain, refined, self._picture(queries, row), gain)

    def _hit(self, place: int, row: int) -> ShownHit:
        task = self.outcome.plain
        label = task.candidates.labels[place]
        right = bool(label == task.queries.labels[row])
        return ShownHit(task.classes[label], self._picture(task.candidates, place), right)

    def _picture(self, items: TaskItems, place: int) -> str | None:
        id_ = items.ids[place] if items.ids else ""
        image = self.split.source.pictures.get(id_)
        return None if image is None else self.thumbnails.of(id_, image)
