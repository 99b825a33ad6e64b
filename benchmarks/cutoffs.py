"""Cut-offs: recall at 90 % precision where the index is larger than the memory, and half of the queries have no answer.

    python -m benchmarks.cutoffs [--data DIRECTORY]   # also stored vectors of real encoders

A memory holds two pictures of some things. The index has another picture of each, and pictures of things that the
memory lacks, until it has 1, 3 and 10 documents for each pair. Half of the queries are for things that neither has.
The threshold of a query is that of `Reco.match`, by the memory alone. A flat threshold is the best one for 90 % on the
very queries, which nobody knows before; autocut ends a ranking at its largest jump, and never leaves it empty.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reco_plugin import Reco
from reco_plugin.defaults import DEFAULT_K
from reco_plugin.fusion.refiner import Refiner, VectorMemory
from reco_plugin.learning.learn import learn
from reco_plugin.memory import open_memory
from reco_plugin.quickstart.dataset import load
from reco_plugin.signals import LEARNED
from reco_plugin.signals.confidence import PRECISION, match_rankings
from reco_plugin.signals.presence import PresenceState
from reco_plugin.types import Fingerprint, Records, Vectors

from .method import unit
from .page import table
from .words import MODEL

ORDERS = 10
Passed = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]  # (Q,) whether a first answer passes, and is right


@dataclass(frozen=True)
class World:
    """Pictures (T, V, D) of things, and a caption (T, D) of each."""

    name: str
    images: Vectors
    texts: Vectors
    things: int  # that the memory holds
    absent: int  # that neither holds, and some ask for
    per: int  # pictures of each in the memory

    @property
    def documents(self) -> int:
        """That an index may have."""
        return self.things + (len(self.texts) - self.things - self.absent) * int(self.images.shape[1])

    def ask(self, times: int, seed: int) -> Iterator[tuple[str, Passed]]:
        """What each way to cut passes, of an index of so many documents for each pair."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self.texts))
        held, absent, others = np.split(order, [self.things, self.things + self.absent])
        rest = self.images[others].reshape(-1, self.images.shape[2])
        rest = rest[rng.permutation(len(rest))[: times * self.things * self.per - len(held)]]
        index = np.concatenate([self.images[held, -1], rest])
        image = self.images[held, : self.per].reshape(-1, index.shape[1])
        text = np.repeat(self.texts[held], self.per, axis=0)
        pairs = Records([f"{row:05d}" for row in range(len(image))], image, text, [{}] * len(image))
        store = open_memory(":memory:", Fingerprint("vectors", "0" * 64, index.shape[1]))
        store.upsert(pairs)
        state = learn(store, DEFAULT_K, extras=LEARNED)
        state = state and replace(state, presence=PresenceState.read(store.header.calibration))
        plain = self.texts[np.concatenate([held[: self.absent], absent])]
        refined = Refiner(VectorMemory(store, state), None).refine(plain, modality="text")
        right = np.concatenate([np.arange(self.absent), np.full(self.absent, -1)])
        scores = refined.vectors @ index.T
        first, ranked = scores.argmax(axis=1) == right, -np.sort(-scores, axis=1)[:, :10]
        calibration = store.header.calibration
        sure = match_rankings(calibration, refined, ranked.tolist(), "text", PRECISION, len(index))
        yield "threshold of each query", (sure.passes, first)
        yield "best flat threshold", (ranked[:, 0] >= best_threshold(ranked[:, 0], first), first)
        by_plain = (plain @ index.T).argmax(axis=1) == right
        best = (plain @ index.T).max(axis=1)
        yield "best flat threshold, plain CLIP", (best >= best_threshold(best, by_plain), by_plain)
        yield "autocut", (np.ones(len(first), np.bool_), first)


def best_threshold(scores: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> float:
    """The lowest score from which 90 % of the first answers are right; infinite where there is none."""
    order = np.argsort(-scores)
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    holds = np.flatnonzero(precision >= PRECISION)
    return float(scores[order[holds[-1]]]) if len(holds) else np.inf


def drawings() -> World:
    """All drawings that come along, by the shipped encoder."""
    found = load()
    by_thing: dict[str, list[int]] = {}
    for row, item in enumerate(found.items):
        by_thing.setdefault(item.entity, []).append(row)
    labels = {one.key: one.label for one in found.entities}
    chosen = {key: rows[:4] for key, rows in by_thing.items() if len(rows) >= 4 and key in labels}
    with Reco.open(MODEL, memory=":memory:") as reco:
        flat = [Image.fromarray(found.images[row]) for rows in chosen.values() for row in rows]
        images = reco.encoder.images(flat).reshape(len(chosen), 4, -1)
        texts = reco.encoder.texts([labels[key] for key in chosen])
    return World("drawings", images, texts, 150, 150, 2)


def made_up() -> World:
    """Things of an encoder that knows something of each, and tells them apart."""
    rng, dimension, things = np.random.default_rng(0), 64, 5000
    meaning = rng.normal(size=(things, dimension))
    shown = meaning + 0.5 * rng.normal(size=meaning.shape)
    pictures = shown[:, None] + 0.5 * rng.normal(size=(things, 3, dimension)) + 5.0 * np.eye(2, dimension)[0]
    return World("made up", unit(pictures), unit(meaning + 5.0 * np.eye(2, dimension)[1]), 200, 200, 2)


def stored(data: Path) -> Iterator[World]:
    """Catalogues with one picture a product, which the memory holds, too; and ViT-B/32 on ImageNet."""
    amazon = np.load(data / "amazon997_clip_vit_b32.npz")
    for things, absent in ((600, 200), (300, 90)):
        name = f"Amazon, {things} products"
        yield World(name, unit(amazon["image"][:, None]), unit(amazon["text"]), things, absent, 1)
    fashion = np.load(data / "marqo_fashionclip_products.npz")
    yield World("products", unit(fashion["image"][:, None]), unit(fashion["text"]), 600, 200, 1)
    classes = np.load(data / "clip_vit_b32_imagenet.npz")
    yield World("ImageNet", unit(classes["image"]), unit(classes["text_a"]), 100, 100, 3)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the stored vectors")
    given = parser.parse_args()
    rows = list[list[str]]()
    for world in [made_up(), drawings(), *(stored(given.data) if given.data else [])]:
        for times in (1, 3, 10):
            if world.documents < times * world.things * world.per:
                continue
            passed = dict[str, list[Passed]]()
            for seed in range(ORDERS):
                for way, one in world.ask(times, seed):
                    passed.setdefault(way, []).append(one)
            for way, some in passed.items():
                passes, right = (np.concatenate(column) for column in zip(*some, strict=True))
                share = (passes & right).sum() / max(1, passes.sum())
                recall = (passes & right).sum() / (world.absent * ORDERS)
                rows.append([world.name, f"{times}", way, f"{100 * share:.1f}", f"{100 * recall:.1f}"])
    print(table(["", "documents a pair", "way", "precision", "recall"], rows))


if __name__ == "__main__":
    main()
