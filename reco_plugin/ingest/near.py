"""Nearly equal images: evaluation images to exclude, and near-duplicates among pairs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..memory import Memory
from ..request import Search
from ..types import Vectors


@dataclass(frozen=True)
class Near:
    """The nearest image to another one."""

    id: str  # of its pair
    similarity: float  # cosine of both images


@dataclass(frozen=True)
class Excluded:
    """Images that must not enter the memory."""

    ids: Sequence[str]  # E ids; pairs with one of these ids are excluded too
    vectors: Vectors  # (E, D) of their images

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.ids)

    def find(self, ids: Sequence[str], images: Vectors, threshold: float) -> list[Near | None]:
        """The excluded image that each of B pairs resembles: the one of its id, else the nearest above the threshold.

        Images are (B, D), the threshold is a cosine.
        """
        if not len(self.vectors):
            return [None] * len(ids)
        known, scores = self._names, images @ self.vectors.T  # (B, E)
        best = scores.argmax(axis=1)
        found: list[Near | None] = []
        for row, (id_, place) in enumerate(zip(ids, best.tolist(), strict=True)):
            similarity = float(scores[row, place])
            named = id_ if id_ in known else self.ids[place]
            found.append(Near(named, similarity) if id_ in known or similarity >= threshold else None)
        return found


def stored_neighbours(memory: Memory, images: Vectors, threshold: float, without: Collection[str]) -> list[Near | None]:
    """The nearest stored image of each of (B, D) images, above the threshold, which is a cosine.

    The ids of ``without`` are ignored, because they are about to be replaced.
    """
    if not len(images) or not memory.count():
        return [None] * len(images)
    exclude = [without] * len(images) if without else None
    found = memory.search(Search(images, by="image", read="image", k=1, exclude=exclude))
    return [
        Near(ids[0], float(similarity[0])) if ids and similarity[0] >= threshold else None
        for ids, similarity in zip(found.ids, found.similarity, strict=True)
    ]


class BatchNear:
    """Nearest images among the kept rows of a batch (B, D)."""

    def __init__(self, ids: Sequence[str], images: Vectors) -> None:
        self._ids, self._scores = ids, np.asarray(images @ images.T)  # (B, B)
        self._staying: list[int] = []

    def before(self, row: int, threshold: float) -> Near | None:
        """The nearest earlier row that is kept, above the threshold."""
        if not self._staying:
            return None
        scores = self._scores[row, self._staying]
        place = int(scores.argmax())
        return Near(self._ids[self._staying[place]], float(scores[place])) if scores[place] >= threshold else None

    def stay(self, row: int) -> None:
        """Keep a row: later rows are compared with it."""
        self._staying.append(row)
