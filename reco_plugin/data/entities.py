"""Entity recognition among very many candidates, as in OVEN (Hu et al., 2023, arXiv:2302.11154)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..defaults import SCROLL_BATCH
from ..types import ImageInput, Vectors
from .images import pick


class Entities(Protocol):
    """C named candidates in order, up to millions."""

    @property
    def unseen(self) -> npt.NDArray[np.bool_] | None:
        """(C,) True for the unseen ones; None where not known."""
        ...

    def __len__(self) -> int: ...

    def names(self, batch_size: int) -> Iterator[list[str]]:
        """The names, in batches."""
        ...

    def name(self, row: int) -> str:
        """The name of one entity."""
        ...

    def vectors(self, batch_size: int) -> Iterator[Vectors] | None:
        """The text vectors in batches (B, D); None where there are names only."""
        ...


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
    entities: Entities
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
