"""Methods that classify with a memory, by refined vectors or by other scores; and the best baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ..fuse import Fused, Fuser
from ..refine import Refiner, Trusted
from ..retrieve import Retrieval, retrieve
from ..types import Caution, Modality, Neighbours, Vectors
from .baselines import ALONE, LogitEnsemble, enrichments, ensembles, grid, transfers
from .measure import Measured, measure, refine_task
from .ranking import ranks_among
from .task import Side, Task


class Measures(Protocol):
    """A method that classifies with a memory."""

    @property
    def sides(self) -> Side | None:
        """What it moves, and is compared with where the same is refined; None where it scores a list of classes."""
        ...

    def measure(self, task: Task, memory: Trusted) -> Measured:
        """Measure the method on a task with a memory."""
        ...


@dataclass(frozen=True)
class Method:
    """Classify by refined vectors."""

    fusers: tuple[Fuser | None, ...]  # of the trainings, at least one; None: the closed form
    how: Retrieval  # k, search and fusion
    gate: bool  # whether the closed form moves only as far as the memory's own pairs justify
    sides: Side = "both"  # which are refined; images are queries, prompts are candidates
    caution: Caution | float = "balanced"  # of the closed form

    @property
    def name(self) -> str:
        """Of the fusion."""
        return "reco" if self.fusers[0] is None else self.fusers[0].name

    def refiners(self, memory: Trusted) -> list[Refiner]:
        """A refiner for each of the trainings."""
        return [Refiner(memory, one, self.how, gate=self.gate, caution=self.caution) for one in self.fusers]

    def refine(self, task: Task, memory: Trusted) -> Iterator[Task]:
        """Refine the task by each of the trainings, one by one, to hold only one in RAM."""
        return (refine_task(refiner, task, {self.sides}) for refiner in self.refiners(memory))

    def measure(self, task: Task, memory: Trusted) -> Measured:
        """See :class:`Measures`."""
        return measure(task, self.refine(task, memory))


@dataclass(frozen=True)
class ScoringMethod:
    """Classify by scores that are no cosines of refined vectors."""

    scorer: LogitEnsemble
    how: Retrieval  # k, search and fusion
    block: int = 1024  # queries at a time
    sides: ClassVar[None] = None

    def measure(self, task: Task, memory: Trusted) -> Measured:
        """See :class:`Measures`."""
        found, queries, candidates = [], task.queries, task.candidates
        for rows, near in retrieve_blocks(task, memory, self.how, self.block):
            scores = self.scorer.scores(queries.vectors[rows], candidates.vectors, near)
            found.append(ranks_among(scores, queries.labels[rows], candidates.labels))
        return Measured(np.concatenate(found)[None])


def retrieve_blocks(
    task: Task, memory: Trusted, how: Retrieval, block: int = 1024
) -> Iterator[tuple[slice, Neighbours]]:
    """Retrieve for a task's queries, some at a time: the neighbours' vectors of all would be too large."""
    for start in range(0, len(task), block):
        rows, queries = slice(start, start + block), task.queries
        hidden = None if queries.own is None else queries.own[rows]
        yield rows, retrieve(memory.searches, queries.vectors[rows], queries.modality, how, exclude=hidden)


@dataclass(frozen=True)
class WithoutRetrieval:
    """Runs a fusion on empty neighbours, as in the control that is trained without retrieval."""

    fuser: Fuser

    @property
    def name(self) -> str:
        """Name of the fusion."""
        return f"{self.fuser.name}, no retrieval"

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Refine (B, D), see :meth:`reco_plugin.fuse.Fuser.fuse`."""
        nothing = replace(
            neighbours,
            vectors=np.zeros_like(neighbours.vectors),
            similarity=np.zeros_like(neighbours.similarity),
        )
        return self.fuser.fuse(modality, vectors, nothing, np.ones_like(trust))


@dataclass(frozen=True)
class Chosen:
    """The best of one kind of baseline."""

    kind: str
    method: Measures  # the best variant
    settings: str  # of the best variant, in words
    variants: int  # how many there were
    dev_top1: float  # its top-1 on the development task


def choose(
    dev: Task,
    memory: Trusted,
    kinds: Mapping[str, Callable[[], Iterable[Measures]]],
    watch: Callable[[Iterable[Any], str], Iterable[Any]],
) -> tuple[Chosen, ...]:
    """Choose the variant of every kind with the highest top-1 on ``dev``, the first of equals; in the given order."""
    best = []
    for kind, variants in kinds.items():
        tried = [
            (method, float(method.measure(dev, memory).top(1).mean())) for method in watch(variants(), f"choose {kind}")
        ]
        method, top1 = max(tried, key=lambda one: one[1])
        best.append(Chosen(kind, method, _settings(method), len(tried), top1))
    return tuple(best)


def baseline_kinds(k: int, sides: Side) -> dict[str, Callable[[], Iterable[Measures]]]:
    """Variants of the simple baselines by kind; they retrieve k neighbours, and trust all of them.

    The mean of neighbours moves ``sides``, so that there is one to compare with; the others are what they are.
    """
    near = Retrieval(k)
    captions = replace(near, search="uni", fusion="uni")
    return {
        "mean of neighbours": lambda: [_moving(fuser, near, sides) for fuser in grid(sides)],
        "kNN label transfer": lambda: [_moving(fuser, near, "image") for fuser in transfers()],
        "logit ensemble": lambda: [ScoringMethod(scorer, near) for scorer in ensembles()],
        "text-only enrichment": lambda: [_moving(fuser, captions, "text") for fuser in enrichments()],
    }


def _moving(fuser: Fuser, how: Retrieval, sides: Side) -> Method:
    return Method((fuser,), how, gate=False, sides=sides)


def _settings(method: Measures) -> str:
    """A variant in words: as it says itself, else the numbers that tell it from others."""
    of: Any = method
    if isinstance(method, Method | ScoringMethod):
        of = method.fusers[0] if isinstance(method, Method) else method.scorer
    values = {field.name: getattr(of, field.name) for field in fields(of)}
    numbers = {name.replace("_", " "): value for name, value in values.items() if isinstance(value, int | float)}
    return values.get("settings") or ", ".join(
        f"{name} {'alone' if value == ALONE else format(value, 'g')}" for name, value in numbers.items()
    )
