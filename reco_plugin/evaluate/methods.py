"""Ways to classify with a memory: by refined vectors, or by scores that are no cosines of any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..defaults import CANDIDATE_HEIGHT
from ..fuse import Fuser
from ..refine import Calibrated, Refiner
from ..retrieve import Retrieval, retrieve
from .baselines import Scorer, ranks_of_scores
from .measure import Measured, measure, refine_task
from .task import Side, Task


class Measures(Protocol):
    """A way to classify with a memory."""

    def measure(self, task: Task, memory: Calibrated) -> Measured:
        """What it makes of a task with a memory."""
        ...


@dataclass(frozen=True)
class Method:
    """Classify by refined vectors.

    Attributes:
        fusers: of the trainings, at least one.
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

    def refiners(self, memory: Calibrated) -> list[Refiner]:
        """What each of the trainings refines with."""
        return [Refiner(memory, one, self.how, gate=self.gate, candidate_height=self.height) for one in self.fusers]

    def refine(self, task: Task, memory: Calibrated) -> list[Task]:
        """The task as each of the trainings refines it."""
        return [refine_task(refiner, task, {self.sides}) for refiner in self.refiners(memory)]

    def measure(self, task: Task, memory: Calibrated) -> Measured:
        """See :class:`Measures`."""
        return measure(task, self.refine(task, memory))

    def with_k(self, k: int) -> Method:
        """The same with other neighbours."""
        return replace(self, how=replace(self.how, k=k))


@dataclass(frozen=True)
class ScoringMethod:
    """Classify by scores that are no cosines of refined vectors.

    Attributes:
        scorer: makes them.
        how: which neighbours the queries get.
        block: queries at a time.
    """

    scorer: Scorer
    how: Retrieval
    block: int = 1024

    def measure(self, task: Task, memory: Calibrated) -> Measured:
        """See :class:`Measures`."""
        queries, candidates, found = task.queries, task.candidates, []
        places = np.searchsorted(candidates.labels, queries.labels)
        for start in range(0, len(task), self.block):
            rows = slice(start, start + self.block)
            hidden = None if queries.own is None else queries.own[rows]
            near = retrieve(memory.store, queries.vectors[rows], queries.modality, self.how, exclude=hidden)
            scores = self.scorer.scores(queries.vectors[rows], candidates.vectors, near)
            found.append(ranks_of_scores(scores, places[rows]))
        return Measured(np.concatenate(found)[None])
