"""``reco eval``: what refinement changes on pictures with classes or captions, by side and direction, as a record.

::

    Things ──► who asks, what is hidden ──► Task of each direction ──► ranks, plain and refined ──► Record
    (source)   (hiding)                     (here)                     (ranks)
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..calibration import Calibration
from ..data.images import RemoteImage
from ..defaults import DEFAULT_K
from ..errors import DataError
from ..fuse import Learned
from ..memory import Searches
from ..options import RefineDefaults, RefineHow
from ..refine import Refiner
from ..score import Refines
from ..types import Fingerprint, Records
from ..values import counted, show
from .memories import RamMemory, draw_asking, find_copies, ram_memory
from .page import Thumbnails
from .ranks import SIDES, Side, Task, TaskItems, measure_sides, nearest, refine_task
from .record import Example, Line, Record, Shares, ShownHit, Verdict, pick
from .source import Things
from .statistics import CHANGED, Difference, Figures, bootstrap, compare_pairs, level, points
from .verdict import DOUBTFUL

Direction: TypeAlias = str
"""``text->image``, ``image->text``."""
MOST = 4000
"""Pairs that ask: more would narrow intervals by little, and take longer."""
_RIVALS = 10_000  # things that nobody asks for whose texts compete, at most
MEASURED: Mapping[Direction, Sequence[Side]] = {"text->image": ("text",), "image->text": SIDES}
"""Sides that are refined: an index of pictures stays as it is, and names of classes may be refined as one set."""
_TRIED = sum(map(len, MEASURED.values()))
_RESULTS = 6  # of each side of an example
_NAMED = 3  # things that lose, in a note


@dataclass(frozen=True)
class EvalOptions:
    """How a source is measured.

    Attributes:
        refine: options of the refinement.
        seed: of the draw of who asks, and of intervals.
        command: that makes the record again.
    """

    refine: RefineHow = field(default_factory=RefineHow)
    seed: int = 0
    command: str = ""


@dataclass(frozen=True)
class Askers:
    """Who asks whom.

    Attributes:
        things: the source.
        rows: (Q,) of the pairs that ask.
        test: (Q,) whether they are of the part that a choice is tested on.
        memory: of the other pairs; None where the source asks a memory of its own.
        hidden: Q collections of ids of the memory that are hidden: its own pairs, and copies of its picture.
        same: Q collections of ids of all pairs of its thing; empty where the memory is not of the source.
    """

    things: Things
    rows: npt.NDArray[np.int64]
    test: npt.NDArray[np.bool_]
    memory: RamMemory | None
    hidden: Sequence[Collection[str]]
    same: Sequence[Collection[str]] = ()

    def tasks(self, chosen: npt.NDArray[np.bool_] | None = None, *, known: bool = True) -> dict[Direction, Task]:
        """The task of each direction, for all who ask or for some, (Q,).

        Texts of things that do not ask compete, too, since among the others alone the choice is easier than in use.

        Args:
            chosen: who asks.
            known: whether the memory holds other pairs of their things.
        """
        some = np.flatnonzero(np.ones(len(self.rows), np.bool_) if chosen is None else chosen)
        rows, hiding = self.rows[some], self.hidden if known else self.same
        pairs, hidden = self.things.pairs.take(rows), [set(hiding[place]) for place in some.tolist()]
        names, numbers = np.unique([self.things.things[row] for row in rows], return_inverse=True)
        labels = numbers.astype(np.int64)
        first, text_of = _texts(pairs, labels)
        own: list[set[str]] = [set() for _ in first]
        for ids, text in zip(hidden, text_of.tolist(), strict=True):
            own[text] |= ids
        images = TaskItems(pairs.image, "image", labels, hidden)
        texts = TaskItems(pairs.text[first], "text", labels[first], own)
        asked = set(names.tolist())
        rivals = {thing: row for row, thing in enumerate(self.things.things) if thing not in asked}
        far = TaskItems(
            self.things.pairs.text[list(rivals.values())[:_RIVALS]],
            "text",
            len(names) + np.arange(min(len(rivals), _RIVALS)),
        )
        return {
            "text->image": Task(texts, images, labels[first], tuple(names.tolist())),
            "image->text": Task(images, _join(texts, far), labels, (*names.tolist(), *rivals)),
        }

    def row_of(self, task: Task, place: int) -> int:
        """The row of the source that a candidate or a query, which is a text, stands for: the first of its thing."""
        return self.things.things.index(task.classes[place])


def _texts(pairs: Records, labels: npt.NDArray[np.int64]) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Row of each text's first use in a thing, and the text (N,) of each pair."""
    place: dict[tuple[int, bytes], int] = {}
    first, of = list[int](), np.empty(len(pairs), np.int64)
    for row, (text, label) in enumerate(zip(pairs.text, labels.tolist(), strict=True)):
        key = (label, text.tobytes())
        if key not in place:
            place[key] = len(first)
            first.append(row)
        of[row] = place[key]
    return first, of


def _join(one: TaskItems, other: TaskItems) -> TaskItems:
    own = [*(one.own or ()), *[set[str]()] * len(other)]
    vectors, labels = np.concatenate([one.vectors, other.vectors]), np.concatenate([one.labels, other.labels])
    return TaskItems(vectors, one.modality, labels, own)


def ask_itself(things: Things, fingerprint: Fingerprint, seed: int = 0) -> Askers:
    """Half of the things ask, by about half of their pairs, and all other pairs are the memory.

    Raises:
        DataError: too few things to tell anything.
    """
    asks, test = draw_asking(things.pairs.ids, things.things, MOST, seed)
    rows = np.flatnonzero(asks)
    if len(rows) < CHANGED or len(things) - len(rows) < CHANGED:
        raise DataError(
            f"{things.name} has {len(things):,} pictures of {len(set(things.things)):,} things, too few to hold some "
            f"out: {len(rows):,} would be queries and {len(things) - len(rows):,} the memory, and each needs "
            f"{CHANGED}. Give more, or a memory that is filled already (--memory)"
        )
    memory = ram_memory(things.pairs.take(~asks), fingerprint)
    of_thing: dict[str, set[str]] = {}
    for row in np.flatnonzero(~asks).tolist():
        of_thing.setdefault(things.things[row], set()).add(things.pairs.ids[row])
    copies = find_copies(memory.store, things.pairs.image[rows], [()] * len(rows))
    same = [of_thing.get(things.things[row], set()) | ids for row, ids in zip(rows.tolist(), copies, strict=True)]
    return Askers(things, rows, test[rows], memory, copies, same)


def ask_memory(things: Things, memory: Searches) -> Askers:
    """All pairs, or a sample, ask a memory; pairs of the same ids, and copies of pictures, are hidden."""
    rows = np.arange(len(things))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST])
    own = [(things.pairs.ids[row],) for row in rows.tolist()]
    return Askers(things, rows, np.zeros(len(rows), np.bool_), None, find_copies(memory, things.pairs.image[rows], own))


class RefinesByPairs(Refines, Protocol):
    """Reco or Refiner, with the memory that it refines by."""

    @property
    def memory(self) -> Learned:
        """The pairs, and what was learned from them."""
        ...


def evaluate(asking: Askers, reco: RefinesByPairs, options: EvalOptions | None = None) -> Record:
    """Measure each direction, plain and with each of its sides refined.

    Args:
        asking: who asks whom.
        reco: refines by the memory that is asked; of :func:`ask_itself` a refiner of its memory, see :func:`refiner`.
        options: how.
    """
    options = options or EvalOptions()
    how: Any = options.refine
    lines, sides = list[Line](), list[_SideFound]()
    unknown = asking.tasks(known=False) if asking.same else {}
    for direction, task in asking.tasks().items():
        asked = MEASURED[direction]
        refined = refine_task(reco, task, asked, **how)
        measured = measure_sides(task, refined, asked)
        found = {side: one.top(1) for side, one in measured.items()}
        among = {side: float(one.top(10).mean()) for side, one in measured.items()}
        lost: dict[str, Figures] = {}
        if direction in unknown:
            hidden = refine_task(reco, unknown[direction], asked, **how)
            lost = {side: one.top(1) for side, one in measure_sides(unknown[direction], hidden, asked).items()}
        lines.append(
            Line(
                f"{_words(direction)}, plain",
                len(task),
                level(found["frozen"], task.groups),
                more={_TEN: among["frozen"]},
            )
        )
        for side in asked:
            gain = found[side] - found["frozen"]
            change = compare_pairs(gain, task.groups, tried=_TRIED, seed=options.seed)
            without = None if not lost else bootstrap(lost[side] - lost["frozen"], task.groups, seed=options.seed)
            line = Line(
                f"{_words(direction)}, {_NAMES[side]} refined",
                len(task),
                level(found[side], task.groups),
                change,
                Shares.of(gain, np.ones(len(gain))),
                without,
                {_TEN: among[side]},
            )
            lines.append(line)
            sides.append(_SideFound(direction, side, line, gain, task, refined))
    return _record(asking, reco, lines, sides, options)


def evaluate_itself(
    things: Things,
    options: EvalOptions,
    fingerprint: Fingerprint | None = None,
    defaults: RefineDefaults | None = None,
) -> tuple[Askers, Record]:
    """:func:`evaluate` of a source that asks itself, with who asks whom.

    Args:
        things: the source.
        options: how.
        fingerprint: of the encoder; None: the vectors' own, by their content.
        defaults: of the refinement, where the options say nothing.
    """
    if fingerprint is None:
        vectors = things.pairs.image
        fingerprint = Fingerprint("vectors", hashlib.sha256(vectors.tobytes()).hexdigest(), vectors.shape[1])
    asking = ask_itself(things, fingerprint, options.seed)
    known: dict[str, Any] = {name: value for name, value in (defaults or {}).items() if name in _REFINER}
    k = {name: value for name, value in options.refine.items() if name == "k"}
    return asking, evaluate(asking, refiner(asking, **{"k": DEFAULT_K, **known, **k}), options)


_REFINER = ("k", "gate", "coverage")
_TEN = "right among the first ten"
_NAMES: Mapping[str, str] = {"image": "pictures", "text": "texts", "both": "both"}


def _words(direction: Direction) -> str:
    asks, _, searched = direction.partition("->")
    return f"{_NAMES[asks]} search {_NAMES[searched]}"


@dataclass(frozen=True)
class _SideFound:
    """What one refined side of a direction gives: its line, and the gain (Q,) of each query."""

    direction: Direction
    side: Side
    line: Line
    gain: Figures
    task: Task
    refined: Task

    @property
    def change(self) -> Difference:
        """Against plain."""
        assert self.line.change is not None  # noqa: S101 - only plain lines have none
        return self.line.change

    @property
    def moved(self) -> Task:
        """The task with this side refined alone."""
        queries, candidates = self.refined.queries, self.refined.candidates
        if self.side == "both":
            return self.refined
        if self.side == self.task.queries.modality:
            return replace(self.task, queries=queries)
        return replace(self.task, candidates=candidates)


def _record(
    asking: Askers, reco: RefinesByPairs, lines: Sequence[Line], sides: Sequence[_SideFound], options: EvalOptions
) -> Record:
    things = asking.things
    best = [max(mine, key=lambda one: one.change.interval.mean) for mine in _by_direction(sides)]
    verdict = _decide(asking, best, reco.memory.calibration)
    shown = max(best, key=lambda one: abs(one.change.interval.mean))
    made = _ExampleTasks(asking, shown)
    hidden = sum(map(len, asking.hidden))
    memory = "; the other pairs are the memory" if asking.memory is not None else " to the memory"
    taken = "pictures of classes" if things.kind == "classes" else "pictures with captions"
    notes = [
        f"{things.name} was taken for {taken}: {len(things):,} pictures of {len(set(things.things)):,} things.",
        f"{len(asking.rows):,} pairs are queries{memory}. The query's own pair and copies of its picture are hidden "
        f"from it: {counted(hidden, 'pair')} in all.",
        *_losers(best),
        *_unique(things),
        *things.notes,
    ]
    return Record(
        title=f"What refinement changes on {Path(things.name).name or things.name}",
        command=options.command,
        setup={"pictures": f"{len(things):,}", **{str(name): str(value) for name, value in options.refine.items()}},
        verdict=verdict,
        metric="right first",
        lines=lines,
        notes=notes,
        examples=[made.of(row) for row in pick(shown.gain)],
    )


def _by_direction(sides: Sequence[_SideFound]) -> list[list[_SideFound]]:
    directions = dict.fromkeys(one.direction for one in sides)
    return [[one for one in sides if one.direction == direction] for direction in directions]


def _decide(asking: Askers, best: Sequence[_SideFound], calibration: Calibration | None) -> Verdict:
    """Refine what surely gains; captions taken as true give an estimate alone."""
    kept = [one for one in best if one.change.effect == "gains"]
    parts = [f"where {_words(one.direction)}, {_NAMES[one.side]} refined {_gained(one)}" for one in best]
    most = max(best, key=lambda one: abs(one.change.interval.mean))
    settings = {"refine": [f"{_NAMES[one.side]} where {_words(one.direction)}" for one in kept]} if kept else {}
    shares = "" if most.line.shares is None else most.line.shares.of_all("queries")
    told = f"{'; '.join(parts)} points of queries whose first result is right. Where {_words(most.direction)}, {shares}"
    labelled = asking.things.kind == "classes"
    few = all(one.change.effect == "too few" for one in best)
    more = max((one.change.more or 0 for one in best if one not in kept), default=0)
    rest = f" About {more:,} more queries would tell a difference of this size." if more and not kept else ""
    if not labelled:
        doubt = 0.0 if calibration is None else calibration.doubt
        head = "A doubtful estimate" if doubt >= DOUBTFUL else "An estimate"
        sentence = (
            f"{head} that takes captions as true: {told}. {doubt:.0%} of the memory's captions are doubtful. Before "
            f"you switch, compare real queries (reco compare), or give labels.{rest}"
        )
        return Verdict("not known", "titles", sentence, most.change, most.line.shares, settings)
    if few:
        few_of = f"fewer than {CHANGED} results are better or worse, or they are of too few classes"
        sentence = f"Not known: {few_of}: {told}.{rest}"
        return Verdict("not known", "labels", sentence, most.change, most.line.shares)
    head = "Switch" if kept else "Leave it as it is"
    sentence = f"{head}: {told}.{rest}"
    return Verdict("switch" if kept else "leave", "labels", sentence, most.change, most.line.shares, settings)


def _gained(one: _SideFound) -> str:
    words = {"gains": "gain", "loses": "lose", "no difference": "change by", "too few": "change too few results:"}
    return f"{words[one.change.effect]} {points(one.change.interval)}"


def _losers(best: Sequence[_SideFound]) -> list[str]:
    """The things of which most queries lose."""
    notes = []
    for one in best:
        lost = one.task.queries.labels[one.gain < 0]
        if len(lost):
            counts = np.bincount(lost)
            worst = [place for place in np.argsort(-counts, kind="stable")[:_NAMED].tolist() if counts[place]]
            named = ", ".join(f"{show(one.task.classes[place])} ({counts[place]})" for place in worst)
            losing = counted(len(lost), "query loses", "queries lose")
            notes.append(f"Where {_words(one.direction)}, {losing}, mainly for {named}.")
    return notes


def _unique(things: Things) -> list[str]:
    """A warning where there is hardly anything to learn."""
    if len(set(things.things)) < 0.9 * len(things):
        return []
    return [
        "Nearly every picture shows a thing of its own, so there is little to learn, and a picture that shows the same "
        "counts as wrong: name the column of what a picture shows (--group)."
    ]


@dataclass
class _ExampleTasks:
    """Makes examples of queries of one direction."""

    asking: Askers
    found: _SideFound
    thumbnails: Thumbnails = field(default_factory=Thumbnails)

    def of(self, row: int) -> Example:
        """One query, by its row in the task."""
        task, queries = self.found.task, self.found.task.queries
        name = task.classes[queries.labels[row]]
        picture = self._picture(row) if queries.modality == "image" else None
        plain, refined = (
            [self._hit(task, place, row) for place in nearest(one, row, _RESULTS)] for one in (task, self.found.moved)
        )
        return Example(f"{self.found.direction} {row}", name, plain, refined, picture, float(self.found.gain[row]))

    def _hit(self, task: Task, place: int, row: int) -> ShownHit:
        label = task.candidates.labels[place]
        picture = self._picture(place) if task.candidates.modality == "image" else None
        return ShownHit(task.classes[label], picture, bool(label == task.queries.labels[row]))

    def _picture(self, place: int) -> str | None:
        """Of a picture that asks, or is searched: these are the pairs that ask, in their order."""
        id_ = self.asking.things.pairs.ids[self.asking.rows[place]]
        image: Path | RemoteImage | None = self.asking.things.pictures.get(id_)
        return None if image is None else self.thumbnails.of(id_, image)


def refiner(asking: Askers, k: int, **options: Any) -> Refiner:
    """Refines by the memory of :func:`ask_itself`, calibrated for k neighbours."""
    assert asking.memory is not None  # noqa: S101 - the caller asked itself
    return Refiner(asking.memory.at(k), None, k=k, **options)
