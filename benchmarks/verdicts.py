"""``python -m benchmarks.verdicts [SEED]``: decisions of `reco compare` and `reco eval --tune` beside the true gains.

Shops of drawings are their own memory. Each run draws a seed and writes it beside the figures.
"""

from __future__ import annotations

import io
import json
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from reco_plugin import Reco
from reco_plugin.demo.bench import drawing
from reco_plugin.evaluation import CompareOptions, Judgments, QueryLog, SearchQuery, compare
from reco_plugin.evaluation.evaluate import QuerySplit, hold_out
from reco_plugin.evaluation.judgments import measure_rankings
from reco_plugin.evaluation.labelled_set import LabelledSet
from reco_plugin.evaluation.ranking import hits_at, rank_sides, refine_task
from reco_plugin.evaluation.statistics import points
from reco_plugin.evaluation.tune import tune
from reco_plugin.fusion.refiner import Refiner
from reco_plugin.quickstart.dataset import EntitySplit, load
from reco_plugin.sources.indexes import Description, Document, IndexHit, IndexQuery
from reco_plugin.types import Records

from .page import FIGURES, table, write_blocks

KINDS: Mapping[str, EntitySplit] = {"known": "seen", "unknown": "unseen"}
TITLES = ("right", "10 % shuffled", "25 % shuffled", "50 % shuffled", "exchanged")
THINGS, JUDGED, NEW, K = 200, 50, 0.3, 10
SMALL = 1.0
"""Points of a true gain below which only a decision in the wrong direction is wrong."""
ALLOWED = 0.1
"""The loss that ``--tune`` allows: so few things cannot show a smaller one."""


@dataclass(frozen=True)
class Shop:
    """An exactly searched index of N drawings, what each shows, and its title, which may be wrong."""

    pairs: Records
    things: Sequence[str]
    titles: Sequence[str]
    pictures: Sequence[bytes]  # of the first ones, for the check of the encoder

    def right(self, thing: str) -> dict[str, float]:
        """Grades by the true labels of a thing."""
        return {id_: 1.0 for id_, own in zip(self.pairs.ids, self.things, strict=True) if own == thing}

    def describe(self) -> Description:
        """Describe the index."""
        return Description("drawings", "shop", len(self.things), "v", self.pairs.image.shape[1], "cosine", "none")

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """Yield each document."""
        for row, id_ in enumerate(self.pairs.ids):
            picture = self.pictures[row] if row < len(self.pictures) else None
            yield [Document(id_, self.pairs.image[row], self.titles[row], picture)]

    def search(self, question: IndexQuery) -> list[IndexHit]:
        """Return the nearest documents."""
        scores = self.pairs.image @ np.asarray(question.vector)
        best = np.argsort(-scores, kind="stable")[: question.k]
        return [IndexHit(self.pairs.ids[row], float(scores[row]), self.titles[row]) for row in best]

    def close(self) -> None:
        """Do nothing."""


class Shops:
    """Makes shops of drawings by the shipped encoder."""

    def __init__(self) -> None:
        self.data, self.reco = load(), Reco.open("triton_models", memory=":memory:")

    @cache  # noqa: B019 - it lives as long as the command
    def vectors(self, split: EntitySplit) -> tuple[list[int], Any]:
        """Rows of the drawings of a split, and their vectors."""
        rows = self.data.memory_rows((split,)).tolist()
        return rows, self.reco.encoder.images([drawing(self.data, row) for row in rows])

    def make(self, kind: str, titles: str, seed: int, most: int = THINGS) -> Shop:
        """Make a shop of at most ``most`` things."""
        rng, (rows, image) = np.random.default_rng(seed), self.vectors(KINDS[kind])
        names = [self.data.by_key[self.data.items[row].entity].label for row in rows]
        chosen = set(rng.permutation(sorted(set(names)))[:most].tolist())
        places = [place for place, name in enumerate(names) if name in chosen]
        things = [names[place] for place in places]
        wrong = _damaged(things, titles, rng)
        texts = sorted(set(wrong))
        text = dict(zip(texts, self.reco.encoder.texts(texts), strict=True))
        ids = [self.data.items[rows[place]].key for place in places]
        vectors = np.stack([text[title] for title in wrong])
        pairs = Records(ids, image[places], vectors, [{"caption": title} for title in wrong])
        return Shop(pairs, things, wrong, [self.png(rows[place]) for place in places[:32]])

    def png(self, row: int) -> bytes:
        """A drawing as a PNG file."""
        drawing(self.data, row).save(buffer := io.BytesIO(), "PNG")
        return buffer.getvalue()


def _damaged(things: Sequence[str], titles: str, rng: np.random.Generator) -> list[str]:
    """Titles of drawings: right, a share shuffled among the drawings, or the names of things exchanged in pairs."""
    if titles == "exchanged":
        names = rng.permutation(sorted(set(things))).tolist()
        other = dict(zip(names, names[len(names) // 2 :] + names[: len(names) // 2], strict=True))
        return [other[thing] for thing in things]
    share = 0.0 if titles == "right" else float(titles.partition(" ")[0]) / 100
    found, some = np.array(things), np.flatnonzero(rng.random(len(things)) < share)
    found[some] = found[rng.permutation(some)]
    return [str(title) for title in found]


def verdict_of(shops: Shops, kind: str, titles: str, seed: int, *, new: float) -> dict[str, Any]:
    """Decisions for one shop by true judgments and by copies of the titles, beside its true gain in points."""
    shop, rng = shops.make(kind, titles, seed), np.random.default_rng(seed)
    things = sorted(set(shop.things))
    lacking = set(rng.permutation(things)[: int(new * len(things))].tolist())
    known = [row for row, thing in enumerate(shop.things) if thing not in lacking]
    log = QueryLog(tuple(SearchQuery(thing, thing) for thing in things), len(things))
    chosen = rng.permutation(things)[:JUDGED].tolist()
    named = dict(zip(shop.pairs.ids, shop.titles, strict=True))
    copied = {thing: {id_: 1.0 for id_, title in named.items() if title == thing} for thing in chosen}
    judged = {"judged": {thing: shop.right(thing) for thing in chosen}, "copied": copied}
    found: dict[str, Any] = {"things": kind, "titles": titles, "new": new}
    with Reco.open("triton_models", memory=":memory:", on_memory_failure="fail") as reco:
        reco.memory.add_records([shop.pairs.take(known)])
        for name, right in judged.items():
            record = compare(reco, shop, log, CompareOptions(judgments=Judgments(right, name)))
            verdict = record.verdicts[0]
            interval = "–" if verdict.gain is None else points(verdict.gain.interval)
            found |= {name: verdict.decision, f"{name} gain": interval, f"{name} sentence": verdict.sentence}
    grades = [shop.right(str(row["id"])) for row in record.queries]
    plain, refined = (
        measure_rankings([row[side] for row in record.queries], grades, K)["ndcg"] for side in ("plain", "refined")
    )
    found["true"] = 100 * float((refined - plain).mean())
    return found | {"right": is_right(found)}


def is_right(found: Mapping[str, Any]) -> bool:
    """Whether the decision by true judgments fits the true gain, and that by copied titles names its condition."""
    gain, refines = found["true"], str(found["judged"]).startswith("refine")
    fits = (refines if gain > 0 else found["judged"] == "leave") if abs(gain) >= SMALL else gain > 0 or not refines
    return bool(fits and found["copied"] != "refine")


def tuned_of(shops: Shops, kind: str, titles: str, most: int, seed: int) -> dict[str, Any]:
    """Tune on two thirds of a shop's things, and measure the true loss on the others."""
    shop = shops.make(kind, titles, seed, most)
    names = np.random.default_rng(seed).permutation(sorted(set(shop.things)))
    apart = np.isin(shop.things, names[: len(names) // 3])
    labels = np.array(shop.titles)[~apart].tolist()
    split = hold_out(
        LabelledSet("classes", "shop", shop.pairs.take(~apart), labels, labels), shops.reco.manifest.fingerprint, seed
    )
    found = tune(split, max_loss=ALLOWED, seed=seed)
    assert split.memory is not None
    true = replace(shop.pairs, text=shops.make(kind, "right", seed, most).pairs.text)  # by true names
    lost, rest = [np.zeros(1)], np.flatnonzero(apart)
    things = LabelledSet("classes", "shop", true, shop.things, shop.things)
    third = QuerySplit(things, rest, rest < 0, None, [()] * len(rest))
    refiner = Refiner(split.memory.at(found.k), None, k=found.k, coverage=found.coverage)
    for direction, task in third.tasks().items():
        if direction in found.shipped:
            side = found.shipped[direction]
            ranks = rank_sides(task, refine_task(refiner, task, [side]), [side])
            lost.append(hits_at(ranks["frozen"], 1) - hits_at(ranks[side], 1))
    return {
        "things": f"{most} {kind}",
        "titles": titles,
        "ships": bool(found.shipped),
        "policy": str(found.policy()),
        "true loss": max(float(part.mean()) for part in lost),
    }


def blocks(found: Mapping[str, Any]) -> dict[str, str]:
    """The block of the page."""
    rows = []
    for one in found["verdicts"]:
        things = one["things"] + (", 30 % new" if one["new"] else "")
        judged = f"{one['judged']}, {one['judged gain']}"
        rows.append(
            [things, one["titles"], f"{one['true']:+.1f}", judged, one["copied"], "yes" if one["right"] else "NO"]
        )
    shipped = [one["true loss"] for one in found["tuned"] if one["ships"]]
    memories = {(one["things"], one["titles"]) for one in found["tuned"]}
    about = (
        f"`python -m benchmarks.verdicts`, seed {found['seed']}: {THINGS} things, {JUDGED} judged queries, points of "
        f"nDCG@{K}. `--tune` on {len(memories)} memories, {len(found['tuned'])} draws: {len(shipped)} shipped. Allowed "
        f"are {100 * ALLOWED:.0f} points of loss; the largest was {100 * max(shipped, default=0):+.1f}."
    )
    made = table(["things", "titles", "true gain", "judged", "judgments copied from titles", "right"], rows, left=2)
    return {"verdicts": f"{about}\n\n{made}"}


def main() -> None:
    """Measure, and write the figures and the page."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else secrets.randbelow(10**6)
    shops, draws = Shops(), iter(range(1000 * seed, 1000 * seed + 1000))
    found: dict[str, Any] = {"seed": seed, "verdicts": [], "tuned": []}
    for kind, titles, new in product(KINDS, TITLES, (0.0, NEW)):
        found["verdicts"].append(verdict_of(shops, kind, titles, next(draws), new=new))
        print(json.dumps(found["verdicts"][-1]), flush=True)
    for kind, titles, most, _ in product(KINDS, TITLES[:3], (240, 480), range(3)):
        found["tuned"].append(tuned_of(shops, kind, titles, most, next(draws)))
        print(json.dumps(found["tuned"][-1]), flush=True)
    (FIGURES / "verdicts.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    write_blocks(blocks(found))


if __name__ == "__main__":
    main()
