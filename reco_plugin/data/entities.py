"""Entity recognition among very many candidates, as in OVEN (Hu et al., 2023, arXiv:2302.11154)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..defaults import SCROLL_BATCH
from ..types import ImageInput, Vectors
from .columns import ColumnValues, check_side, texts_of
from .entity_file import EntityFile
from .images import pick


@dataclass(frozen=True)
class EntityVectors:
    """Entities with a vector each; arrays may be mapped from disk."""

    path: Path  # their source, for messages
    array: ColumnValues  # (C, D), unit-norm, of any float type; checked while reading
    texts: ColumnValues | None = None  # (C,) names; None: their numbers
    unseen: npt.NDArray[np.bool_] | None = None  # (C,) True for unseen ones, or None

    def __len__(self) -> int:
        return len(self.array)

    def vectors(self, batch_size: int) -> Iterator[Vectors]:
        """The vectors as float32 of exactly unit norm, in batches (B, D).

        Raises:
            DataError: NaN, or not unit-norm; the message names the row.
        """
        for start in range(0, len(self), batch_size):
            part = np.asarray(self.array[start : start + batch_size])
            yield check_side(self.path, "entities", part, first_row=start)

    def names(self, batch_size: int) -> Iterator[list[str]]:
        """The names, in batches."""
        for start in range(0, len(self), batch_size):
            yield self._names(start, min(start + batch_size, len(self)))

    def name(self, row: int) -> str:
        """The name of one entity."""
        return self._names(row, row + 1)[0]

    def _names(self, start: int, stop: int) -> list[str]:
        if self.texts is None:
            return [str(row) for row in range(start, stop)]
        return texts_of(self.path, "names", np.asarray(self.texts[start:stop]))


@dataclass(frozen=True)
class EntitySet:
    """N queries, each of which shows one of C entities.

    Attributes:
        name: of the source.
        images: N images, or their vectors (N, D), unit-norm.
        labels: (N,) entity of each query, 0 … C-1.
        entities: the C candidates; names and vectors stay on disk where possible.
        questions: N questions about the images, may be empty texts; None: there are none.
        unseen: (N,) True for queries of unseen entities; None where not known.
        query_ids: N ids; a pair of the memory with the same id is hidden from its own query. None: nothing is hidden.
    """

    name: str
    images: Sequence[ImageInput] | Vectors
    labels: npt.NDArray[np.int64]
    entities: EntityFile | EntityVectors
    questions: tuple[str, ...] | None = None
    unseen: npt.NDArray[np.bool_] | None = None
    query_ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def names(self, batch_size: int = SCROLL_BATCH) -> Iterator[list[str]]:
        """The names of all C entities in order, in batches."""
        return self.entities.names(batch_size)

    def vectors(self, batch_size: int = SCROLL_BATCH) -> Iterator[Vectors] | None:
        """The text vectors of all C entities in order, in batches (B, D); None where the source has names only.

        Raises:
            DataError: while reading: NaN, or not unit-norm.
        """
        return self.entities.vectors(batch_size)

    def take(self, rows: npt.NDArray[np.int64]) -> EntitySet:
        """Select queries by row (M,), in this order; all entities stay, raw images stay unopened."""
        return replace(
            self,
            images=pick(self.images, rows),
            labels=self.labels[rows],
            questions=None if self.questions is None else tuple(self.questions[row] for row in rows),
            unseen=None if self.unseen is None else self.unseen[rows],
            query_ids=None if self.query_ids is None else tuple(self.query_ids[row] for row in rows),
        )
