"""What rejections cure, and what false ones cost: makes docs/measurements/rejections.md.

    python -m benchmarks.rejections --data DIRECTORY --docs docs/measurements  # five minutes on a core
    python -m benchmarks.rejections --data DIRECTORY --sets dev                # one set, printed

A memory holds things that the encoder does not know, alone; pictures of things that it does know are asked, too, and
look-alikes are moved. People look at other pictures of those, five times in turn: of each known thing one picture whose
first answer is wrong, if there is one, for which they reject the pair that weighed most. So each known thing is
rejected five times at most. Then all is asked again. Of false clicks, that share of all is on answers that are right:
on other pictures of the new things (the worst), or on any. DIRECTORY holds ``clip_vit_b32_oxford_pets.npz`` and
``clip_vit_b32_imagenet.npz`` of benchmarks.presence; the drawings come with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reco_plugin.calibration.feedback import Feedback, Opinion
from reco_plugin.evaluate.study.memories import stream
from reco_plugin.quickstart.dataset import EntitySplit
from reco_plugin.refine import Refiner, VectorMemory
from reco_plugin.types import Caution, Refinement, Vectors

from .page import table
from .presence import BREEDS, pictures_of_pets
from .realclip_gate import load_imagenet
from .research import drawn as drawn_set
from .research import memory_of, parser_of, publish, spread
from .subject import K

ORDERS, ROUNDS, FALSE = 3, 5, 0.3
CAUTIONS: tuple[Caution, ...] = ("balanced", "bold")
_EACH = 32  # pairs of a breed
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Asks:
    """Pictures (Q, D), and the row of the candidate that each shows, (Q,)."""

    image: Vectors
    truth: Rows

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Asks:
        """Some of them."""
        return Asks(self.image[rows], self.truth[rows])


@dataclass(frozen=True)
class World:
    """A memory of new things alone, and who asks.

    Attributes:
        name: for people.
        memory: with its calibration.
        candidates: (C, D) plain prompts of known and new things.
        known, new: pictures that are asked, none of the memory.
        looked: other pictures of known things, which people look at.
        clicked: other pictures of new things, for false clicks.
    """

    name: str
    memory: VectorMemory
    candidates: Vectors
    known: Asks
    new: Asks
    looked: Asks
    clicked: Asks

    def ask(self, asks: Asks, caution: Caution, feedback: Feedback | None, *, explain: bool = False) -> Refinement:
        """Refine what is asked after some feedback."""
        calibration = self.memory.calibration
        assert calibration is not None
        memory = replace(self.memory, calibration=replace(calibration, feedback=feedback))
        return Refiner(memory, None, k=K, caution=caution).refine(asks.image, modality="image", explain=explain)

    def right(self, asks: Asks, refined: Vectors, among: Rows | None = None) -> npt.NDArray[np.bool_]:
        """Whether the first of all candidates, or of some, is right, (Q,)."""
        some = np.arange(len(self.candidates)) if among is None else among
        return np.asarray(some[(refined @ self.candidates[some].T).argmax(axis=1)] == asks.truth)

    def points(self, asks: Asks, caution: Caution, feedback: Feedback | None) -> tuple[float, float]:
        """Points over plain queries, among the candidates of their own group, and among all."""
        own, refined = np.unique(asks.truth), self.ask(asks, caution, feedback).vectors
        change = [
            100.0 * (self.right(asks, refined, among).mean() - self.right(asks, asks.image, among).mean())
            for among in (own, None)
        ]
        return float(change[0]), float(change[1])


def heaviest(found: Refinement) -> Vectors:
    """The answer of the pair that weighs most, for each query (B, D)."""
    assert found.neighbours is not None
    assert found.weights is not None
    return np.asarray(found.neighbours.vectors[np.arange(len(found.vectors)), found.weights.argmax(axis=1)])


def said(queries: Vectors, answers: Vectors) -> Feedback:
    """Rejections."""
    return Feedback(tuple(Opinion("", "image", None, False, "", "") for _ in queries), queries, answers)


def reject(world: World, caution: Caution, order: int) -> Feedback:
    """What people reject, in turns: each sees what was said before."""
    rng = stream(order, "whose picture is looked at")
    feedback = Feedback.empty(world.candidates.shape[1])
    for _ in range(ROUNDS):
        found = world.ask(world.looked, caution, feedback, explain=True)
        wrong = rng.permutation(np.flatnonzero(~world.right(world.looked, found.vectors)))
        rows = wrong[np.unique(world.looked.truth[wrong], return_index=True)[1]]
        feedback = feedback.joined(said(world.looked.image[rows], heaviest(found)[rows]))
    return feedback


def with_false(world: World, caution: Caution, feedback: Feedback, order: int, *, worst: bool) -> Feedback:
    """The feedback, a share of which is on right answers instead."""
    rng = stream(order, "false clicks")
    shown = world.clicked
    if not worst:
        shown = Asks(
            np.concatenate([shown.image, world.looked.image]), np.concatenate([shown.truth, world.looked.truth])
        )
    found = world.ask(shown, caution, None, explain=True)
    right = np.flatnonzero(world.right(shown, found.vectors))
    false = round(FALSE * len(feedback))
    rows, dropped = rng.choice(right, false), rng.permutation(len(feedback))[:false]
    honest = feedback.only(~np.isin(np.arange(len(feedback)), dropped))
    return honest.joined(said(shown.image[rows], heaviest(found)[rows]))


def drawn(new: EntitySplit) -> Callable[[Path, Path], Iterator[World]]:
    """Emoji: a memory of a split that the encoder has not met, and those that it has."""

    def worlds(_data: Path, cache: Path) -> Iterator[World]:
        data, fingerprint = drawn_set("emoji", cache)
        split = np.array(data.splits)
        pair, query = split[data.memory_entity], split[data.truth]
        asks, pictures = Asks(data.queries.image, data.truth), Asks(data.memory.image, data.memory_entity)
        fresh, turn = asks.take(query == new), np.arange(int((query == new).sum())) % 2
        used = np.flatnonzero(np.isin(split, ("seen", new)))
        place = np.full(len(split), -1)
        place[used] = np.arange(len(used))
        four = (asks.take(query == "seen"), fresh.take(turn == 0), pictures.take(pair == "seen"), fresh.take(turn == 1))
        known, asked, looked, clicked = (Asks(one.image, place[one.truth]) for one in four)
        name = f"emoji, {'development' if new == 'dev' else new} entities"
        for order in range(ORDERS):
            rows = stream(order, "order of the pairs").permutation(np.flatnonzero(pair == new))
            memory = memory_of(data.memory.image[rows], data.memory.text[rows], fingerprint)[0]
            yield World(name, memory, data.prompts[used], known, asked, looked, clicked)

    return worlds


def breeds(data: Path, _cache: Path) -> Iterator[World]:
    """Pets under real CLIP: half of the breeds go by names of things, which CLIP does not know them by."""
    sets, (image, own) = load_imagenet(data), pictures_of_pets(data)
    for order in range(ORDERS):
        rng = stream(order, "renamed breeds")
        new = np.sort(rng.permutation(len(own))[: len(own) // 2])
        names = np.array(list(BREEDS.values()))
        names[new] = rng.permutation(np.arange(500, 900))[: len(new)]

        def some(which: Rows, start: int, end: int | None) -> Asks:
            rows = [own[at][start:end] for at in which]
            return Asks(image[np.concatenate(rows)], np.repeat(which, [len(one) for one in rows]))

        old = np.setdiff1d(np.arange(len(own)), new)
        pairs = some(new, 0, _EACH)
        memory = memory_of(pairs.image, sets.caption[names][pairs.truth])[0]
        yield World(
            "pets, half of the breeds renamed",
            memory,
            sets.prompt[names],
            some(old, _EACH, None),
            some(new, 2 * _EACH, None),
            some(old, 0, _EACH),
            some(new, _EACH, 2 * _EACH),
        )


SETS: dict[str, Callable[[Path, Path], Iterator[World]]] = {
    "dev": drawn("dev"),
    "unseen": drawn("unseen"),
    "pets": breeds,
}
ROWS = ("none", "five a thing", "30 % of them false, any", "30 % of them false, on new things")


def measure(worlds: Iterator[World]) -> tuple[str, dict[Caution, npt.NDArray[np.float64]]]:
    """Points over plain (orders, rows, 5): known, known among all, new, new among all, rejections."""
    found: dict[Caution, list[list[list[float]]]] = {caution: [] for caution in CAUTIONS}
    name = ""
    for order, world in enumerate(worlds):
        name = world.name
        for caution in CAUTIONS:
            honest = reject(world, caution, order)
            false = [with_false(world, caution, honest, order, worst=worst) for worst in (False, True)]
            found[caution].append(
                [
                    [
                        *world.points(world.known, caution, feedback),
                        *world.points(world.new, caution, feedback),
                        float(len(feedback or ())),
                    ]
                    for feedback in (None, honest, *false)
                ]
            )
    return name, {caution: np.array(rows) for caution, rows in found.items()}


def shown(found: dict[str, dict[Caution, npt.NDArray[np.float64]]], caution: Caution) -> str:
    """The table of one caution."""
    head = ("memory", "rejections", "number", "known", "known, among all", "new", "new, among all")
    rows = []
    for name, measured in found.items():
        for at, what in enumerate(ROWS):
            values = measured[caution][:, at]
            points = [spread(values[:, c], sign="+") for c in range(4)]
            rows.append([name, what, f"{values[:, 4].mean():,.0f}", *points])
    return table(head, rows, left=2)


def main() -> None:
    """Measure and write the page."""
    parser = parser_of(__doc__, "rejections", data="folder of the vectors of real CLIP", data_needed=True, sets=SETS)
    asked = parser.parse_args()
    found = {}
    for one in asked.sets:
        name, measured = measure(SETS[one](asked.data, asked.cache))
        found[name] = measured
        for caution in CAUTIONS:
            print(f"\n{caution}\n\n{shown({name: measured}, caution)}", flush=True)
    if asked.docs is not None:
        publish(asked.docs, "rejections", {caution: shown(found, caution) for caution in CAUTIONS})


if __name__ == "__main__":
    main()
