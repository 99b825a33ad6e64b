"""The quickstart benchmark as a measurement: zero-shot accuracy per split, side and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..evaluate.metrics import ranks, top_k
from ..types import ImageInput, Modality, Pair, Role, Vectors
from .dataset import Quickstart
from .entities import ALL_SPLITS, Entity, Split

Group = Literal["unseen", "seen", "all", "dev"]
GROUPS: dict[Group, tuple[tuple[Split, ...], tuple[Split, ...]]] = {
    "unseen": (("unseen",), ("unseen",)),
    "seen": (("seen",), ("seen",)),
    "all": (("unseen", "seen"), ALL_SPLITS),
    "dev": (("dev",), ("dev",)),
}
"""What is classified among which labels. ``all``: every test query among all labels together."""
TEST_GROUPS: tuple[Group, ...] = ("unseen", "seen", "all")
KNOWN: tuple[Split, ...] = ("seen", "fusion", "dev")
"""Splits whose pairs are in the memory before the unseen ones arrive."""

Side = Literal["frozen", "image", "text", "both"]
SIDES: tuple[Side, ...] = ("frozen", "image", "text", "both")
"""Which of query images and class prompts are refined."""

ROLES: dict[Modality, Role] = {"image": "query", "text": "candidate"}
"""In zero-shot classification images ask and prompts compete."""

Refine = Callable[[Vectors, Modality], Vectors]
Accuracy = dict[str, float]
"""``{"top1": percent, "top5": percent}``"""
Accuracies = dict[Group, dict[Side, Accuracy]]


class Encodes(Protocol):
    """A frozen encoder, in ONNX Runtime or in torch."""

    def images(self, images: Sequence[ImageInput]) -> Vectors:
        """(B, D) unit-norm."""
        ...

    def texts(self, texts: Sequence[str]) -> Vectors:
        """(B, D) unit-norm."""
        ...


@dataclass(frozen=True)
class Bench:
    """Frozen vectors of one benchmark under one encoder.

    Attributes:
        queries: (Q, D) test images of the splits ``query_splits``.
        labels: (C, D) prompts of all entities, in the order of ``entities``.
        query_splits: split of each query.
        truth: (Q,) row of each query's entity.
        entities: the C candidates.
        rows: (Q,) row of each query in the data set.
    """

    queries: Vectors
    labels: Vectors
    query_splits: list[Split]
    truth: npt.NDArray[np.int64]
    entities: list[Entity]
    rows: npt.NDArray[np.int64]

    def ranks(self, group: Group, queries: Vectors, labels: Vectors) -> npt.NDArray[np.int64]:
        """Rank of the true label (0 is first) of each query of a group."""
        query_splits, label_splits = GROUPS[group]
        chosen = np.flatnonzero([split in query_splits for split in self.query_splits])
        candidates = np.flatnonzero([entity.split in label_splits for entity in self.entities])
        truth = np.searchsorted(candidates, self.truth[chosen])
        return ranks(queries[chosen], labels[candidates], truth)

    def measure(
        self, refine: Refine, sides: tuple[Side, ...] = SIDES, groups: tuple[Group, ...] = TEST_GROUPS
    ) -> Accuracies:
        """Zero-shot accuracy in percent, per group and refined side."""
        image = refine(self.queries, "image") if {"image", "both"} & set(sides) else self.queries
        text = refine(self.labels, "text") if {"text", "both"} & set(sides) else self.labels
        return {
            group: {
                side: accuracy(
                    self.ranks(
                        group,
                        image if side in ("image", "both") else self.queries,
                        text if side in ("text", "both") else self.labels,
                    )
                )
                for side in sides
            }
            for group in groups
        }


def accuracy(found: npt.NDArray[np.int64]) -> Accuracy:
    """Top-1 and top-5 in percent of ranks.

    >>> accuracy(np.array([0, 3, 7, 0]))
    {'top1': 50.0, 'top5': 75.0}
    """
    return {f"top{k}": round(100 * float(top_k(found, k)), 2) for k in (1, 5)}


def prepare(data: Quickstart, encoder: Encodes, splits: tuple[Split, ...] = ("unseen", "seen")) -> Bench:
    """Encode the test queries and all class prompts."""
    row_of = {entity.key: row for row, entity in enumerate(data.entities)}
    rows = np.concatenate([data.query_rows(split) for split in splits])
    return Bench(
        queries=encoder.images([drawing(data, row) for row in rows]),
        labels=encoder.texts([entity.label for entity in data.entities]),
        query_splits=[data.items[row].split or "seen" for row in rows],
        truth=np.array([row_of[data.items[row].entity] for row in rows]),
        entities=data.entities,
        rows=rows,
    )


def drawing(data: Quickstart, row: int) -> Image.Image:
    """One image of the data set."""
    return Image.fromarray(np.ascontiguousarray(data.images[row]))


def pairs(data: Quickstart, splits: tuple[Split, ...]) -> list[Pair]:
    """The memory's pairs of these splits."""
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
