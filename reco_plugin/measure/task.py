"""A search with known answers as arrays: queries among candidates, and parts of it by query or by label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..types import Modality, Moves, Vectors

Side: TypeAlias = Literal["image", "text", "both"]
"""The sides of a task to refine, by modality."""
SIDES: tuple[Side, ...] = get_args(Side)
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TaskItems:
    """N vectors of one modality, each with the label of what it shows.

    Attributes:
        vectors: (N, D) unit-norm, frozen or refined.
        modality: of all.
        labels: (N,); the true candidates of a query are those of its label.
        own: N collections of ids of pairs to hide from the respective vector; None: nothing is hidden.
        moves: how they moved, for exact scores; None where frozen, or refined by a fusion without.
        answered: share of them, as candidates, that the memory knows; None where that is not known.
    """

    vectors: Vectors
    modality: Modality
    labels: npt.NDArray[np.int64]
    own: Sequence[Collection[str]] | None = None
    moves: Moves | None = None
    answered: float | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, chosen: Mask) -> TaskItems:
        """Select some of them, by mask (N,)."""
        own = None if self.own is None else [self.own[row] for row in np.flatnonzero(chosen).tolist()]
        moves = None if self.moves is None else self.moves.take(chosen)
        return TaskItems(self.vectors[chosen], self.modality, self.labels[chosen], own, moves)


@dataclass(frozen=True)
class Task:
    """N queries among C candidates, of L labels; parts of a task keep the numbers of the labels.

    Attributes:
        queries: N.
        candidates: C.
        groups: (N,) groups of queries that are drawn whole for intervals.
        classes: L names, where labels have names.
    """

    queries: TaskItems
    candidates: TaskItems
    groups: npt.NDArray[Any]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.queries)

    def only(self, chosen: Mask) -> Task:
        """Select queries, among all candidates; ``chosen`` is (N,)."""
        return replace(self, queries=self.queries.only(chosen), groups=self.groups[chosen])

    def among(self, chosen: Mask) -> Task:
        """Select the queries and the candidates of some labels; ``chosen`` is (L,)."""
        part = self.only(chosen[self.queries.labels])
        return replace(part, candidates=self.candidates.only(chosen[self.candidates.labels]))
