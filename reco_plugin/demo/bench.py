"""The benchmark of the drawings: test images among the prompts of all entities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..encoders.local import PairEncoder
from ..evaluation.ranking import SIDES, Side, Task, TaskItems, hits_at, rank_sides, refine_task
from ..fusion.exact_scores import Refines
from ..options import RefineHow
from ..quickstart.dataset import ALL_SPLITS, Entity, EntitySplit, Quickstart
from ..types import Pair

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
