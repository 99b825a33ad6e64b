"""Measure one way to classify on one memory: the step that every line of every table shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...calibration import calibrate
from ...defaults import CANDIDATE_HEIGHT
from ...fuse import Fuser
from ...memory import Fingerprint, Searches, open_memory
from ...refine import Calibrated, Refiner, VectorMemory
from ...retrieve import Retrieval, retrieve
from ...types import Neighbours, Records, Vectors
from ..baselines import Scorer, ranks_of_scores
from ..frozen import refined_candidates, refined_queries
from ..metrics import ranks
from ..zero_shot import Side
from .memories import RememberingMemory
from .task import Task

Ranks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """What became of N queries; several models of one kind are averaged query by query.

    Attributes:
        top1: (N,) share of the models for which the query's class came first.
        top5: (N,) share for which it was among the first five.
        models: top-1 of each model, in order.
    """

    top1: npt.NDArray[np.float64]
    top5: npt.NDArray[np.float64]
    models: tuple[float, ...]

    @classmethod
    def of(cls, found: Sequence[Ranks]) -> Outcome:
        """From the ranks (N,) of each model.

        >>> Outcome.of([np.array([0, 3]), np.array([0, 0])])
        Outcome(top1=array([1. , 0.5]), top5=array([1., 1.]), models=(0.5, 1.0))
        """
        first = [rank < 1 for rank in found]
        return cls(
            np.mean(first, axis=0), np.mean([rank < 5 for rank in found], axis=0), tuple(float(f.mean()) for f in first)
        )

    def only(self, mask: npt.NDArray[np.bool_]) -> Outcome:
        """Of some queries; what the models did on these is not known any more."""
        return Outcome(self.top1[mask], self.top5[mask], ())

    @classmethod
    def merge(cls, parts: Sequence[tuple[npt.NDArray[np.bool_], Outcome]]) -> Outcome:
        """From outcomes of parts of the queries, each with its mask (N,); together they cover all."""
        top1, top5 = np.empty((2, len(parts[0][0])))
        for mask, outcome in parts:
            top1[mask], top5[mask] = outcome.top1, outcome.top5
        weight = [mask.sum() / len(mask) for mask, _ in parts]
        models = np.sum([w * np.array(outcome.models) for w, (_, outcome) in zip(weight, parts, strict=True)], axis=0)
        return cls(top1, top5, tuple(map(float, models)))


class Method(Protocol):
    """A way to classify with a memory."""

    def ranks(self, task: Task, memory: Calibrated) -> list[Ranks]:
        """(N,) rank of each query's class, once per model; 0 is best."""
        ...


@dataclass(frozen=True)
class Refining:
    """Classify by refined vectors.

    Attributes:
        fusers: of the models, at least one.
        how: k, search and fusion.
        gate: whether calibrated trust weighs the neighbours.
        sides: which are refined; images are queries, prompts are candidates.
        height: how far candidates move.
    """

    fusers: tuple[Fuser, ...]
    how: Retrieval
    gate: bool
    sides: Side = "both"
    height: float = CANDIDATE_HEIGHT

    def refiner(self, memory: Calibrated, model: int = 0) -> Refiner:
        """What one of the models refines with."""
        return Refiner(memory, self.fusers[model], self.how, gate=self.gate, candidate_height=self.height)

    def refine(self, task: Task, memory: Calibrated, model: int = 0) -> tuple[Vectors, Vectors]:
        """Queries (N, D) and prompts (C, D) as one of the models refines them."""
        refiner, queries, prompts = self.refiner(memory, model), task.queries, task.prompts
        if self.sides != "text":
            queries = refined_queries(refiner, queries, "image", task.hidden).vectors
        if self.sides != "image":
            prompts = refined_candidates(refiner, prompts, "text", None).vectors
        return queries, prompts

    def ranks(self, task: Task, memory: Calibrated) -> list[Ranks]:
        """See :class:`Method`."""
        return [ranks(*self.refine(task, memory, model), task.labels) for model in range(len(self.fusers))]

    def with_k(self, k: int) -> Refining:
        """The same with other neighbours."""
        return replace(self, how=replace(self.how, k=k))


@dataclass(frozen=True)
class Scoring:
    """Classify by scores that are no cosines of refined vectors.

    Attributes:
        scorer: makes them.
        how: which neighbours the images get.
    """

    scorer: Scorer
    how: Retrieval
    block: int = 1024

    def ranks(self, task: Task, memory: Calibrated) -> list[Ranks]:
        """See :class:`Method`."""
        hidden, found = task.hidden, []
        for start in range(0, len(task), self.block):
            rows = slice(start, start + self.block)
            near: Neighbours = retrieve(
                memory.searches, task.queries[rows], "image", self.how, exclude=hidden[rows] if hidden else None
            )
            scores = self.scorer.scores(task.queries[rows], task.prompts, near)
            found.append(ranks_of_scores(scores, task.labels[rows]))
        return [np.concatenate(found)]


def measure(method: Method, task: Task, memory: Calibrated) -> Outcome:
    """What a method makes of a task with a memory."""
    return Outcome.of(method.ranks(task, memory))


def frozen(task: Task) -> Outcome:
    """The same without any refinement."""
    return Outcome.of([ranks(task.queries, task.prompts, task.labels)])


def memory_of(
    records: Records,
    fingerprint: Fingerprint,
    neighbours: int,
    around: Callable[[Searches], Searches] = RememberingMemory,
) -> VectorMemory:
    """An exact memory of these pairs in RAM, calibrated anew, as it would be when they were added.

    Args:
        records: pairs; none make an empty memory.
        fingerprint: of their encoder.
        neighbours: k of the searches to come.
        around: wraps the store; else its searches are remembered.
    """
    store = open_memory(":memory:", fingerprint, kind="exact")
    store.upsert(records)
    calibration = calibrate(records.image, records.text, neighbours=neighbours) if len(records) else None
    return VectorMemory(store, calibration, around(store))
