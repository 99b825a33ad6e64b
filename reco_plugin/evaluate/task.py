"""A labelled task as arrays: queries among candidates, and parts of it by query or by label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..data import Labelled
from ..types import Coverage, Modality, Moves, Vectors

Side: TypeAlias = Literal["image", "text", "both"]
"""The sides of a task to refine, by modality."""
SIDES: tuple[Side, ...] = get_args(Side)
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TaskItems:
    """N vectors of one modality, each with the label of what it shows."""

    vectors: Vectors  # (N, D) unit-norm, frozen or refined
    modality: Modality
    labels: npt.NDArray[np.int64]  # (N,); a query's true candidates are those of its label
    own: Sequence[Collection[str]] | None = None  # N collections of ids to hide from the respective vector, where known
    coverage: Coverage | None = None  # of the refinement, where they were refined by one that reports it
    moves: Moves | None = None  # how they moved, for exact scores; None where frozen, or refined by a fusion without

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, chosen: Mask) -> TaskItems:
        """Select some of them, by mask (N,); without coverage, which is of all."""
        own = None if self.own is None else [self.own[row] for row in np.flatnonzero(chosen).tolist()]
        moves = None if self.moves is None else self.moves.take(chosen)
        return TaskItems(self.vectors[chosen], self.modality, self.labels[chosen], own, moves=moves)


@dataclass(frozen=True)
class Task:
    """N queries among C candidates, of L labels; parts of a task keep the numbers of the labels."""

    queries: TaskItems
    candidates: TaskItems
    groups: npt.NDArray[Any]  # (N,) groups of the confidence intervals
    classes: tuple[str, ...] = ()  # L names, where labels have names
    unseen: Mask | None = None  # (L,) whether a label was unseen in training; None where not known

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def query_unseen(self) -> Mask | None:
        """Whether the query's label was unseen in training, (N,)."""
        return None if self.unseen is None else self.unseen[self.queries.labels]

    def only(self, chosen: Mask) -> Task:
        """Select queries, among all candidates; ``chosen`` is (N,)."""
        return replace(self, queries=self.queries.only(chosen), groups=self.groups[chosen])

    def among(self, chosen: Mask) -> Task:
        """Select the queries and the candidates of some labels; ``chosen`` is (L,)."""
        part = self.only(chosen[self.queries.labels])
        return replace(part, candidates=self.candidates.only(chosen[self.candidates.labels]))


def task_of(labelled: Labelled, queries: Vectors, prompts: Vectors) -> Task:
    """Make the classification task of a labelled set from frozen queries (N, D) and prompts (C, D)."""
    own = None if labelled.query_ids is None else [(id_,) for id_ in labelled.query_ids]
    return Task(
        queries=TaskItems(queries, "image", labelled.labels, own),
        candidates=TaskItems(prompts, "text", np.arange(len(prompts))),
        groups=labelled.labels if labelled.groups is None else labelled.groups,
        classes=labelled.classes,
        unseen=labelled.unseen,
    )
