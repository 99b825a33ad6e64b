"""Whether a memory's self-check is right about queries that it has not seen: makes docs/measurements/self-check.md.

    python -m benchmarks.self_check --data DIRECTORY --docs docs/measurements

Twelve memories learn calibration from their own pairs, without labels; then labelled queries say what refinement does.
Six are of drawings under the shipped encoder (benchmarks.sets), six of real CLIP vectors (benchmarks.realclip_gate says
which files). Nothing is chosen here. Ten minutes on two cores, and as long again to draw what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reco_plugin.calibration.check import SidesRefined
from reco_plugin.evaluate.intervals import Interval, bootstrap, points
from reco_plugin.evaluate.measure import measure, measure_among_own, refine_task
from reco_plugin.evaluate.study.memories import stream
from reco_plugin.evaluate.task import Task, TaskItems
from reco_plugin.refine import Refiner, VectorMemory
from reco_plugin.types import MODALITIES, Modality, Vectors, other

from .page import table
from .realclip_gate import DOGS, ImageNet, load_imagenet
from .research import DRAWN, parser_of, publish, subject_of
from .subject import K

FORMS: tuple[SidesRefined, ...] = ("queries", "candidates", "both")
SLOTS = (0, 1)
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Catalogue:
    """A memory, and labelled queries.

    Attributes:
        name: for people.
        learn: makes the memory.
        image, truth: (Q, D) images that ask and are found, and their classes.
        prompt, classes: (C, D) a text of each class, and the class.
        said: (Q, D) captions of the images; None: they have none.
        splits: of each class; empty: they have none.
    """

    name: str
    learn: Callable[[], VectorMemory]
    image: Vectors
    truth: Rows
    prompt: Vectors
    classes: Rows
    said: Vectors | None = None
    splits: tuple[str, ...] = ()


def drawings(cache: Path) -> Iterator[Catalogue]:
    """Drawings under the shipped encoder."""
    for name in DRAWN:
        subject = subject_of(name, cache)
        data = subject.data
        asked = (
            data.queries.image,
            data.truth,
            data.prompts,
            np.arange(len(data.prompts)),
            data.queries.text,
            data.splits,
        )
        yield Catalogue(name, lambda one=subject: one.full, *asked)  # type: ignore[misc]
        if name == "emoji":
            style = np.array([payload["style"] for payload in data.memory.payloads])
            noto = np.flatnonzero(style == "noto")
            yield Catalogue("emoji, one style", lambda one=subject, rows=noto: one.memory(rows), *asked)  # type: ignore[misc]
            yield Catalogue("emoji, 30 % wrong captions", lambda one=subject: one.with_wrong_captions(0.3), *asked)  # type: ignore[misc]


def photographs(data: ImageNet) -> Iterator[Catalogue]:
    """ImageNet under OpenAI's CLIP ViT-B/32."""
    everything = np.arange(len(data.prompt))
    half = np.sort(stream(0, "half of the classes").permutation(len(everything))[: len(everything) // 2])

    def catalogue(name: str, of: Rows, asked: Rows, slots: tuple[int, ...] = SLOTS, wrong: float = 0.0) -> Catalogue:
        image, truth = data.queries(asked, slots)
        learn: Callable[[], VectorMemory] = lambda: data.store(of, slots, K, shuffled=wrong).memory  # noqa: E731
        return Catalogue(name, learn, image, truth, data.prompt[asked], asked)

    yield catalogue("ImageNet, two pairs a class", everything, everything)
    yield catalogue("ImageNet, one pair a class", everything, everything, (0,))
    yield catalogue("ImageNet, 30 % wrong captions", everything, everything, wrong=0.3)
    yield catalogue("ImageNet, half of the classes", half, everything)
    yield catalogue("dog breeds among themselves", DOGS, DOGS, (0, 1, 2))
    renamed = stream(0, "renamed classes").permutation(len(everything))
    strange = ImageNet(data.image, data.caption[renamed], data.prompt[renamed])  # names that CLIP gives to other things
    image, truth = strange.queries(everything, SLOTS)
    learn: Callable[[], VectorMemory] = lambda: strange._learn(everything, SLOTS, K, 0.0).memory  # noqa: E731
    yield Catalogue("ImageNet, its classes renamed", learn, image, truth, strange.prompt, everything)


def measured(catalogue: Catalogue, memory: VectorMemory) -> dict[Modality, dict[SidesRefined, Interval]]:
    """Points over frozen of image queries (top-1 among the prompts) and of text queries (R@1 among the images).

    By what is refined: the queries, the candidates as one set, or both, by exact scores.
    """
    refiner, found = Refiner(memory, None, k=K), dict[Modality, dict[SidesRefined, Interval]]()
    images = TaskItems(catalogue.image, "image", catalogue.truth)
    texts = TaskItems(catalogue.prompt, "text", catalogue.classes)
    for modality in MODALITIES:
        queries, candidates = (images, texts) if modality == "image" else (texts, images)
        task, sides = Task(queries, candidates, queries.labels), ({modality}, {other(modality)}, set(MODALITIES))
        before, found[modality] = measure(task).ranks[0] < 1, {}
        for form, refined in zip(FORMS, sides, strict=True):
            after = measure(task, [refine_task(refiner, task, refined)]).ranks[0] < 1
            found[modality][form] = bootstrap(100.0 * (after.astype(np.float64) - before), queries.labels)
    return found


def among_own(catalogue: Catalogue, memory: VectorMemory) -> dict[Modality, tuple[float, Interval] | None]:
    """R@1 of images among the other images, and of captions among the others, and what refinement for that adds."""
    refiner, told = Refiner(memory, None, k=K), dict[Modality, tuple[float, Interval] | None]()
    sides: dict[Modality, Vectors | None] = {"image": catalogue.image, "text": catalogue.said}
    for modality, side in sides.items():
        told[modality] = None
        if side is not None:
            found, groups = measure_among_own(refiner, TaskItems(side, modality, catalogue.truth), K)
            if found:
                before, after = (found[name].top(1) for name in ("frozen", "query"))
                told[modality] = 100.0 * float(before.mean()), bootstrap(after - before, groups)
    return told


def verdict(estimated: float, error: float, found: Interval, moved: bool) -> str:
    """Whether the estimate is right in sign, where both are surer than chance."""
    if not moved:
        return "stays plain"
    if abs(estimated) < 2.0 * error or found.low <= 0.0 <= found.high:
        return "not apart"
    return "right" if (estimated > 0) == (found.mean > 0) else "**wrong**"


def rows(catalogue: Catalogue) -> tuple[list[str], list[str], list[str]]:
    """One line of each table."""
    memory = catalogue.learn()
    state, found = memory.calibration, measured(catalogue, memory)
    assert state is not None and state.check is not None, catalogue.name
    gains, forms, own = [catalogue.name, f"{memory.store.count():,}"], [catalogue.name], [catalogue.name]
    alike = among_own(catalogue, memory)
    for modality in MODALITIES:
        estimated, truth = state.check.own.get(modality), alike[modality]
        own += ["–", "–"] if estimated is None else [f"{estimated.frozen:.1f}", state.check.among(modality)[:-7]]
        own += ["–", "–"] if truth is None else [f"{truth[0]:.1f}", points(truth[1])]
        side, moved = state.check.side(modality), bool(state.sides[modality].gates)
        query = found[modality]["queries"]
        gains += [
            f"{side.gain:+.1f} ± {2 * side.error:.1f}",
            f"{query.mean:+.1f} [{query.low:+.1f}, {query.high:+.1f}]",
            verdict(side.gain, side.error, query, moved),
        ]
        means: dict[SidesRefined, float] = {
            "plain": 0.0,
            **{form: interval.mean for form, interval in found[modality].items()},
        }
        forms += [
            " / ".join(f"{side.gain_of(form):+.1f}" for form in FORMS),
            " / ".join(f"{means[form]:+.1f}" for form in FORMS),
            side.best if state.check.advice else f"{side.best}, not told",
            f"{means[side.best] - max(means.values()):.1f}",
        ]
    return gains, forms, own


def main() -> None:
    """Measure and write the page."""
    parser = parser_of(__doc__, "self-check", data="the files of real vectors; without them, drawings alone")
    given = parser.parse_args()
    catalogues = [drawings(given.cache)] + ([photographs(load_imagenet(given.data))] if given.data else [])
    gains, forms, own = list[list[str]](), list[list[str]](), list[list[str]]()
    for group in catalogues:
        for catalogue in group:
            for lines, line in zip((gains, forms, own), rows(catalogue), strict=True):
                lines.append(line)
                print(*line, sep=" | ", file=sys.stderr, flush=True)
    head = ["memory", "pairs", "images, estimated", "measured", "", "texts, estimated", "measured", ""]
    of_forms = ["memory", "images, estimated", "measured", "chosen", "from the best"]
    of_forms += ["texts, estimated", *of_forms[2:]]
    of_own = [
        "memory",
        *(f"{m}s, {what}" for m in MODALITIES for what in ("pairs' R@1", "estimated", "R@1", "measured")),
    ]
    blocks = {"gains": table(head, gains), "forms": table(of_forms, forms), "own": table(of_own, own)}
    publish(given.docs, "self-check", blocks)


if __name__ == "__main__":
    main()
