"""Whether a memory knows what it holds: makes docs/measurements/presence.md and its charts.

    python -m benchmarks.presence --data DIRECTORY --docs docs/measurements  # both kinds of sets; ten minutes on a core
    python -m benchmarks.presence --data DIRECTORY --sets products           # one set, printed

A memory holds a half of the things and learns presence from its own pairs, without labels; then all things are asked
for, over three halves. Real CLIP vectors are those of benchmarks.realclip_gate, with ``clip_vit_b32_oxford_pets.npz``
(``val_image``, ``test_image``, their labels in CoOp's order) and ``marqo_fashionclip_products.npz`` (``image``,
``text``, ``articleType``); drawings are encoded by the shipped model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reco_plugin.calibration.match import auc_of, reliability_curve
from reco_plugin.evaluate.findings import Chart, Line, Section
from reco_plugin.evaluate.study.memories import stream
from reco_plugin.refine import Refiner, VectorMemory
from reco_plugin.types import Caution, Modality, Records, Vectors, other

from .page import table
from .realclip_gate import SLOTS, ImageNet, load_imagenet, read, unit
from .research import drawn, memory_of, parser_of, publish, spread
from .subject import K

HALVES, THRESHOLDS, BINS = 3, (0.0, 0.3, 0.5, 0.7), 10
BREEDS = {
    3: 161, 4: 162, 8: 242, 10: 151, 11: 285, 12: 219, 13: 212, 14: 210, 15: 257, 17: 152, 18: 261, 19: 255, 21: 237,
    22: 256, 23: 283, 24: 259, 25: 254, 28: 247, 29: 258, 30: 199, 32: 284, 34: 179, 35: 202, 36: 187,
}  # fmt: skip
"""Breed of Oxford Pets -> the class of ImageNet whose caption it has."""
_EACH = 32  # pairs of a breed
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """Queries of one kind, and a memory that holds half of what they ask for.

    Attributes:
        name: of the kind, for people.
        memory: with its calibration.
        pairs: those of the memory.
        modality: of the queries.
        queries: (Q, D).
        held: (Q,) whether the memory holds what is asked for.
        index: (N, D) plain vectors that are searched: of all things.
        right: (Q, N).
    """

    name: str
    memory: VectorMemory
    pairs: Records
    modality: Modality
    queries: Vectors
    held: Flags
    index: Vectors
    right: Flags

    def refined(self, caution: Caution, threshold: float = 0.0) -> tuple[Vectors, npt.NDArray[np.float32]]:
        """Refined queries, and their presence."""
        found = Refiner(self.memory, None, k=K, caution=caution, presence=threshold).refine(
            self.queries, modality=self.modality
        )
        if found.presence is None:
            raise SystemExit(f"{self.name}: {found.why_no_presence}")
        return found.vectors, found.presence

    def hits(self, queries: Vectors) -> Numbers:
        """100 where the first result is right, else 0."""
        first = (queries @ self.index.T).argmax(axis=1)
        return np.asarray(100.0 * self.right[np.arange(len(queries)), first])

    @cached_property
    def presence(self) -> npt.NDArray[np.float32]:
        """Of the queries."""
        return self.refined("balanced")[1]

    @cached_property
    def told(self) -> list[float]:
        """AUROC of presence, of the best cosine to a pair's other side, of the best similarity; calibration error."""
        cosine = (self.queries @ self.pairs.side(other(self.modality)).T).max(axis=1)
        similarity = (self.queries @ self.pairs.side(self.modality).T).max(axis=1)
        three = [auc_of(one, self.held) for one in (self.presence, cosine, similarity)]
        return [*three, reliability_curve(self.presence.astype(np.float64), self.held)[0]]

    def gains(self, caution: Caution) -> list[float]:
        """R@1 of plain queries, then gains in the memory and not, in points, at each threshold."""
        before = self.hits(self.queries)
        found = [float(before.mean())]
        for threshold in THRESHOLDS:
            change = self.hits(self.refined(caution, threshold)[0]) - before
            found += [float(change[self.held].mean()), float(change[~self.held].mean())]
        return found


def places(presence: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The tenth that each lies in."""
    return np.asarray(np.minimum((presence * BINS).astype(np.int64), BINS - 1))


def half(count: int, seed: int) -> npt.NDArray[np.int64]:
    """Half of so many things."""
    return np.sort(stream(seed, "half of the things").permutation(count)[: count // 2])


def moved(text: Vectors, kind: npt.NDArray[np.str_], cosine: float) -> Vectors:
    """Captions (N, D) moved towards another one of their kind, until their cosine with themselves is so much."""
    rng, made = stream(0, "moved captions"), text.copy()
    for row in range(len(text)) if cosine < 1.0 else ():
        alike = np.flatnonzero(kind == kind[row])
        others = alike[text[alike] @ text[row] < 0.9999]
        towards = text[rng.choice(others if len(others) else np.setdiff1d(np.arange(len(text)), row))]
        away = towards - (towards @ text[row]) * text[row]
        made[row] = cosine * text[row] + np.sqrt(1.0 - cosine**2) * away / np.linalg.norm(away)
    return unit(made)


def products(data: Path, _cache: Path) -> Iterator[Asked]:
    """A catalogue that has grown since the last sync: the index holds all, the memory half."""
    with np.load(data / "marqo_fashionclip_products.npz") as stored:
        image, text = (unit(stored[name].astype(np.float32)) for name in ("image", "text"))
        kind = stored["articleType"]
    own = np.eye(len(text), dtype=np.bool_)
    for seed in range(HALVES):
        there = half(len(text), seed)
        held, made = np.isin(np.arange(len(text)), there), memory_of(image[there], text[there])
        for cosine in (1.0, 0.95, 0.9):
            name = "products, own captions" if cosine == 1.0 else f"products, captions moved to cosine {cosine:g}"
            yield Asked(name, *made, "text", moved(text, kind, cosine), held, image, own)
        yield Asked("products, their own images", *made, "image", image, held, text, own)


def classes(data: Path, renamed: bool) -> Iterator[Asked]:
    """ImageNet, two pairs a class; the captions of the memory are text_a."""
    name, sets = ("ImageNet, renamed" if renamed else "ImageNet"), load_imagenet(data)
    if renamed:
        dealt = stream(0, "renamed classes").permutation(len(sets.prompt))
        sets = ImageNet(sets.image, sets.caption[dealt], sets.prompt[dealt])
    everything = np.arange(len(sets.prompt))
    asked, labels = sets.queries(everything, SLOTS[0])
    right = everything[:, None] == labels
    for seed in range(HALVES):
        there = half(len(everything), seed)
        image = sets.image[there][:, list(SLOTS[0])].reshape(-1, sets.image.shape[-1])
        made = memory_of(image, np.repeat(sets.caption[there], len(SLOTS[0]), axis=0))
        held = np.isin(everything, there)
        yield Asked(f"{name}, the memory's prompts", *made, "text", sets.caption, held, asked, right)
        yield Asked(f"{name}, other prompts", *made, "text", sets.prompt, held, asked, right)
        yield Asked(f"{name}, images", *made, "image", asked, held[labels], sets.prompt, right.T)


def pictures_of_pets(data: Path) -> tuple[Vectors, list[npt.NDArray[np.int64]]]:
    """All pictures (N, D), and the rows of each of :data:`BREEDS`."""
    arrays = read(data / "clip_vit_b32_oxford_pets.npz")
    image, label = (
        np.concatenate([arrays[f"{part}_{side}"] for part in ("val", "test")]) for side in ("image", "label")
    )
    return image, [np.flatnonzero(label == breed) for breed in BREEDS]


def pets(data: Path, _cache: Path) -> Iterator[Asked]:
    """24 breeds, 32 pairs each."""
    captions, (image, rows) = load_imagenet(data), pictures_of_pets(data)
    which = np.arange(len(BREEDS))
    asked = np.concatenate([own[_EACH:] for own in rows])
    truth = np.concatenate([np.full(len(own[_EACH:]), at) for at, own in enumerate(rows)])
    caption, prompt = (side[list(BREEDS.values())] for side in (captions.caption, captions.prompt))
    for seed in range(HALVES):
        there = half(len(BREEDS), seed)
        pairs = np.concatenate([rows[at][:_EACH] for at in there])
        made = memory_of(image[pairs], np.repeat(caption[there], _EACH, axis=0))
        yield Asked(
            "pets, images", *made, "image", image[asked], np.isin(truth, there), prompt, truth[:, None] == which
        )


def drawings(name: str, cache: Path) -> Iterator[Asked]:
    """All entities that the encoder has met, and half of the others, which are asked for."""
    data, fingerprint = drawn(name, cache)
    split = np.array(data.splits)
    new = np.flatnonzero(split == "unseen")
    asks = np.isin(data.truth, new)
    image, text, truth = data.queries.image[asks], data.queries.text[asks], data.truth[asks]
    for seed in range(HALVES):
        there = new[half(len(new), seed)]
        pairs = data.memory.take(np.flatnonzero(~np.isin(data.memory_entity, np.setdiff1d(new, there))))
        made = memory_of(pairs.image, pairs.text, fingerprint)
        held, right = np.isin(truth, there), truth[:, None] == new
        yield Asked(f"{data.name}, worded captions", *made, "text", text, held, image, truth[:, None] == truth)
        yield Asked(f"{data.name}, names", *made, "text", data.prompts[new], np.isin(new, there), image, right.T)
        yield Asked(f"{data.name}, images", *made, "image", image, held, data.prompts[new], right)


SETS: dict[str, Callable[[Path, Path], Iterator[Asked]]] = {
    "products": products,
    "imagenet": lambda data, _: classes(data, renamed=False),
    "renamed": lambda data, _: classes(data, renamed=True),
    "pets": pets,
    "flags": lambda _, cache: drawings("flags", cache),
    "emoji": lambda _, cache: drawings("emoji", cache),
}


@dataclass(frozen=True)
class Measured:
    """What all halves of one kind say: rows of them each.

    Attributes:
        modality: of the queries.
        told: AUROC of presence, cosine and similarity, and the calibration error.
        gains: of each caution, as :meth:`Asked.gains` has them.
        asked: presence and whether there is an answer, of all queries.
    """

    modality: Modality
    told: Numbers
    gains: dict[Caution, Numbers]
    asked: tuple[npt.NDArray[np.float32], Flags]


def measure(asked: Sequence[Asked]) -> Measured:
    """Measure the halves of one kind."""
    cautions: tuple[Caution, ...] = ("balanced", "bold") if asked[0].modality == "image" else ("balanced",)
    return Measured(
        asked[0].modality,
        np.array([one.told for one in asked]),
        {caution: np.array([one.gains(caution) for one in asked]) for caution in cautions},
        (np.concatenate([one.presence for one in asked]), np.concatenate([one.held for one in asked])),
    )


def by_kind(asked: Iterator[Asked]) -> dict[str, Measured]:
    """Measure all, by kind."""
    kinds = dict[str, list[Asked]]()
    for one in asked:
        kinds.setdefault(one.name, []).append(one)
    return {name: measure(some) for name, some in kinds.items()}


def blocks(found: dict[str, Measured]) -> dict[str, str]:
    """The page's tables."""
    columns = ("queries", "presence", "best cosine", "best similarity", "calibration error")
    told = table(
        columns,
        (
            [
                name,
                spread(one.told[:, 0], 3),
                *(f"{one.told[:, c].mean():.3f}" for c in (1, 2)),
                spread(one.told[:, 3], 3),
            ]
            for name, one in found.items()
        ),
    )
    head = ("queries", "plain", *("today" if not at else f"from {at:g}" for at in THRESHOLDS))

    def gained(modality: Modality, caution: Caution) -> str:
        return table(
            head,
            (
                [
                    name,
                    f"{one.gains[caution][:, 0].mean():.1f}",
                    *(
                        " / ".join(spread(one.gains[caution][:, 1 + 2 * at + side], 1, "+") for side in (0, 1))
                        for at in range(len(THRESHOLDS))
                    ),
                ]
                for name, one in found.items()
                if one.modality == modality
            ),
        )

    return {
        "told": told,
        "texts": gained("text", "balanced"),
        "images": gained("image", "balanced"),
        "bold": gained("image", "bold"),
    }


def diagram(found: dict[str, Measured]) -> Section:
    """Reliability diagrams: of queries with such a presence, how many have an answer."""
    middles = tuple((place + 0.5) / BINS for place in range(BINS))
    charts = []
    for modality in ("text", "image"):
        lines = [Line(name="as it should be", y=middles)]
        for name, one in found.items():
            presence, held = one.asked
            tenth = places(presence)
            shares = [float(held[tenth == at].mean()) if (tenth == at).sum() >= 20 else None for at in range(BINS)]
            if one.modality == modality:
                lines.append(Line(name=name, y=tuple(shares)))
        title = f"{modality.capitalize()} queries: how many have an answer, by presence"
        axes = {"x_title": "presence, in tenths", "y_title": "queries whose answer the memory holds, %"}
        charts.append(Chart(title=title, x=middles, lines=tuple(lines), **axes))
    return Section(key="reliability", title="Presence", about="", charts=tuple(charts))


def main() -> None:
    """Measure, print, and write the page's blocks and charts."""
    given = parser_of(__doc__, "presence", data="the vectors of realclip", data_needed=True, sets=SETS).parse_args()
    found = dict[str, Measured]()
    for name in given.sets:
        some = by_kind(SETS[name](given.data, given.cache))
        found |= some
        print("\n\n".join(blocks(some).values()), flush=True)
    if given.docs:
        publish(given.docs, "presence", blocks(found), [("presence", diagram(found))])


if __name__ == "__main__":
    main()
