"""The same pairs in several orders: how much a memory's gain hangs on them, and how targets of the method are met.

    python -m benchmarks.orders --data DIRECTORY --docs docs/measurements  # makes blocks of docs/measurements/gate.md

    python -m benchmarks.orders --data DIRECTORY --constant calibrate.ASKED=9600  # a trial: prints its blocks

Each order has other pairs in the fit and in the samples; everything is learned anew from it. Memories are those of the
self-check, two of small size, and mixtures of several. A minute and a half an order on one idle core; what was measured
is kept (`--kept`), so that a run that was stopped goes on. Rows are of the orders that all memories have been through.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from reco_plugin.evaluate.study.memories import ram_memory, stream
from reco_plugin.refine import VectorMemory
from reco_plugin.types import Records

from .page import table
from .realclip_gate import ImageNet, load_imagenet
from .research import Kept, parser_of, publish, spread
from .self_check import SLOTS, Catalogue, Rows, drawings, measured, photographs
from .subject import K

WAYS = ("images", "prompts", "both", "texts")
ORDERS = 8
ANIMALS = np.arange(398)
"""Classes of ImageNet."""
SMALL = (100, 250)
"""Pairs of the small memories, one a class."""
Gains = dict[str, list[list[float]]]
"""By row, for each order: points over plain CLIP, one for each of :data:`WAYS`."""


@dataclass(frozen=True)
class Memory:
    """Pairs in one order, and who asks them.

    Attributes:
        name: for people.
        parts: whose pairs it holds, each once.
        asks: rows of the table; empty: the parts.
    """

    name: str
    parts: tuple[Catalogue, ...]
    asks: tuple[Catalogue, ...] = ()

    def ordered(self, seed: int) -> VectorMemory:
        """Learned from the pairs in an order of their own."""
        stores = [part.learn().store for part in self.parts]
        header = stores[0].header
        pairs = Records.join([one for store in stores for one in store.scroll()], header.fingerprint.dimension)
        mixed = pairs.take(np.random.default_rng(seed).permutation(len(pairs)))
        ids = [f"{number:07d}" for number in range(len(mixed))]  # pairs are learned from in the order of their ids
        return ram_memory(replace(mixed, ids=ids), header.fingerprint).at(K)

    def measure(self, seed: int) -> dict[str, list[float]]:
        """Gains by row."""
        memory, found = self.ordered(seed), dict[str, list[float]]()
        for one in self.asks or self.parts:
            where = "" if one.name == self.name else f"{self.name}: "
            found[f"{where}{one.name}"] = points_of(one, memory)
        return found


def points_of(catalogue: Catalogue, memory: VectorMemory) -> list[float]:
    """What its queries gain over plain CLIP, in the order of :data:`WAYS`."""
    gains = measured(catalogue, memory)
    return [*(gains["image"][form].mean for form in ("queries", "candidates", "both")), gains["text"]["queries"].mean]


def among(catalogue: Catalogue, name: str, classes: Rows) -> Catalogue:
    """Ask for some classes alone, among themselves."""
    asks, there = np.isin(catalogue.truth, classes), np.isin(catalogue.classes, classes)
    return replace(
        catalogue,
        name=name,
        image=catalogue.image[asks],
        truth=catalogue.truth[asks],
        prompt=catalogue.prompt[there],
        classes=catalogue.classes[there],
    )


def drawn(cache: Path) -> Iterator[Memory]:
    """Memories of drawings, and three domains in one."""
    found = {one.name: one for one in drawings(cache)}
    split = np.array(found["emoji"].splits)
    groups = [(name, np.flatnonzero(split == of)) for name, of in (("new", "unseen"), ("known", "seen"))]
    for name in ("emoji", "emoji, 30 % wrong captions"):
        yield Memory(name, (found[name],), tuple(among(found[name], *group) for group in groups))
    domains = tuple(found[name] for name in ("flags", "logos", "glyphs"))
    yield from (Memory(one.name, (one,)) for one in domains)
    yield Memory("together", domains)


def with_renamed_animals(data: ImageNet) -> ImageNet:
    """The same, each animal with another one's name."""
    names = np.arange(len(data.prompt))
    names[ANIMALS] = stream(0, "renamed animals").permutation(ANIMALS)
    return ImageNet(data.image, data.caption[names], data.prompt[names])


def real(data: ImageNet) -> Iterator[Memory]:
    """Memories of ImageNet, and one whose animals are renamed."""
    yield from (Memory(one.name, (one,)) for one in photographs(data) if "one pair" not in one.name)
    every, strange = np.arange(len(data.prompt)), with_renamed_animals(data)

    def catalogue(name: str, of: ImageNet, classes: Rows, slots: tuple[int, ...] = SLOTS) -> Catalogue:
        image, truth = of.queries(classes, slots)
        return Catalogue(
            name, lambda: of.store(classes, slots, K).memory, image, truth, of.prompt[classes], classes
        )  # fmt: skip

    parts = (
        catalogue("renamed animals", strange, ANIMALS),
        catalogue("other classes", strange, np.setdiff1d(every, ANIMALS)),
    )
    yield from (Memory(one.name, (one,)) for one in parts)
    yield Memory("half renamed", parts)
    for size in SMALL:
        held = np.sort(stream(size, "few classes").permutation(every)[:size])
        small = catalogue(f"{size} pairs", data, held, (0,))
        whole = catalogue("", data, every, (0,))
        asks = tuple(
            among(whole, name, of) for name, of in (("held", held), ("not held", np.setdiff1d(every, held)))
        )  # fmt: skip
        yield Memory(f"{size} pairs of ImageNet", (small,), asks)


def try_constant(said: str) -> str:
    """Give a module of :mod:`reco_plugin.calibration` another value of a constant, for this process.

    Args:
        said: MODULE.NAME=JSON; other modules that took the constant by name keep theirs.

    Returns:
        The same, under which gains are kept.

    Raises:
        argparse.ArgumentTypeError: there is no such constant, or the value is no JSON.
    """
    where, _, value = said.partition("=")
    module, _, name = where.partition(".")
    holder = sys.modules.get(f"reco_plugin.calibration.{module}")
    if not name.isupper() or not hasattr(holder, name):
        raise argparse.ArgumentTypeError(f"reco_plugin.calibration has no constant {where!r}")
    try:
        setattr(holder, name, json.loads(value))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{where} is to be JSON, not {value!r}") from None
    return said


def over_orders(memories: Sequence[Memory], orders: int, kept: Kept, tried: Sequence[str] = ()) -> Gains:
    """Gains of each row over the orders, kept with the constants that were tried."""
    found: Gains = {}
    for seed in range(orders):
        for one in memories:
            for row, gains in kept.get(" ".join([one.name, str(seed), *tried]), partial(one.measure, seed)).items():
                found.setdefault(row, []).append(gains)
                print(seed, row, *(f"{gain:+.1f}" for gain in gains), file=sys.stderr, flush=True)
    return found


def rows(found: Gains) -> Iterator[list[str]]:
    """Of the table: mean ± standard deviation."""
    for name, gains in found.items():
        yield [name, *(spread(column, sign="+") for column in np.array(gains).T)]


def deviations(found: Gains) -> str:
    """The largest deviation over the orders of each row, those above the target by name."""
    worst = {
        f"{name}, {way}": sd for name, of in found.items() for way, sd in zip(WAYS, np.std(of, axis=0), strict=True)
    }
    above = {name: sd for name, sd in sorted(worst.items(), key=lambda one: -one[1]) if sd > 0.7}
    told = "; ".join(f"{name} {sd:.1f}" for name, sd in above.items()) or "none"
    return f"at most .7 in {len(worst) - len(above)} of {len(worst)}; above: {told}"


def shares(found: Gains, mixtures: Mapping[str, Sequence[str]]) -> str:
    """What a part gains in a mixture, of what it gains alone, where that is five points or more."""
    told = dict[str, float]()
    for mixture, parts in mixtures.items():
        for part in parts:
            alone, mixed = (np.mean(found[name], axis=0) for name in (part, f"{mixture}: {part}"))
            told |= {f"{part}, {way}": m / a for way, a, m in zip(WAYS, alone, mixed, strict=True) if a >= 5.0}
    below = {name: ratio for name, ratio in sorted(told.items(), key=lambda one: one[1]) if ratio < 0.9}
    named = "; ".join(f"{name} {ratio:.2f}" for name, ratio in below.items()) or "none"
    return f"at least .9 in {len(told) - len(below)} of {len(told)}; below: {named}"


def level(found: Gains, name: str, way: str, plain: float) -> str:
    """Top-1 in percent: mean, and the worst order."""
    values = np.array(found[name])[:, WAYS.index(way)] + plain
    return f"mean {values.mean():.1f}, worst {values.min():.1f}"


def targets(found: Gains, mixtures: Mapping[str, Sequence[str]], plain: float, docs: Path) -> Iterator[list[str]]:
    """Rows of the table of targets that development sets can tell."""
    yield ["deviation over orders", "≤ .7", deviations(found)]
    yield ["a part's gain in a mixed memory ÷ alone", "≥ .9", shares(found, mixtures)]
    wrong = level(found, "emoji, 30 % wrong captions: new", "both", plain)
    yield ["30 % wrong captions, new emoji, both, top-1 %", "mean ≥ 45, worst ≥ 44", wrong]
    if any("pairs of ImageNet" in name for name in found):
        lost = {
            f"{name.split()[0]} pairs, {way}": value
            for name, of in found.items()
            if name.endswith("not held")
            for way, value in zip(WAYS, np.mean(of, axis=0), strict=True)
        }
        told = ", ".join(f"{name} {value:+.1f}" for name, value in lost.items() if value)
        yield ["small memories of ImageNet, one a class: classes that they do not hold", "≥ -.3", told or "all 0.0"]
    stored = json.loads((docs / "alternatives.json").read_text(encoding="utf-8"))["all pairs"]["rows"]
    ours, tip = (next(row for row in stored if row["name"].startswith(name)) for name in ("ours", "Tip-Adapter"))
    told = "; ".join(f"{name} {100 * ours[name]:.1f} and {100 * tip[name]:.1f}" for name in ("unseen", "seen", "all"))
    yield ["beside Tip-Adapter, which is told each pair's class: emoji", "within 3, above on seen", told]


def main() -> None:
    """Measure and write the blocks."""
    parser = parser_of(__doc__, "gate", data="the files of real vectors; without them, drawings alone")
    parser.add_argument("--orders", type=int, default=ORDERS)
    parser.add_argument("--kept", type=Path, default=Path("runs/orders.jsonl"), help="file of what was measured")
    told = "other value of a constant of reco_plugin.calibration, for a trial: MODULE.NAME=JSON"
    parser.add_argument("--constant", type=try_constant, action="append", default=[], help=told)
    given = parser.parse_args()
    if given.docs and given.constant:
        parser.error("the page is of the constants as they are: a trial has no --docs")
    memories = list(drawn(given.cache))
    mixtures: dict[str, tuple[str, ...]] = {"together": ("flags", "logos", "glyphs")}
    if given.data:
        memories += real(load_imagenet(given.data))
        mixtures["half renamed"] = ("renamed animals", "other classes")
    found = over_orders(memories, given.orders, Kept(given.kept), given.constant)
    new = memories[0].asks[0]
    plain = 100.0 * float((new.classes[(new.image @ new.prompt.T).argmax(axis=1)] == new.truth).mean())
    aims = table(["target", "asked for", "today"], targets(found, mixtures, plain, Path("docs/measurements")), left=3)
    told = table(["memory: queries", *WAYS], rows(found))
    publish(given.docs, "gate", {"orders": f"{given.orders} orders.\n\n{told}", "targets": aims})


if __name__ == "__main__":
    main()
