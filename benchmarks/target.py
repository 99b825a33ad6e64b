"""Queries compared with vectors of their own modality, or with averages of both: makes docs/measurements/target.md.

    python -m benchmarks.target --data DIRECTORY --docs docs/measurements

Every memory learns from its own pairs, without labels. Then labelled queries that are not in it say what is best:
plain, refined as if they were compared with the other modality, or refined for what the index is. Drawings under the
shipped encoder (benchmarks.sets), ImageNet, pets, Caltech's objects and products as real vectors
(benchmarks.realclip_gate says which files). Nothing is chosen here. Six minutes on one core.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reco_plugin.calibration.corpus import measure_corpus
from reco_plugin.calibration.episodes import other_view
from reco_plugin.calibration.sharpen import learn_sharpening
from reco_plugin.evaluate.intervals import bootstrap, points
from reco_plugin.evaluate.study.memories import ram_memory, stream
from reco_plugin.refine import Refiner, VectorMemory
from reco_plugin.types import MODALITIES, Modality, Records, Target, Vectors, other

from .page import table
from .realclip_gate import DOGS, FINGERPRINT, ImageNet, load_imagenet, read, unit
from .research import parser_of, publish, subject_of
from .subject import K, Subject

Rows = npt.NDArray[np.int64]
ORDERS, DOCUMENTS, DRAWS = 8, 60, 20


@dataclass(frozen=True)
class Search:
    """Queries and an index, with what each row shows."""

    name: str
    modality: Modality
    target: Target
    query: Vectors
    asked: Rows
    held: Vectors
    shown: Rows


@dataclass(frozen=True)
class Case:
    """A memory, and what is asked beside it."""

    name: str
    memory: VectorMemory
    searches: tuple[Search, ...]


def ways(memory: VectorMemory, search: Search) -> Iterator[Vectors]:
    """The queries plain, refined for the other modality, and for what the index is."""
    yield search.query
    targets: tuple[Target, ...] = (other(search.modality), search.target)
    for target in targets:
        yield Refiner(memory, None, k=K).refine(search.query, modality=search.modality, target=target).vectors


def lines(case: Case) -> Iterator[list[str]]:
    """Rows of the table: R@1 of plain queries, and the differences; searches of one name are one row."""
    for name, searches in groupby(case.searches, key=lambda one: one.name):
        found, classes = list[list[npt.NDArray[np.float64]]](), list[Rows]()
        for one in searches:
            best = [one.shown[(query @ one.held.T).argmax(axis=1)] == one.asked for query in ways(case.memory, one)]
            found.append([hits.astype(np.float64) for hits in best])
            classes.append(one.asked)
        plain, *others = (np.concatenate(hits) for hits in zip(*found, strict=True))
        changes = (points(bootstrap(hits - plain, np.concatenate(classes))) for hits in others)
        yield [case.name, name, f"{100 * plain.mean():.1f}", *changes]


def averages(image: Vectors, text: Vectors) -> Vectors:
    """The mean of a picture's and a title's vector, as some engines store it."""
    return unit(image + text)


def drawings(subject: Subject) -> Iterator[Case]:
    """Emoji: queries in one unknown style, an index of another one."""
    data = subject.data
    style = np.array([payload["style"] for payload in data.queries.payloads])
    ask, held = np.flatnonzero(style == "emojione-v1"), np.flatnonzero(style == "twemoji")
    sides = {"image": data.queries.image, "text": data.queries.text}
    mean, searches = averages(data.queries.image, data.queries.text)[held], list[Search]()
    for group in ("unseen", "seen"):
        of = np.array(data.splits) == group
        own = ask[of[data.truth[ask]]]
        named = np.flatnonzero(of & np.isin(np.arange(len(of)), data.truth[held]))
        asked: list[tuple[str, Modality, Vectors, Rows]] = [
            ("names", "text", data.prompts[named], named),
            ("captions", "text", data.queries.text[own], data.truth[own]),
            ("drawings", "image", data.queries.image[own], data.truth[own]),
        ]
        for name, m, query, truth in asked:
            alike = "drawings" if m == "image" else "captions"
            index = (query, truth, sides[m][held], data.truth[held])
            searches.append(Search(f"{group} {name} → {alike}", m, m, *index))
            searches.append(Search(f"{group} {name} → averages", m, "both", query, truth, mean, data.truth[held]))
    everything, noto = tuple(searches), subject.data.memory.payloads
    one_style = np.flatnonzero([payload["style"] == "noto" for payload in noto])
    few = stream(0, "few pairs").permutation(len(data.memory))[:600]
    yield Case("emoji", subject.full, everything)
    yield Case("without the unseen", subject.memory(subject.rows(["seen", "fusion", "dev"])), everything)
    yield Case("one style", subject.memory(one_style), everything)
    yield Case("30 % wrong captions", subject.with_wrong_captions(0.3), everything)
    yield Case("600 pairs", subject.memory(few), everything)
    yield Case("emoji", subject.full, tuple(_documents(everything)))


def _documents(searches: tuple[Search, ...]) -> Iterator[Search]:
    """The same searches among few documents, as a first try has them, drawn anew many times."""
    for search in searches:
        both = np.intersect1d(search.asked, search.shown)
        for draw in range(DRAWS if search.name.startswith("unseen") else 0):
            some = stream(draw, "documents").permutation(both)[:DOCUMENTS]
            ask, held = np.isin(search.asked, some), np.isin(search.shown, some)
            yield replace(
                search,
                name=f"{search.name}, {DOCUMENTS} documents",
                query=search.query[ask],
                asked=search.asked[ask],
                held=search.held[held],
                shown=search.shown[held],
            )


def photographs(folder: Path) -> Iterator[Case]:
    """ImageNet: a third picture of each class finds a fourth; a name in other words finds the memory's words."""
    data, every = load_imagenet(folder), np.arange(1000)
    renamed = stream(0, "renamed classes").permutation(1000)
    strange = ImageNet(data.image, data.caption[renamed], data.prompt[renamed])
    elsewhere = tuple(_elsewhere(folder))
    for name, of, held in (
        ("ImageNet", data, every),
        ("odd classes", data, every[1::2]),
        ("classes renamed", strange, every),
        ("dog breeds", data, DOGS),
    ):
        memory = of._learn(held, (0, 1), K, 0.0).memory
        strangers = np.setdiff1d(every, held)
        searches = [one for part in (held, strangers) if len(part) for one in _classes(of, part, part is strangers)]
        yield Case(name, memory, (*searches, *(elsewhere if of is data else ())))
    yield Case("one pair a class", data._learn(every, (0,), K, 0.0).memory, (*_classes(data, every, False), *elsewhere))


def _classes(data: ImageNet, asked: Rows, strangers: bool) -> Iterator[Search]:
    every, index = np.arange(1000), data.image[:, 3]
    mean, who = averages(index, data.caption), " not in the memory" if strangers else ""
    yield Search(f"photos{who} → photos", "image", "image", data.image[asked, 2], asked, index, every)
    yield Search(f"photos{who} → averages", "image", "both", data.image[asked, 2], asked, mean, every)
    yield Search(f"names{who} → names", "text", "text", data.prompt[asked], asked, data.caption, every)
    yield Search(f"names{who} → averages", "text", "both", data.prompt[asked], asked, mean, every)


def _elsewhere(folder: Path) -> Iterator[Search]:
    for name, words in (("oxford_pets", "pets"), ("caltech101", "Caltech's objects")):
        found = {
            k: v if v.ndim > 1 else v.astype(np.int64) for k, v in read(folder / f"clip_vit_b32_{name}.npz").items()
        }
        index = (found["test_image"], found["test_label"], found["val_image"], found["val_label"])
        yield Search(f"photos of {words} → photos", "image", "image", *index)  # type: ignore[arg-type]


def products(folder: Path) -> Iterator[Case]:
    """Unique things, half of them in the memory: another view of a product, simulated, finds it among all."""
    stored = read(folder / "marqo_fashionclip_products.npz")
    every, rng = np.arange(len(stored["image"])), stream(0, "views of products")
    half = rng.permutation(every)[: len(every) // 2]
    pairs = Records([f"{row:06d}" for row in half], stored["image"][half], stored["text"][half], [{}] * len(half))
    mean, searches = averages(stored["image"], stored["text"]), list[Search]()
    for m in MODALITIES:
        near = stored[m] @ stored[m].T
        np.fill_diagonal(near, -1.0)
        seen = unit(other_view(stored[m], near.max(axis=1), stored[m], rng))
        searches.append(Search(f"{m}s → {m}s", m, m, seen, every, stored[m], every))
        searches.append(Search(f"{m}s → averages", m, "both", seen, every, mean, every))
    yield Case("products", ram_memory(pairs, FINGERPRINT).at(K), tuple(searches))


def orders(name: str, image: Vectors, text: Vectors) -> list[str]:
    """How far queries move, as a memory learns it from the same pairs in other orders: mean ± standard deviation."""
    learned = []
    for seed in range(ORDERS):
        rows, rng = stream(seed, "order").permutation(len(image)), np.random.default_rng(0)
        corpus = measure_corpus(image[rows], text[rows], k=K, rng=rng)
        assert corpus is not None, name
        moves = [learn_sharpening(corpus, m, np.random.default_rng(0))[0] for m in MODALITIES]
        learned.append([length for one in moves for length in (one.own, one.both)])
    told = zip(np.mean(learned, axis=0), np.std(learned, axis=0), strict=True)
    return [name, f"{len(image):,}", *(f"{mean:.3f} ± {sd:.3f}" for mean, sd in told)]


def main() -> None:
    """Measure and write the page."""
    parser = parser_of(__doc__, "target", data="the files of real vectors; without them, drawings alone")
    given = parser.parse_args()
    subject = subject_of("emoji", given.cache)
    pairs = {"emoji": (subject.data.memory.image, subject.data.memory.text)}
    cases = [drawings(subject)]
    if given.data:
        net = load_imagenet(given.data)
        pairs["ImageNet, two pairs a class"] = net.image[:, :2].reshape(2000, -1), np.repeat(net.caption, 2, axis=0)
        pairs["dog breeds"] = net.image[DOGS, :2].reshape(2 * len(DOGS), -1), np.repeat(net.caption[DOGS], 2, axis=0)
        cases += [photographs(given.data), products(given.data)]
    rows = list[list[str]]()
    for case in chain(*cases):
        for row in lines(case):
            rows.append(row)
            print(*row, sep=" | ", file=sys.stderr, flush=True)
    moves = table(["memory", "pairs", *LENGTHS_HEAD], [orders(name, *sides) for name, sides in pairs.items()])
    told = table(["memory", "queries → index", "plain R@1", "for the other", "for the index"], rows, left=2)
    publish(given.docs, "target", {"queries": told, "orders": moves})


LENGTHS_HEAD = ("images → images", "images → both", "texts → texts", "texts → both")
if __name__ == "__main__":
    main()
