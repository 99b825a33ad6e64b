"""A cut-off that was set on plain CLIP's scores: what passes it with refined queries, as they are and on plain's scale.

    python -m benchmarks.thresholds                                            # the search example, mini CLIP
    python -m benchmarks.thresholds --data DIRECTORY --docs docs/measurements  # also a real CLIP, as realclip_gate

Queries are texts; the index holds images that are not in the memory, but for those of products. The cut-off is the
plain score that as many results pass as there are right ones. And between queries: how well a number tells whether a
query's first result is right. Takes seven to fifteen minutes, most of them for the memories to learn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples.search_app.catalogue import Catalogue, read_catalogue
from reco_plugin import Reco
from reco_plugin.calibration.match import LOOKED, MatchState, auc_of, read_matches
from reco_plugin.match import match_rankings
from reco_plugin.refine import Refiner, refiner_for_vectors
from reco_plugin.types import Records, Refinement, Vectors

from .page import table
from .realclip_gate import SLOTS, load_imagenet, read
from .research import parser_of, publish

MODEL = Path("triton_models")
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float32]
ABSENT, DEGRADED = 0.2, 0.2
"""Shares of the queries that have no right answer in the index, and of those that an outage left plain."""


@dataclass(frozen=True)
class Asked:
    """Queries of one kind, their refinement, and what they search.

    Attributes:
        name: of the set.
        refinement: of (B, D).
        index: (N, D) unit-norm.
        right: (B, N) whether a result is right.
        state: how sure an answer is, as the memory learned it; None: it did not.
        kinds: name of a kind of queries -> (B,) whether it is of it; the first one is all.
    """

    name: str
    refinement: Refinement
    index: Vectors
    right: Flags
    state: MatchState | None
    kinds: dict[str, Flags]

    def take(self, kind: str) -> Asked:
        """The queries of one kind."""
        rows = self.kinds[kind]
        return Asked(f"{self.name}{kind}", self.some(rows), self.index, self.right[rows], self.state, {"": rows[rows]})

    def some(self, rows: Flags) -> Refinement:
        """The refinement of some queries."""
        whole = self.refinement
        return Refinement(
            whole.vectors[rows],
            whole.frozen[rows],
            coverage=whole.coverage,
            scale=None if whole.scale is None else whole.scale[rows],
            presence=None if whole.presence is None else whole.presence[rows],
        )


def drawings(model: Path) -> Iterator[Asked]:
    """The search example: names of things that the mini CLIP never saw, and of those that it was trained on."""
    catalogue = read_catalogue()
    things = sorted({product.entity for product in catalogue.products})
    for name, known in (("memory of all things", set(things)), ("memory of every second thing", set(things[::2]))):
        yield _drawings(model, catalogue, f"drawings, {name}", known)


def _drawings(model: Path, catalogue: Catalogue, name: str, known: set[str]) -> Asked:
    pairs = [pair for pair in catalogue.memory if pair.payload["entity"] in known]
    with tempfile.TemporaryDirectory() as folder, Reco.open(model, Path(folder, "memory")) as reco:
        reco.memory.add(pairs, progress=True)
        index = reco.embed_images([product.image for product in catalogue.products], refine=False)
        plain = reco.embed_texts([query.text for query in catalogue.queries], refine=False)
        refined, state = reco.refine(plain, modality="text"), reco.memory.matching
    entities = np.array([product.entity for product in catalogue.products])
    asked = np.array([query.entity for query in catalogue.queries])
    seen = np.array([query.split == "seen" for query in catalogue.queries])
    kinds = {"": np.ones_like(seen), ", names unseen": ~seen, ", names seen": seen}
    return Asked(
        name, refined, index, asked[:, None] == entities, state, _and_known(kinds, np.isin(asked, list(known)))
    )


def imagenet(data: Path) -> Iterator[Asked]:
    """1,000 class prompts against two images of each class; the memory holds two others, of all or of half of them."""
    sets = load_imagenet(data)
    classes = np.arange(1000)
    index, labels = sets.queries(classes, SLOTS[0])
    for name, known in (("all classes", classes), ("every second class", classes[::2])):
        memory = sets.store(known, SLOTS[0], 20).memory
        refined = Refiner(memory, None, k=20).refine(sets.prompt, modality="text")
        kinds = _and_known({"": np.ones(len(classes), np.bool_)}, np.isin(classes, known))
        state = read_matches(memory.store.header.calibration)
        yield Asked(f"ImageNet, memory of {name}", refined, index, classes[:, None] == labels, state, kinds)


def products(data: Path) -> Iterator[Asked]:
    """1,000 products, one picture and one title each; half of them are in the memory, all in the index."""
    arrays = read(data / "marqo_fashionclip_products.npz")
    image, text = arrays["image"], arrays["text"]
    half = np.sort(np.random.default_rng(0).permutation(len(image))[: len(image) // 2])
    records = Records([f"{row:05d}" for row in half.tolist()], image[half], text[half], [{}] * len(half))
    refiner = refiner_for_vectors([records])
    refined = refiner.refine(text, modality="text")
    state = read_matches(refiner.memory.store.header.calibration)
    kinds = _and_known({"": np.ones(len(text), np.bool_)}, np.isin(np.arange(len(text)), half))
    yield Asked("products, memory of half", refined, image, np.eye(len(text), dtype=np.bool_), state, kinds)


def _and_known(kinds: dict[str, Flags], known: Flags) -> dict[str, Flags]:
    """Kinds of queries, also by whether the memory has what they ask for, where it has not all."""
    return kinds if known.all() else {**kinds, ", known": known, ", not known": ~known}


def scales(asked: Asked) -> dict[str, Numbers]:
    """Scores (B, N): plain, refined, and on one scale."""
    plain = np.asarray(asked.refinement.frozen @ asked.index.T)
    refined = np.asarray(asked.refinement.vectors @ asked.index.T)
    return {"plain": plain, "refined": refined, "refined, plain's scale": asked.refinement.plain_scores(refined)}


def passing(asked: Asked) -> Iterator[list[str]]:
    """A line for plain scores, refined ones as they are, and on plain's scale."""
    found = scales(asked)
    cut = float(np.quantile(found["plain"], 1 - asked.right.mean()))
    for number, (kind, scores) in enumerate(found.items()):
        yield [asked.name if not number else "", kind, *line(scores, asked.right, cut)]


def line(scores: Numbers, right: Flags, cut: float) -> list[str]:
    """Mean, spread and best of the scores; what passes the cut-off, how much of it is right, of the right how much."""
    passes = scores >= cut
    precision = right[passes].mean() if passes.any() else np.nan
    low, middle, high = np.percentile(scores.max(axis=1), (5, 50, 95))
    return [
        f"{scores.mean():.3f}",
        f"{scores.std(axis=1).mean():.3f}",
        f"{low:.3f}, {middle:.3f}, {high:.3f}",
        f"{passes.sum() / len(scores):.2f}",
        f"{100 * precision:.1f}",
        f"{100 * passes[right].mean():.1f}",
    ]


def telling(asked: Asked) -> Iterator[list[str]]:
    """A line for each scale: how well its numbers tell a right first result from a wrong one, over the queries."""
    rng = np.random.default_rng(0)
    absent, degraded = rng.random(len(asked.right)) < ABSENT, rng.random(len(asked.right)) < DEGRADED
    found, whole, here = scales(asked), asked.refinement, np.ones(len(asked.right), np.bool_)
    every = {
        "plain": (found["plain"], here),
        "refined": (found["refined"], ~here),
        "refined, plain's scale": (found["refined, plain's scale"], ~here),
        "the same, a fifth degraded": (
            np.where(degraded[:, None], found["plain"], found["refined, plain's scale"]),
            degraded,
        ),
    }
    for kind, (scores, plain) in every.items():
        cells = [asked.name if kind == "plain" else "", kind]
        for hidden in (~here, absent):
            there = np.where(hidden[:, None] & asked.right, np.float32(-2.0), scores)
            first = asked.right[np.arange(len(there)), there.argmax(axis=1)] & ~hidden
            best = -np.sort(-there, axis=1)[:, :LOOKED]
            raw = -np.sort(-np.where(hidden[:, None] & asked.right, np.float32(-2.0), found["refined"]), axis=1)
            leads = np.where(plain, best[:, 0] - best[:, -1], whole.leads(raw))
            numbers: list[Numbers | None] = [best[:, 0], best[:, 0] - best[:, -1]]
            numbers += [] if kind == "refined" else [leads, sureness(asked, plain, found, hidden)]
            told = [f"{auc_of(number, first):.2f}" if number is not None else "" for number in numbers]
            cells += [f"{100 * first.mean():.1f}", *told, *[""] * (4 - len(told))]
            if hidden is not absent:
                cells.append(
                    f"{auc_of(whole.presence, first):.2f}"
                    if whole.presence is not None and kind.endswith("scale")
                    else ""
                )
        yield cells


def sureness(asked: Asked, plain: Flags, found: dict[str, Numbers], hidden: Flags) -> Numbers | None:
    """The chance (B,) that the first result is right, by ``match``; ``plain`` says which queries are."""
    if asked.state is None:
        return None
    whole, out = asked.refinement, np.zeros(len(plain), np.float32)
    for rows, kind in ((plain, "plain"), (~plain, "refined")):
        if not rows.any():
            continue
        scores = np.where(hidden[rows, None] & asked.right[rows], np.float32(-1.0), found[kind][rows])
        best = -np.sort(-scores, axis=1)[:, :LOOKED]
        some = Refinement(whole.frozen[rows], whole.frozen[rows]) if kind == "plain" else asked.some(rows)
        out[rows] = match_rankings(asked.state, some, best, "text").first
    return out


PASSING = (
    "queries", "scores", "mean", "spread of a query's", "best: 5 %, median, 95 %", "passing, a query",
    "right of these, %", "of the right, %",
)  # fmt: skip
_TOLD = ("first right, %", "best", "over tenth", "`leads`", "`match`")
TELLING = ("queries", "scores", *_TOLD, "presence", *(f"a fifth absent: {name}" for name in _TOLD))


def main() -> None:
    """Measure, and write the page's blocks."""
    parser = parser_of(__doc__, "thresholds", data="folder with the vectors of realclip", cached=False)
    parser.add_argument("--model", type=Path, default=MODEL)
    given = parser.parse_args()
    sets = [*drawings(given.model), *([*imagenet(given.data), *products(given.data)] if given.data else ())]
    parts = [one.take(kind) for one in sets for kind in one.kinds]
    blocks = {
        "thresholds": table(PASSING, [row for part in parts for row in passing(part)], left=2),
        "telling": table(TELLING, [row for part in parts for row in telling(part)], left=2),
    }
    publish(given.docs, "thresholds", blocks)


if __name__ == "__main__":
    main()
