"""Whether advised pairs gain more than others: makes docs/measurements/advise.md and its charts.

    python -m benchmarks.advise --data DIRECTORY --docs docs/measurements  # all sets; two hours on a shared core
    python -m benchmarks.advise --sets flags                                # one set, printed

A memory holds some pairs of half of the things; all other pairs can be added, in the order that `reco memory advise`
gives, in a random order, and in one that takes a picture of each thing first, at random. Others ask: other captions or
prompts, for other pictures, which no order has seen. DIRECTORY holds the vectors of realclip; drawings are encoded by
the shipped model. What was measured is kept in the cache, by set and seed: delete its folder `advise` after a change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reco_plugin.advise import Listed, MemoryAdvice, advise_listed
from reco_plugin.calibration import Calibration
from reco_plugin.calibration.learn import learn, witness
from reco_plugin.calibration.match import auc_of
from reco_plugin.evaluate.findings import Chart, Line, Section
from reco_plugin.evaluate.intervals import bootstrap
from reco_plugin.evaluate.study.memories import stream
from reco_plugin.files import whole_file
from reco_plugin.memory import open_memory
from reco_plugin.refine import Refiner, VectorMemory
from reco_plugin.types import Fingerprint, Records, Vectors

from .page import machine, table
from .realclip_gate import FINGERPRINT, load_imagenet
from .research import drawn, parser_of, publish, spread
from .subject import K

SEEDS = 5
STEPS = (0.0, 0.05, 0.1, 0.2, 0.3)
"""Share of the pairs that can be added."""
ENDS = (0.1, 0.3)
ORDERS = ("random", "one of each", "advised")
_DOUBLED, _UNJUDGED = 2, 0.25  # when a memory learns anew, as `PairMemory` does
Rows = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """Text queries, and pictures that are searched.

    Attributes:
        text: (Q, D).
        asked: (Q,) thing of each query.
        index: (M, D).
        shows: (M,) thing of each picture.
    """

    text: Vectors
    asked: Rows
    index: Vectors
    shows: Rows

    def hits(self, refiner: Refiner) -> Numbers:
        """100 where the first picture is right, else 0, (Q,)."""
        found = refiner.refine(self.text, modality="text").vectors @ self.index.T
        return np.asarray(100.0 * (self.shows[found.argmax(axis=1)] == self.asked))


@dataclass(frozen=True)
class Subject:
    """A set.

    Attributes:
        name: of the set.
        pairs: N, with their thing in the payload.
        thing: (N,) of each.
        task: what is asked.
        fingerprint: of the encoder.
    """

    name: str
    pairs: Records
    thing: Rows
    task: Task
    fingerprint: Fingerprint

    def start(self, seed: int) -> tuple[Rows, Rows]:
        """Half of the pairs of half of the things, which the memory holds, and all others."""
        rng = stream(seed, "the memory's things")
        things = np.unique(self.thing)
        held = rng.permutation(things)[: len(things) // 2]
        rows = [
            row
            for one in held
            for own in [np.flatnonzero(self.thing == one)]
            for row in rng.permutation(own)[: max(1, len(own) // 2)]
        ]
        inside = np.sort(np.array(rows, np.int64))
        return inside, np.setdiff1d(np.arange(len(self.thing)), inside)

    def listed(self, rows: Rows) -> Listed:
        """The list that advice is for: pairs that can be added."""
        things, number = np.unique(self.thing[rows], return_inverse=True)
        own = self.pairs.take(rows)
        names = [f"thing {one}" for one in things.tolist()]
        return Listed(names, number.astype(np.intp), own.ids, own.ids, own.text, own.image)


class Growing:
    """A memory that is added to, and learns as the product's does."""

    def __init__(self, subject: Subject, rows: Rows, like: Growing | None = None) -> None:
        """Hold these pairs, and learn from them, or take over what another one of the same pairs has learned."""
        self._subject, self._learned, pairs = subject, len(rows), subject.pairs.take(rows)
        self.store = open_memory(":memory:", subject.fingerprint, kind="exact")
        self.store.upsert(pairs)
        self.calibration: Calibration | None = learn(self.store, K) if like is None else like.calibration
        if like is not None:
            self.store.set_witnesses(pairs.ids, like.store.witnesses(pairs.ids))

    @property
    def memory(self) -> VectorMemory:
        """As it is now."""
        return VectorMemory(self.store, self.calibration)

    def add(self, rows: Rows) -> None:
        """Add pairs."""
        if not len(rows):
            return
        pairs = self._subject.pairs.take(rows)
        self.store.upsert(pairs)
        count = self.store.count()
        if count >= _DOUBLED * self._learned or self.store.count_unjudged() > _UNJUDGED * count:
            self.calibration, self._learned = learn(self.store, K), count
        elif self.calibration is not None:
            witness(self.store, self.calibration, pairs.ids, K, around=True)


@dataclass(frozen=True)
class Curves:
    """One seed.

    Attributes:
        hits: by order, (S, Q) hits at each step.
        auc: of the advised chances that search fails, for whether it did, at the start.
        said, failed: mean chance, and share that failed.
    """

    hits: dict[str, Numbers]
    auc: float
    said: float
    failed: float

    def area(self, order: str, against: str, end: float) -> Numbers:
        """Points (Q,) between two curves, averaged over the share that was added, up to an end."""
        at = np.array([step for step in STEPS if step <= end])
        difference = (self.hits[order] - self.hits[against])[: len(at)]
        return np.asarray(np.trapezoid(difference, at, axis=0) / end)


def measure_once(subject: Subject, seed: int, path: Path) -> Curves:
    """Measure, or read what an earlier run has measured."""
    if path.is_file():
        with np.load(path) as stored:
            hits = {order: stored[order] for order in ORDERS}
            return Curves(hits, *(float(stored[name]) for name in ("auc", "said", "failed")))
    made = measure(subject, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, auc=made.auc, said=made.said, failed=made.failed, **made.hits)  # type: ignore[arg-type]
    return made


def measure(subject: Subject, seed: int) -> Curves:
    """Add in each order, and ask at each step."""
    inside, left = subject.start(seed)
    begun = Growing(subject, inside)
    listed = subject.listed(left)
    advice = advise_listed(begun.memory, listed, k=K, group="thing")
    row_of = {id_: row for row, id_ in zip(left.tolist(), listed.ids, strict=True)}
    orders = {
        "random": stream(seed, "random order").permutation(left),
        "one of each": one_of_each(subject, inside, stream(seed, "one of each").permutation(left)),
        "advised": np.array([row_of[id_] for id_ in advice.order], np.int64),
    }
    before = subject.task.hits(Refiner(begun.memory, None, k=K))
    found = {
        name: np.stack([before, *grow(subject, Growing(subject, inside, begun), order)])
        for name, order in orders.items()
    }
    return Curves(found, *forecast(subject, advice, before))


def one_of_each(subject: Subject, inside: Rows, shuffled: Rows) -> Rows:
    """Pairs of the things with the fewest before them."""
    seen = dict(zip(*(side.tolist() for side in np.unique(subject.thing[inside], return_counts=True)), strict=True))
    place = []
    for thing in subject.thing[shuffled].tolist():
        place.append(seen.get(thing, 0))
        seen[thing] = place[-1] + 1
    return shuffled[np.argsort(place, kind="stable")]


def grow(subject: Subject, memory: Growing, order: Rows) -> list[Numbers]:
    """Hits at each step after the first."""
    found, added = list[Numbers](), 0
    for step in STEPS[1:]:
        end = round(step * len(order))
        memory.add(order[added:end])
        added = end
        found.append(subject.task.hits(Refiner(memory.memory, None, k=K)))
    return found


def forecast(subject: Subject, advice: MemoryAdvice, hits: Numbers) -> tuple[float, float, float]:
    """AUC of the chances that search fails, their mean, and the share that failed, of queries for listed things."""
    said = {int(one.name.split()[1]): one.fails for one in advice.things}
    asked = subject.task.asked
    here = np.array([said.get(one) is not None for one in asked.tolist()])
    chance = np.array([said[one] for one in asked[here].tolist()], np.float64)
    failed = hits[here] == 0.0
    return auc_of(chance, failed), float(chance.mean()), float(failed.mean())


def imagenet(data: Path, _cache: Path) -> Subject:
    """1,000 classes, three pictures with one caption each; other prompts ask for a fourth."""
    sets, of = load_imagenet(data), np.repeat(np.arange(1000), 3)
    pairs = Records(
        [f"{row:05d}" for row in range(3000)],
        sets.image[:, :3].reshape(3000, -1),
        sets.caption[of],
        [{"thing": f"thing {one}"} for one in of.tolist()],
    )
    classes = np.arange(1000)
    task = Task(sets.prompt, classes, sets.image[:, 3], classes)
    return Subject("ImageNet, real CLIP", pairs, of, task, FINGERPRINT)


def _drawn(which: str, name: str) -> Callable[[Path, Path], Subject]:
    """Drawings of some styles; worded captions ask for drawings in others.

    Of the things that the encoder has met, at most as many are taken as of those that it has not.
    """

    def made(_data: Path, cache: Path) -> Subject:
        data, fingerprint = drawn(which, cache)
        split = np.array(data.splits)
        new = np.flatnonzero(split == "unseen") if (split == "seen").any() else np.arange(len(split))
        met = stream(0, "things that the encoder has met").permutation(np.flatnonzero(split == "seen"))[: len(new)]
        held, asks = (np.isin(of, np.concatenate([new, met])) for of in (data.memory_entity, data.truth))
        thing, truth, own = data.memory_entity[held], data.truth[asks], data.memory.take(np.flatnonzero(held))
        payloads = [{"thing": f"thing {one}"} for one in thing.tolist()]
        task = Task(data.queries.text[asks], truth, data.queries.image[asks], truth)
        return Subject(name, Records(own.ids, own.image, own.text, payloads), thing, task, fingerprint)

    return made


SETS: dict[str, Callable[[Path, Path], Subject]] = {
    "flags": _drawn("flags", "flags, mini CLIP"),
    "imagenet": imagenet,
    "emoji": _drawn("emoji", "emoji, mini CLIP"),
}


def areas(subject: Subject, found: Sequence[Curves]) -> list[list[str]]:
    """Rows of the first table."""
    rows = []
    things = np.tile(subject.task.asked, len(found))
    for end in ENDS:
        cells = [subject.name if end == ENDS[0] else "", f"{end:.0%}"]
        for against in ORDERS[:2]:
            interval = bootstrap(np.concatenate([one.area("advised", against, end) for one in found]), things)
            by_seed = [float(one.area("advised", against, end).mean()) for one in found]
            cells += [
                f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]",
                f"{min(by_seed):+.2f} to {max(by_seed):+.2f}",
            ]
        rows.append(cells)
    return rows


def levels(subject: Subject, found: Sequence[Curves]) -> list[list[str]]:
    """Rows of the second table: R@1 at each step."""
    rows = []
    for order in ORDERS:
        cells = [spread(each) for each in np.array([one.hits[order].mean(axis=1) for one in found]).T]
        rows.append([subject.name if order == ORDERS[0] else "", order, *cells])
    return rows


def told(subject: Subject, found: Sequence[Curves]) -> list[str]:
    """A row of the third table: how good chances are."""
    auc, said, failed = (np.array([getattr(one, name) for one in found]) for name in ("auc", "said", "failed"))
    return [
        subject.name, spread(auc, 3), f"{100 * said.mean():.1f}", f"{100 * failed.mean():.1f}",
    ]  # fmt: skip


def chart(subject: Subject, found: Sequence[Curves]) -> Chart:
    """R@1 by the share that was added, for each order."""
    lines = [
        Line(name=order, y=tuple((np.mean([one.hits[order].mean(axis=1) for one in found], axis=0) / 100).tolist()))
        for order in ORDERS
    ]
    title = f"{subject.name}: R@1 of texts, by the pairs that were added"
    return Chart(title=title, x=STEPS, x_title="share of the pairs", y_title="R@1", lines=tuple(lines))


def main() -> None:
    """Measure, print, and write the page's blocks and charts."""
    parser = parser_of(__doc__, "advise", data="folder with the vectors of realclip", sets=SETS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    blocks: dict[str, list[list[str]]] = {"areas": [], "levels": [], "told": []}
    charts = list[Chart]()
    for key in given.sets:
        subject, found = SETS[key](given.data, given.cache), list[Curves]()
        for seed in range(given.seeds):
            found.append(measure_once(subject, seed, given.cache / "advise" / f"{key}-{seed}.npz"))
            print(subject.name, seed, *areas(subject, found), flush=True)
        blocks["areas"] += areas(subject, found)
        blocks["levels"] += levels(subject, found)
        blocks["told"].append(told(subject, found))
        charts.append(chart(subject, found))
    made = {
        "areas": table(AREAS, blocks["areas"], left=2),
        "levels": table(("set", "order", *(f"{step:.0%}" for step in STEPS)), blocks["levels"], left=2),
        "told": table(TOLD, blocks["told"]),
        "machine": f"{given.seeds} seeds. {machine('numpy')}",
    }
    section = Section(key="curves", title="Curves", about="", charts=tuple(charts))
    publish(given.docs, "advise", made, [("advise", section)])


AREAS = (
    "set", "up to", "points over a random order", "seeds", "points over one of each first, at random", "seeds",
)  # fmt: skip
TOLD = ("set", "AUC of the chances", "mean chance to fail, %", "failed, %")


if __name__ == "__main__":
    main()
