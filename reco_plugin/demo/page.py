"""The self-contained page of the demo: queries, their neighbours, and ranks before and after refinement."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image

from ..encoders.local import PairEncoder
from ..evaluation.ranking import SIDES, Side, Task, TaskItems, hits_at, rank_sides, rank_task, refine_task, scores_of
from ..files import whole_file
from ..fusion.exact_scores import Refines
from ..fusion.explain import explain_decision
from ..fusion.refiner import used_pairs
from ..options import RefineHow
from ..quickstart.dataset import ALL_SPLITS, EMOJI_SOURCES, NAMES_SOURCE, Entity, EntitySplit, Quickstart
from ..reco import Reco
from ..types import Pair, Refinement

_GAINS, _HARMS = 18, 6
Group = Literal["unseen", "seen", "all", "dev"]
GROUPS: dict[Group, tuple[tuple[EntitySplit, ...], tuple[EntitySplit, ...]]] = {
    "unseen": (("unseen",), ("unseen",)),
    "seen": (("seen",), ("seen",)),
    "all": (("unseen", "seen"), ALL_SPLITS),
    "dev": (("dev",), ("dev",)),
}
"""Group -> splits of the queries and splits of the labels."""
TEST_GROUPS: tuple[Group, ...] = ("unseen", "seen", "all")
KNOWN: tuple[EntitySplit, ...] = ("seen", "fusion", "dev")
"""Splits in the memory before the unseen pairs are added."""

Accuracy = dict[str, float]
"""``{"top1": percent, "top5": percent}``"""
Accuracies = dict[Group, dict[str, Accuracy]]
"""Group -> refined side -> accuracy; ``"frozen"`` is among the sides."""


@dataclass(frozen=True)
class Bench:
    """The test images among the prompts of all entities, under one encoder."""

    task: Task  # frozen vectors; a label is the row of an entity
    entities: list[Entity]  # the C candidates
    rows: npt.NDArray[np.int64]  # (Q,) row of each query in the data set

    @property
    def query_splits(self) -> npt.NDArray[np.str_]:
        """The split of each query (Q,)."""
        return np.array([entity.split for entity in self.entities])[self.task.queries.labels]

    def group(self, name: Group, task: Task | None = None) -> Task:
        """Return the queries and labels of a group, from the frozen task or a refined one."""
        query_splits, label_splits = GROUPS[name]
        queries = (task or self.task).only(np.isin(self.query_splits, query_splits))
        return queries.among(np.isin([entity.split for entity in self.entities], label_splits))

    def measure(
        self,
        reco: Refines,
        sides: Sequence[Side] = SIDES,
        groups: tuple[Group, ...] = TEST_GROUPS,
        **options: Unpack[RefineHow],
    ) -> Accuracies:
        """Measure the zero-shot accuracy of each group in percent; the prompts are refined as one set."""
        refined, accuracies = refine_task(reco, self.task, sides, **options), Accuracies()
        for name in groups:
            ranks = rank_sides(self.group(name), self.group(name, refined), sides)
            accuracies[name] = {side: accuracy(one) for side, one in ranks.items()}
        return accuracies


def accuracy(ranks: npt.NDArray[np.int64]) -> Accuracy:
    """Top-1 and top-5 in percent.

    >>> accuracy(np.array([0, 3, 7, 0]))
    {'top1': 50.0, 'top5': 75.0}
    """
    return {f"top{k}": round(100 * float(hits_at(ranks, k).mean()), 2) for k in (1, 5)}


def prepare(data: Quickstart, encoder: PairEncoder, splits: tuple[EntitySplit, ...] = ("unseen", "seen")) -> Bench:
    """Encode the test queries and all class prompts."""
    row_of = {entity.key: row for row, entity in enumerate(data.entities)}
    rows = np.concatenate([data.query_rows(split) for split in splits])
    truth = np.array([row_of[data.items[row].entity] for row in rows])
    labels = [entity.label for entity in data.entities]
    prompts = encoder.texts(labels)
    queries = TaskItems(encoder.images([drawing(data, row) for row in rows]), "image", truth)
    candidates = TaskItems(prompts, "text", np.arange(len(prompts)))
    return Bench(Task(queries, candidates, truth, tuple(labels)), data.entities, rows)


def drawing(data: Quickstart, row: int) -> Image.Image:
    """Return one image of the data set."""
    return Image.fromarray(np.ascontiguousarray(data.images[row]))


def pairs(data: Quickstart, splits: tuple[EntitySplit, ...]) -> list[Pair]:
    """Return the pairs of splits for a memory."""
    return [
        Pair(
            item.key,
            drawing(data, row),
            item.caption,
            {"caption": item.caption, "entity": item.entity, "style": item.style, "row": int(row)},
        )
        for row in data.memory_rows(splits)
        for item in [data.items[row]]
    ]


_SHOWN = 5  # neighbours per query


@dataclass(frozen=True, kw_only=True)
class _Neighbour:
    """A retrieved pair and its weight; the picture is a ``data:`` URL."""

    caption: str
    picture: str
    similarity: float  # cosine between query and neighbour
    relevant: bool  # whether it shows the entity of the query
    share: float


@dataclass(frozen=True, kw_only=True)
class _Card:
    """One query with its neighbours, its ranks, and the reason for its move."""

    name: str
    picture: str  # a ``data:`` URL
    rank_before: int  # rank of the true label, 0 is best
    rank_after: int
    seen: bool
    why: str
    neighbours: tuple[_Neighbour, ...]


def write_page(
    path: Path, reco: Reco, data: Quickstart, bench: Bench, results: dict[str, Any], stages: dict[str, str]
) -> None:
    """Write ``index.html``: the accuracy at each stage (name -> title), the largest gains and the largest losses."""
    task = bench.task
    prompts = reco.refine(task.candidates.vectors, modality="text", role="candidate", explain=True)
    refined = refine_task(reco, task)
    chosen = _choose(bench, refined)
    known = None if prompts.coverage is None else prompts.coverage.answered
    images = reco.refine(task.queries.vectors[chosen], modality="image", target="text", coverage=known, explain=True)
    cards = [_card(data, bench, refined, row, images, place) for place, row in enumerate(chosen)]
    environment = Environment(loader=PackageLoader("reco_plugin.demo", "."), autoescape=select_autoescape(["html"]))
    html = environment.get_template("page.html").render(
        gains=[card for card in cards if card.rank_after < card.rank_before],
        harms=[card for card in cards if card.rank_after > card.rank_before],
        results=results,
        stages=[(title, results if stage == "full" else results[stage]) for stage, title in stages.items()],
        prompts_decided=explain_decision(prompts.coverage, exact=True) if prompts.coverage else "",
        groups=list(TEST_GROUPS),
        labels=len(bench.entities),
        model=reco.manifest,
        sources=[*EMOJI_SOURCES, NAMES_SOURCE],
        counts={group: len(bench.group(group)) for group in TEST_GROUPS},
    )
    with whole_file(path) as part:
        part.write_text(html, encoding="utf-8")


def _choose(bench: Bench, refined: Task) -> list[int]:
    """Choose the rows with the largest rise and fall among all labels; each entity once."""
    before, after = rank_task(bench.task), rank_task(refined)
    order = np.argsort(np.log1p(after) - np.log1p(before), kind="stable")
    unseen = order[bench.query_splits[order] == "unseen"]
    return _each_once(unseen, refined, _GAINS) + _each_once(order[::-1], refined, _HARMS)


def _each_once(rows: npt.NDArray[np.int64], task: Task, count: int) -> list[int]:
    """Return the first query of each label among rows (M,); at most ``count``."""
    _, first = np.unique(task.queries.labels[rows], return_index=True)
    return [int(row) for row in rows[np.sort(first)][:count]]


def _card(data: Quickstart, bench: Bench, refined: Task, row: int, images: Refinement, place: int) -> _Card:
    entity = bench.entities[int(refined.queries.labels[row])]
    return _Card(
        picture=_png(data, int(bench.rows[row])),
        name=entity.label,
        seen=entity.split == "seen",
        why=_why(images, place),
        rank_before=_rank(bench.task, row),
        rank_after=_rank(refined, row),
        neighbours=_neighbours(data, images, place, entity.key),
    )


def _rank(task: Task, row: int) -> int:
    """Return the rank of the true label; ties do not count."""
    scores = scores_of(task, np.array([row]))[0]
    return int((scores > scores[task.queries.labels[row]]).sum())


def _why(result: Refinement, place: int) -> str:
    """Explain why one vector moved as far as it did, or why all stay plain."""
    if result.why is not None and (why := result.why[place]) is not None:
        return str(why)
    return f"It stays plain: {result.coverage.plain}." if result.coverage and result.coverage.plain else ""


def _neighbours(data: Quickstart, result: Refinement, place: int, entity: str) -> tuple[_Neighbour, ...]:
    used = used_pairs(result, place)
    total = sum(pair.weight for pair in used) or 1.0
    return tuple(
        _Neighbour(
            picture=_png(data, pair.payload["row"]),
            caption=pair.payload["caption"],
            similarity=pair.similarity,
            share=pair.weight / total,
            relevant=pair.payload["entity"] == entity,
        )
        for pair in used[:_SHOWN]
    )


def _png(data: Quickstart, row: int) -> str:
    buffer = io.BytesIO()
    drawing(data, row).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
