"""Reliability per pair as a memory grows, thins out or goes wrong: makes docs/measurements/trust.md and its charts.

    python -m benchmarks.trust --docs docs/measurements

Emoji under the shipped encoder (see docs/measurements/quickstart.md for the splits); prompts of each group are one set.
Every line is one memory, its calibration learned from its own pairs without labels. Nothing is chosen here. Takes about
fifteen minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from reco_plugin.calibration.calibrate import calibrate
from reco_plugin.calibration.match import auc_of
from reco_plugin.evaluate.findings import Chart, Column, Line, Section, Table
from reco_plugin.evaluate.intervals import Interval, bootstrap
from reco_plugin.evaluate.measure import measure_sides, refine_task
from reco_plugin.evaluate.study.memories import ram_memory, stream
from reco_plugin.evaluate.task import Task, TaskItems
from reco_plugin.quickstart.dataset import EntitySplit
from reco_plugin.refine import Refiner, VectorMemory
from reco_plugin.report import markdown_section
from reco_plugin.types import Caution

from .research import parser_of, publish, subject_of
from .subject import K, Subject, with_traded_captions

GROUPS: tuple[EntitySplit, ...] = ("unseen", "seen")
SIDES = ("image", "text", "both")
SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
CAUTIONS = (0.0, 0.25, 0.5, 0.65, 0.8)


@dataclass(frozen=True)
class Protocol:
    """A row of memories along one axis."""

    key: str
    title: str
    about: str
    axis: str
    memories: tuple[tuple[float, npt.NDArray[np.int64], float], ...]  # place on the axis, rows, share of wrong captions


class Growth:
    """Measures memories of some pairs of a subject."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.entity = subject, subject.data.memory_entity

    def memory(self, rows: npt.NDArray[np.int64], wrong: float) -> VectorMemory:
        """A memory of some pairs, a share of which have traded their captions."""
        pairs = self.subject.data.memory.take(rows)
        return ram_memory(with_traded_captions(pairs, wrong) if wrong else pairs, self.subject.fingerprint).at(K)

    def gains(self, memory: VectorMemory, caution: Caution | float = "balanced") -> dict[str, Interval]:
        """Points over frozen, and the frozen top-1, by ``group side``, with intervals over entities."""
        found = dict[str, Interval]()
        for group in GROUPS:
            changes, entity = self.changes(memory, group, caution)
            found |= {f"{group} {side}": bootstrap(one, entity) for side, one in changes.items()}
        return found

    def changes(
        self, memory: VectorMemory, group: EntitySplit, caution: Caution | float = "balanced"
    ) -> tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.int64]]:
        """Of each query of a group: whether plain CLIP is right (1 or 0), the difference by side, and its entity."""
        refiner, data = Refiner(memory, None, k=K, caution=caution), self.subject.data
        chosen = np.flatnonzero(np.array(data.splits) == group)
        asking = np.isin(data.truth, chosen)
        queries = TaskItems(data.queries.image[asking], "image", data.truth[asking])
        task = Task(queries, TaskItems(data.prompts[chosen], "text", chosen), data.truth[asking])
        sides = measure_sides(task, [refine_task(refiner, task)])
        hits = {side: sides[side].top(1).astype(np.float64) for side in ("frozen", *SIDES)}
        return {side: one - hits["frozen"] * (side != "frozen") for side, one in hits.items()}, data.truth[asking]

    def protocols(self) -> Iterator[Protocol]:
        """All of them."""
        data, everything = self.subject.data, np.arange(len(self.entity))
        order = stream(0, "entities join").permutation(len(data.names))
        joined = [np.flatnonzero(np.isin(self.entity, order[: round(share * len(order))])) for share in SHARES]
        yield Protocol(
            "coverage",
            "A memory that grows",
            "Entities join in random order, each with all of its pairs.",
            "share of the entities in the memory",
            tuple((share, rows, 0.0) for share, rows in zip(SHARES, joined, strict=True)),
        )
        yield Protocol(
            "noise",
            "Wrong captions",
            "All pairs; a share of them have traded their captions.",
            "share of wrong captions",
            tuple((share, everything, share) for share in SHARES[:-1]),
        )
        place = np.zeros(len(self.entity), np.int64)
        for entity in range(len(data.names)):
            own = np.flatnonzero(self.entity == entity)
            place[own] = stream(entity, "pairs of an entity").permutation(len(own))
        yield Protocol(
            "pairs",
            "Few pairs per entity",
            "The first pairs of each entity in random order; the styles are mixed.",
            "pairs per entity, at most",
            tuple((float(most), np.flatnonzero(place < most), 0.0) for most in (1, 2, 4)),
        )
        tail = np.minimum(6, np.floor(6 / (1 + stream(0, "long tail").permutation(len(data.names)) / 100)) + 1)
        yield Protocol(
            "tail",
            "A long tail",
            "A tenth of the entities has four to six pairs, most have one or two.",
            "one memory",
            ((0.0, np.flatnonzero(place < tail[self.entity]), 0.0),),
        )


def look_alikes(growth: Growth) -> Table:
    """All pairs, by how much an entity's pictures look like those of its nearest other entity of the group."""
    data, full = growth.subject.data, growth.memory(np.arange(len(growth.entity)), 0.0)
    looks = np.zeros((len(data.names), data.memory.image.shape[1]))
    np.add.at(looks, growth.entity, data.memory.image)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    names = ("most like another", "between", "least like any other")
    rows: list[dict[str, str | float]] = [{"name": name} for name in names]
    for group in GROUPS:
        changes, entity = growth.changes(full, group)
        own = np.unique(entity)
        alike = looks[own] @ looks[own].T
        np.fill_diagonal(alike, -1.0)
        order = np.argsort(-alike.max(axis=1), kind="stable")
        for row, third in zip(rows, np.array_split(own[order], 3), strict=True):
            asked = np.isin(entity, third)
            row |= {f"{group} {side}": float(one[asked].mean()) for side, one in changes.items()}
    return Table(title="Look-alikes", columns=_columns("third of the entities"), rows=tuple(rows))


def styles(growth: Growth) -> Iterator[Table]:
    """One pair per entity, in one style: of all entities, and of those alone that the encoder does not know."""
    style = np.array([payload["style"] for payload in growth.subject.data.memory.payloads])
    new = growth.subject.split_of_pair == "unseen"
    for title, held in (("One pair per entity, one style", np.ones_like(new)), ("Of unseen entities alone", new)):
        rows = []
        for name in sorted(set(style)):
            memory = growth.memory(np.flatnonzero((style == name) & held), 0.0)
            rows.append({"name": f"{name} ({memory.store.count():,} pairs)", **growth.gains(memory)})
        yield Table(title=title, columns=_columns("style"), rows=tuple(rows))


def told_apart(growth: Growth) -> Table:
    """How well reliability tells pairs with their own captions from pairs that have traded theirs."""
    pairs, unseen = growth.subject.data.memory, growth.subject.split_of_pair == "unseen"
    columns = [Column(key="name", title="share of wrong captions")]
    columns += [
        Column(key=group, title=title, kind="number")
        for group, title in (("unseen", "AUC among unseen entities"), ("others", "AUC among all others"))
    ]
    rows = []
    for share in (0.1, 0.3, 0.5):
        told = with_traded_captions(pairs, share)
        learned = calibrate(told.image, told.text, k=K)
        assert learned is not None  # of thousands of pairs
        reliability = learned.state.reliability.of(learned.witnesses)
        wrong = (told.text != pairs.text).any(axis=1)
        groups = {"unseen": unseen, "others": ~unseen}
        rows.append(
            {"name": f"{share:g}"} | {name: auc_of(reliability[one], ~wrong[one]) for name, one in groups.items()}
        )
    return Table(title="Wrong captions, told from right ones", columns=tuple(columns), rows=tuple(rows))


def unseen_alone(growth: Growth) -> Table:
    """A memory that holds only what the encoder does not know, by caution."""
    memory = growth.memory(growth.subject.rows(["unseen"]), 0.0)
    rows = tuple({"name": name, **growth.gains(memory, name)} for name in get_args(Caution))
    return Table(title="A memory of unseen entities alone", columns=_columns("caution"), rows=rows)


def frontier(growth: Growth) -> tuple[Table, Chart]:
    """The same query with and without an answer, as caution grows."""
    full = growth.memory(np.arange(len(growth.entity)), 0.0)
    without = growth.memory(growth.subject.rows(["seen", "fusion", "dev"]), 0.0)
    rows, known, unknown = [], [], []
    for caution in CAUTIONS:
        gain, loss = growth.gains(full, caution), growth.gains(without, caution)
        rows.append({"name": f"{caution:g}", "gain": gain["unseen image"], "loss": loss["unseen image"]})
        known.append(gain["unseen image"])
        unknown.append(loss["unseen image"])
    columns = (
        Column(key="name", title="share assumed without an answer"),
        Column(key="gain", title="unseen entities in the memory", kind="points"),
        Column(key="loss", title="the same, not in the memory", kind="points"),
    )
    chart = Chart(
        title="Caution: image queries for unseen emoji",
        x_title="share of queries assumed to have no answer",
        y_title="points over plain CLIP",
        x=CAUTIONS,
        lines=(Line.of("in the memory", known), Line.of("not in the memory", unknown)),
        y_kind="points",
    )
    return Table(title="Caution", columns=columns, rows=tuple(rows)), chart


def _columns(first: str) -> tuple[Column, ...]:
    found = [Column(key="name", title=first)]
    for group in GROUPS:
        found.append(Column(key=f"{group} frozen", title=f"{group}, frozen", kind="percent"))
        found += [Column(key=f"{group} {side}", title=f"{group}, {side}", kind="points") for side in SIDES]
    return tuple(found)


def sections(growth: Growth) -> Iterator[Section]:
    """One section per protocol."""
    for protocol in growth.protocols():
        found = [growth.gains(growth.memory(rows, wrong)) for _, rows, wrong in protocol.memories]
        names = [f"{at:g} ({len(rows):,} pairs)" for at, rows, _ in protocol.memories]
        rows = [{"name": name, **one} for name, one in zip(names, found, strict=True)]
        charts = [
            Chart(
                title=f"{protocol.title}: {group} emoji",
                x_title=protocol.axis,
                y_title="points over plain CLIP",
                x=tuple(at for at, _, _ in protocol.memories),
                lines=tuple(Line.of(side, [one[f"{group} {side}"] for one in found]) for side in SIDES),
                y_kind="points",
            )
            for group in GROUPS
            if len(protocol.memories) > 1
        ]
        table = Table(title=protocol.title, columns=_columns(protocol.axis), rows=tuple(rows))
        yield Section(
            key=protocol.key, title=protocol.title, about=protocol.about, tables=(table,), charts=tuple(charts)
        )
    table, chart = frontier(growth)
    yield Section(
        key="caution",
        title="Caution",
        about="The knob `caution` as a share. A query cannot tell whether its entity is in the memory.",
        tables=(table,),
        charts=(chart,),
    )
    yield Section(
        key="alone",
        title="Only what the encoder does not know",
        about="The memory holds the pairs of the unseen entities alone; queries for seen ones have no answer in it.",
        tables=(unseen_alone(growth),),
    )
    yield Section(
        key="reliability",
        title="Which captions are wrong",
        about="Some of the pairs have traded their captions; the memory learns from them as they are.",
        tables=(told_apart(growth),),
    )
    yield Section(
        key="alike",
        title="Entities that look alike",
        about="All pairs; each entity by how near the mean of its pictures is to that of another one of its group.",
        tables=(look_alikes(growth),),
    )
    yield Section(
        key="styles",
        title="One style",
        about="One pair per entity: a text moves only as far as CLIP does not know its pair by itself.",
        tables=tuple(styles(growth)),
    )


def main() -> None:
    """Measure and write the page."""
    given = parser_of(__doc__, "trust", docs_needed=True).parse_args()
    found = []
    for section in sections(Growth(subject_of("emoji", given.cache))):
        print(markdown_section(section, prefix=None), flush=True)
        found.append(section)
    parts = [markdown_section(section, prefix=f"trust/{section.key}") for section in found]
    publish(given.docs, "trust", {"memories": "\n\n".join(parts)}, [(section.key, section) for section in found])


if __name__ == "__main__":
    main()
