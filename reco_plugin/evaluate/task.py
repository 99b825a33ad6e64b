"""A labelled task as arrays: queries among candidates, and parts of it by query or by label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..data import Labelled
from ..types import Coverage, Modality, Vectors

Side: TypeAlias = Literal["image", "text", "both"]
"""What is refined of a task, by modality."""
SIDES: tuple[Side, ...] = get_args(Side)
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TaskItems:
    """N vectors of one modality, each with the label of what it shows.

    Attributes:
        vectors: (N, D) unit-norm, frozen or refined.
        modality: of the vectors.
        labels: (N,); a query's true candidates are those of its label.
        own: N collections of ids that the respective vector must not find; None where nothing is known.
        coverage: how far the memory answered them, where they were refined and that was told.
    """

    vectors: Vectors
    modality: Modality
    labels: npt.NDArray[np.int64]
    own: Sequence[Collection[str]] | None = None
    coverage: Coverage | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, chosen: Mask) -> TaskItems:
        """Some of them, by mask (N,); how far these are answered is not known any more."""
        own = None if self.own is None else [self.own[row] for row in np.flatnonzero(chosen).tolist()]
        return TaskItems(self.vectors[chosen], self.modality, self.labels[chosen], own)


@dataclass(frozen=True)
class Task:
    """N queries among C candidates, of L labels; parts of a task keep the numbers of the labels."""

    queries: TaskItems  # what asks
    candidates: TaskItems  # what is searched
    groups: npt.NDArray[Any]  # (N,) what belongs together in confidence intervals
    classes: tuple[str, ...] = ()  # L names, where labels have any
    unseen: Mask | None = None  # (L,) whether the encoder never saw what a label names; None where that is not known
    rows: npt.NDArray[np.int64] | None = None  # (N,) row of each query in the whole set; None where nobody asks

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def query_unseen(self) -> Mask | None:
        """(N,) whether the encoder never saw what the query shows."""
        return None if self.unseen is None else self.unseen[self.queries.labels]

    def only(self, chosen: Mask) -> Task:
        """These queries, among all candidates; ``chosen`` is (N,)."""
        rows = None if self.rows is None else self.rows[chosen]
        return replace(self, queries=self.queries.only(chosen), groups=self.groups[chosen], rows=rows)

    def among(self, chosen: Mask) -> Task:
        """The queries of these labels, among the candidates of these labels alone; ``chosen`` is (L,)."""
        part = self.only(chosen[self.queries.labels])
        return replace(part, candidates=self.candidates.only(chosen[self.candidates.labels]))


def task_of(labelled: Labelled, queries: Vectors, prompts: Vectors) -> Task:
    """The classification of a labelled set whose frozen vectors are (N, D) and (C, D)."""
    own = None if labelled.query_ids is None else [(id_,) for id_ in labelled.query_ids]
    return Task(
        queries=TaskItems(queries, "image", labelled.labels, own),
        candidates=TaskItems(prompts, "text", np.arange(len(prompts))),
        groups=labelled.labels if labelled.groups is None else labelled.groups,
        classes=labelled.classes,
        unseen=labelled.unseen,
        rows=np.arange(len(queries)),
    )
