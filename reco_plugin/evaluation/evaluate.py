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
from typing import Any, TypeAlias, Unpack, cast

import numpy as np
import numpy.typing as npt

from ..defaults import DEFAULT_K
from ..errors import DataError
from ..fusion.exact_scores import Refines
from ..fusion.refiner import Refiner
from ..memory import Searches
from ..options import RefineHow
from ..reco import Reco
from ..sources.images import RemoteImage
from ..types import Fingerprint
from ..values import counted
from .labelled_set import Things
from .memories import RamMemory, draw_asking, find_copies, ram_memory
from .ranking import SIDES, Side, Task, TaskItems, measure_sides, nearest, refine_task
from .record import Basis, Example, Line, Record, ShownHit, Verdict, pick
from .report import Thumbnails
from .statistics import CHANGED, Difference, Figures, bootstrap, compare_pairs, points
from .verdict import whether_to_refine

Direction: TypeAlias = str
"""``text->image``, ``image->text``, ``image->image``."""
MOST = 4000
"""Pairs that ask: more would narrow intervals by little, and take longer."""
_RIVALS = 10_000  # things that nobody asks for whose texts compete, at most
MEASURED: Mapping[Direction, Sequence[Side]] = {
    "text->image": ("text",),
    "image->text": SIDES,
    "image->image": ("image",),
}
"""Sides that are refined: an index of pictures stays as it is, and names of classes may be refined as one set."""
_RESULTS = 6  # of each side of an example


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
        keys = [(label, text.tobytes()) for label, text in zip(labels.tolist(), pairs.text, strict=True)]
        place = {key: number for number, key in enumerate(dict.fromkeys(keys))}  # of each text of a thing
        first = np.unique([place[key] for key in keys], return_index=True)[1]
        own: list[set[str]] = [set() for _ in first]
        for ids, key in zip(hidden, keys, strict=True):
            own[place[key]] |= ids
        images = TaskItems(pairs.image, "image", labels, hidden, ids=pairs.ids)
        words = [self.things.texts[row] for row in rows[first].tolist()]
        texts = TaskItems(pairs.text[first], "text", labels[first], own, words)
        asked = set(names.tolist())
        rivals = {thing: row for row, thing in enumerate(self.things.things) if thing not in asked}
        far = list(rivals.values())[:_RIVALS]
        compete = TaskItems(
            np.concatenate([texts.vectors, self.things.pairs.text[far]]),
            "text",
            np.concatenate([texts.labels, len(names) + np.arange(len(far))]),
            [*own, *[set[str]()] * len(far)],
        )
        tasks = {
            "text->image": Task(texts, images, labels[first], tuple(names.tolist())),
            "image->text": Task(images, compete, labels, (*names.tolist(), *rivals)),
        }
        shown = np.zeros(len(rows), np.bool_)  # the first picture of a thing is searched, its others search
        shown[np.unique(labels, return_index=True)[1]] = True
        if not shown.all():
            asks = np.flatnonzero(~shown)
            mine, others = pairs.take(asks), pairs.take(shown)
            queries = TaskItems(mine.image, "image", labels[asks], [hidden[row] for row in asks.tolist()], ids=mine.ids)
            among = TaskItems(others.image, "image", labels[shown], ids=others.ids)
            tasks["image->image"] = Task(queries, among, labels[asks], tuple(names.tolist()))
        return tasks


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


def evaluate(asking: Askers, reco: Refines, *, seed: int = 0, command: str = "", **how: Unpack[RefineHow]) -> Record:
    """Measure each direction, plain and with each of its sides refined.

    Args:
        asking: who asks whom.
        reco: refines by the memory that is asked, with the settings of the service.
        seed: of intervals.
        command: that makes the record again.
        how: options of the refinement.
    """
    sides = list[_SideFound]()
    unknown = asking.tasks(known=False) if asking.same else {}
    for direction, task in asking.tasks().items():
        asked = MEASURED[direction]
        refined = refine_task(reco, task, asked, **how)
        measured = measure_sides(task, refined, asked)
        lost: dict[str, Figures] = {}
        if direction in unknown:
            hidden = refine_task(reco, unknown[direction], asked, **how)
            lost = {side: one.top(1) for side, one in measure_sides(unknown[direction], hidden, asked).items()}
        plain = measured["frozen"]
        for side in asked:
            one = measured[side]
            gain = one.top(1) - plain.top(1)
            without = None if not lost else bootstrap(lost[side] - lost["frozen"], task.groups, seed=seed)
            line = Line(
                f"{_words(direction)}, {_NAMES[side]} refined",
                len(task),
                {"plain": float(plain.top(1).mean()), "refined": float(one.top(1).mean())},
                compare_pairs(gain, task.groups, tried=len(asked), seed=seed),
                float((gain > 0).mean()),
                float((gain < 0).mean()),
                unknown=without,
            )
            sides.append(_SideFound(direction, side, line, gain, task, refined))
    return _record(asking, sides, command, how)


def evaluate_itself(
    things: Things, reco: Reco | None = None, *, seed: int = 0, command: str = "", **how: Unpack[RefineHow]
) -> tuple[Askers, Record]:
    """:func:`evaluate` of a source that asks itself, with who asks whom.

    Args:
        things: the source.
        reco: whose empty memory takes the pairs that do not ask; None: vectors of an encoder that is not known.
        seed: of the draw of who asks, and of intervals.
        command: that makes the record again.
        how: options of the refinement.
    """
    if reco is None:
        vectors = things.pairs.image
        fingerprint = Fingerprint("vectors", hashlib.sha256(vectors.tobytes()).hexdigest(), vectors.shape[1])
    else:
        fingerprint = reco.manifest.fingerprint
    asking = ask_itself(things, fingerprint, seed)
    assert asking.memory is not None  # noqa: S101 - it asks itself
    if reco is not None:
        reco.memory.add_records([asking.memory.pairs])
    refines = reco or refiner(asking, how.get("k") or DEFAULT_K)
    return asking, evaluate(asking, refines, seed=seed, command=command, **how)


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
        assert self.line.change is not None  # noqa: S101 - all lines have one
        return self.line.change

    @property
    def moved(self) -> Task:
        """The task with this side refined alone."""
        if self.side == "both":
            return self.refined
        if self.side == self.task.queries.modality:
            return replace(self.task, queries=self.refined.queries)
        return replace(self.task, candidates=self.refined.candidates)


def _record(asking: Askers, sides: Sequence[_SideFound], command: str, how: RefineHow) -> Record:
    things = asking.things
    best = [max(mine, key=lambda one: one.change.interval.mean) for mine in _by_direction(sides)]
    shown = max(best, key=lambda one: abs(one.change.interval.mean))
    made = _ExampleTasks(asking, shown)
    hidden = sum(map(len, asking.hidden))
    memory = "; the other pairs are the memory" if asking.memory is not None else " to the memory"
    taken = "pictures of classes" if things.kind == "classes" else "pictures with captions"
    notes = [
        f"{things.name} was taken for {taken}: {len(things):,} pictures of {len(set(things.things)):,} things.",
        f"{len(asking.rows):,} pairs are queries{memory}. The query's own pair and copies of its picture are hidden "
        f"from it: {counted(hidden, 'pair')} in all.",
        *_unique(things),
        *things.notes,
    ]
    return Record(
        title=f"What refinement changes on {Path(things.name).name or things.name}",
        command=command,
        setup={"pictures": f"{len(things):,}", **{str(name): str(value) for name, value in how.items()}},
        verdicts=[_decide(one, things.kind == "classes") for one in best],
        metric="Right result first",
        lines=[one.line for one in sides],
        notes=notes,
        examples=[made.of(row) for row in pick(shown.gain)],
    )


def _by_direction(sides: Sequence[_SideFound]) -> list[list[_SideFound]]:
    directions = dict.fromkeys(one.direction for one in sides)
    return [[one for one in sides if one.direction == direction] for direction in directions]


def _decide(one: _SideFound, labelled: bool) -> Verdict:
    """Whether to refine in a direction, by the side that gains most."""
    whose, values = f"{_NAMES[one.side]} where {_words(one.direction)}", one.line.values
    figures = f"{points(one.change.interval)} points on {len(one.gain):,} queries"
    taken = "The captions are taken as true: a wrong one counts as right, too."
    firsts, basis = (values["plain"], values["refined"]), "labels" if labelled else "titles"
    return whether_to_refine(whose, one.change, firsts, figures, cast(Basis, basis), taken)


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
        picture = self._picture(queries, row)
        plain, refined = (
            [self._hit(task, place, row) for place in nearest(one, row, _RESULTS)] for one in (task, self.found.moved)
        )
        return Example(f"{self.found.direction} {row}", name, plain, refined, picture, float(self.found.gain[row]))

    def _hit(self, task: Task, place: int, row: int) -> ShownHit:
        label = task.candidates.labels[place]
        picture = self._picture(task.candidates, place)
        return ShownHit(task.classes[label], picture, bool(label == task.queries.labels[row]))

    def _picture(self, items: TaskItems, place: int) -> str | None:
        """Of a picture that asks, or is searched."""
        id_ = items.ids[place] if items.ids else ""
        image: Path | RemoteImage | None = self.asking.things.pictures.get(id_)
        return None if image is None else self.thumbnails.of(id_, image)


def refiner(asking: Askers, k: int, **options: Any) -> Refiner:
    """Refines by the memory of :func:`ask_itself`, calibrated for k neighbours."""
    assert asking.memory is not None  # noqa: S101 - the caller asked itself
    return Refiner(asking.memory.at(k), None, k=k, **options)
