"""Zero-shot classification as arrays: queries among class prompts, and parts of it by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data import Labelled
from ...errors import ConfigError
from ...types import Vectors
from .streams import stream


@dataclass(frozen=True)
class Task:
    """N queries among C class prompts.

    Attributes:
        queries: (N, D) unit-norm image vectors.
        prompts: (C, D) unit-norm.
        labels: (N,) row of each query's prompt.
        classes: C names.
        numbers: (C,) number of each class in the whole set.
        rows: (N,) row of each query in the whole set.
        groups: (N,) what belongs together in confidence intervals.
        own: (N,) id of the memory's pair that is the query itself, or None where nothing is known.
        unseen: (C,) whether the encoder never saw the class; None where that is not known.
    """

    queries: Vectors
    prompts: Vectors
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    numbers: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    groups: npt.NDArray[Any]
    own: tuple[str, ...] | None = None
    unseen: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def hidden(self) -> list[tuple[str]] | None:
        """N collections of ids that the respective query must not find."""
        return None if self.own is None else [(id_,) for id_ in self.own]

    @property
    def query_unseen(self) -> npt.NDArray[np.bool_] | None:
        """(N,) whether the encoder never saw the query's class."""
        return None if self.unseen is None else self.unseen[self.labels]

    def among(self, chosen: npt.NDArray[np.bool_]) -> Task:
        """The queries of these classes, classified among these classes alone; ``chosen`` is (C,)."""
        kept, place = np.flatnonzero(chosen), np.cumsum(chosen) - 1
        part = self.only(chosen[self.labels])
        return replace(
            part,
            prompts=self.prompts[kept],
            labels=place[part.labels].astype(np.int64),
            classes=tuple(self.classes[row] for row in kept),
            numbers=self.numbers[kept],
            unseen=None if self.unseen is None else self.unseen[kept],
        )

    def only(self, chosen: npt.NDArray[np.bool_]) -> Task:
        """These queries, classified among all classes; ``chosen`` is (N,)."""
        rows = np.flatnonzero(chosen)
        return replace(
            self,
            queries=self.queries[rows],
            labels=self.labels[rows],
            rows=self.rows[rows],
            groups=self.groups[rows],
            own=None if self.own is None else tuple(self.own[row] for row in rows),
        )


def task_of(labelled: Labelled, queries: Vectors, prompts: Vectors) -> Task:
    """The task of a labelled set whose frozen vectors are (N, D) and (C, D)."""
    unseen = getattr(labelled, "unseen", None)
    return Task(
        queries=queries,
        prompts=prompts,
        labels=labelled.labels,
        classes=labelled.classes,
        numbers=np.arange(len(prompts)),
        rows=np.arange(len(queries)),
        groups=labelled.labels if labelled.groups is None else labelled.groups,
        own=labelled.query_ids,
        unseen=None if unseen is None else np.asarray(unseen, np.bool_),
    )


def split_classes(task: Task, seed: int) -> tuple[Task, Task]:
    """A development half and a test half by class, each classified among its own classes.

    Seen and unseen classes are halved alike; of an odd number the test half gets one more. Classes without queries
    count too, as candidates.

    Raises:
        ConfigError: fewer than four classes.
    """
    if len(task.classes) < 4:
        raise ConfigError(
            f"{len(task.classes)} classes are too few to choose baselines on one half and report on the other: "
            "give a development set (--dev FILE)"
        )
    dev = _half(task, stream(seed, "development classes"))
    return task.among(dev), task.among(~dev)


def folds(task: Task, seed: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The classes (C,) in two random halves, each of which is left out of the memory once."""
    first = _half(task, stream(seed, "folds"))
    return first, ~first


def _half(task: Task, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """(C,) a random half of the classes; the smaller one where their number is odd, alike for seen and unseen ones."""
    chosen = np.zeros(len(task.classes), np.bool_)
    kinds: Sequence[npt.NDArray[np.bool_]] = [np.ones(len(chosen), np.bool_)]
    if task.unseen is not None:
        kinds = [task.unseen, ~task.unseen]
    for kind in kinds:
        rows = rng.permutation(np.flatnonzero(kind))
        chosen[rows[: len(rows) // 2]] = True
    return chosen
