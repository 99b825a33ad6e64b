"""Methods that classify with a memory, by refined vectors or by other scores; and simple baselines, to be beaten.

Most baselines are fusers, and move vectors; the logit ensemble mixes scores instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ..fuse import Fused, Fuser, Learned, NeighbourFuser
from ..refine import Refiner
from ..types import MODALITIES, Caution, Modality, Neighbours, Search, Vectors, other
from .measure import Measured, measure, refine_task
from .modes import InModes, Mode
from .ranking import ranks_among
from .task import Side, Task

ALONE = 1e6
"""A weight so large that the neighbours replace the query: label transfer."""
_TEMPERATURES = (0.05, np.inf)

ScoreMatrix = npt.NDArray[np.floating[Any]]
"""(B, C); larger is nearer."""


@dataclass(frozen=True)
class MeanOfNeighbours(NeighbourFuser):
    """query + weight * softmax(similarity / temperature)-weighted mean of the neighbours' vectors.

    With a large image weight this is kNN label transfer; with a large text weight, prompts become prototypes.
    """

    image_weight: float  # 0 leaves the side frozen
    text_weight: float
    temperature: float  # of the shares; infinity weighs all neighbours alike
    name: str = "mean of neighbours"

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Refine (B, D), see :meth:`reco_plugin.fuse.Fuser.fuse`; trust only masks padding."""
        weight = self.image_weight if modality == "image" else self.text_weight
        shares = shares_of(neighbours.similarity, trust > 0, self.temperature)
        mean = np.einsum("bk,bkd->bd", shares, neighbours.vectors)
        refined = vectors + weight * mean
        refined /= np.linalg.norm(refined, axis=1, keepdims=True)
        return Fused(refined.astype(np.float32), shares.astype(np.float32))


@dataclass(frozen=True)
class LogitEnsemble:
    """(1 - weight) * CLIP's class probabilities + weight * those of the neighbours' texts, as kNN-LM mixes them.

    Each neighbour votes with the probabilities that CLIP gives the classes for its text; a query without neighbours
    keeps its own. (Adding weighted cosines instead would rank as :class:`MeanOfNeighbours` does.)
    """

    weight: float  # of the votes, from 0 to 1
    scale: float  # logit per unit of cosine; CLIP's own is about 100
    temperature: float  # of the neighbours' shares; infinity weighs all alike

    def scores(self, queries: Vectors, prompts: Vectors, neighbours: Neighbours) -> ScoreMatrix:
        """Score C classes (B, C) for B image queries; all are frozen, and neighbours are read as texts."""
        own = softmax(self.scale * (queries @ prompts.T))  # (B, C)
        votes = votes_of(neighbours, prompts, self.scale, self.temperature)
        weight = self.weight * neighbours.found.any(axis=1, keepdims=True)
        return np.asarray(np.log((1.0 - weight) * own + weight * votes + 1e-12), np.float64)


def grid(sides: Side = "both") -> list[MeanOfNeighbours]:
    """Variants of the mean that move these sides at most, to choose the best of on a development split."""
    weights = (0.0, 0.5, 1.0, 2.0, ALONE)
    images, texts = (weights if sides in (side, "both") else (0.0,) for side in MODALITIES)
    return [
        MeanOfNeighbours(image, text, temperature)
        for image, text, temperature in product(images, texts, _TEMPERATURES)
        if image or text
    ]


def transfers() -> list[MeanOfNeighbours]:
    """KNN label transfer: the neighbours' texts replace the image query; prompts stay."""
    return [MeanOfNeighbours(ALONE, 0.0, temperature, "kNN label transfer") for temperature in _TEMPERATURES]


def enrichments() -> list[MeanOfNeighbours]:
    """Text-only enrichment, for uni-modal search and fusion: prompts gain their nearest captions; images stay."""
    return [
        MeanOfNeighbours(0.0, weight, temperature, "text-only enrichment")
        for weight, temperature in product((0.25, 0.5, 1.0, 2.0), _TEMPERATURES)
    ]


def ensembles() -> list[LogitEnsemble]:
    """Logit ensembles of frozen CLIP and the neighbours."""
    return [
        LogitEnsemble(weight, scale, temperature)
        for weight, scale, temperature in product((0.1, 0.3, 0.5, 0.7, 0.9), (20.0, 100.0), _TEMPERATURES)
    ]


def votes_of(neighbours: Neighbours, prompts: Vectors, scale: float, temperature: float) -> ScoreMatrix:
    """Class probabilities (B, C) that CLIP gives the neighbours' texts, by the neighbours' shares."""
    shares = shares_of(neighbours.similarity, neighbours.found, temperature)  # (B, K)
    votes = np.zeros((len(shares), len(prompts)), np.float32)
    for place in range(shares.shape[1]):  # (B, K, C) at once would be too large
        votes += shares[:, place, None] * softmax(scale * (neighbours.vectors[:, place] @ prompts.T))
    return votes


def shares_of(similarity: ScoreMatrix, present: npt.NDArray[np.bool_], temperature: float) -> ScoreMatrix:
    """Shares (B, K) of the neighbours that are present, summing to 1; 0 where there are none."""
    logits = np.where(present, similarity / temperature, -np.inf)
    logits -= logits.max(axis=1, keepdims=True, initial=-1e9)
    shares = np.exp(logits)
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12))


def softmax(logits: ScoreMatrix) -> ScoreMatrix:
    """Shares (B, C) that sum to 1, of logits."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


class Measures(Protocol):
    """A method that classifies with a memory."""

    @property
    def sides(self) -> Side | None:
        """What it moves, and is compared with where the same is refined; None where it scores a list of classes."""
        ...

    def measure(self, task: Task, memory: Learned) -> Measured:
        """Measure the method on a task with a memory."""
        ...


@dataclass(frozen=True)
class Method:
    """Classify by refined vectors."""

    fusers: tuple[Fuser | None, ...]  # of the trainings, at least one; None: the closed form
    k: int  # neighbours per query
    gate: bool  # whether the closed form moves only as far as the memory's own pairs justify
    sides: Side = "both"  # which are refined; images are queries, prompts are candidates
    caution: Caution | float = "balanced"  # of the closed form
    modes: tuple[Mode, Mode] = ("uni", "cross")  # search and fusion

    @property
    def name(self) -> str:
        """Of the fusion."""
        return "reco" if self.fusers[0] is None else self.fusers[0].name

    def refiners(self, memory: Learned) -> list[Refiner]:
        """A refiner for each of the trainings."""
        if self.modes != ("uni", "cross"):
            memory = InModes(memory, *self.modes)
        return [Refiner(memory, one, k=self.k, gate=self.gate, caution=self.caution) for one in self.fusers]

    def refine(self, task: Task, memory: Learned) -> Iterator[Task]:
        """Refine the task by each of the trainings, one by one, to hold only one in RAM."""
        return (refine_task(refiner, task, {self.sides}) for refiner in self.refiners(memory))

    def measure(self, task: Task, memory: Learned) -> Measured:
        """See :class:`Measures`."""
        return measure(task, self.refine(task, memory))


@dataclass(frozen=True)
class ScoringMethod:
    """Classify by scores that are no cosines of refined vectors."""

    scorer: LogitEnsemble
    k: int  # neighbours per query
    block: int = 1024  # queries at a time
    sides: ClassVar[None] = None

    def measure(self, task: Task, memory: Learned) -> Measured:
        """See :class:`Measures`."""
        found, queries, candidates = [], task.queries, task.candidates
        for rows, near in retrieve_blocks(task, memory, self.k, self.block):
            scores = self.scorer.scores(queries.vectors[rows], candidates.vectors, near)
            found.append(ranks_among(scores, queries.labels[rows], candidates.labels))
        return Measured(np.concatenate(found)[None])


def retrieve_blocks(task: Task, memory: Learned, k: int, block: int = 1024) -> Iterator[tuple[slice, Neighbours]]:
    """Retrieve for a task's queries, some at a time: the neighbours' vectors of all would be too large."""
    for start in range(0, len(task), block):
        rows, queries = slice(start, start + block), task.queries
        hidden = None if queries.own is None else queries.own[rows]
        side = queries.modality
        yield rows, memory.searches.search(Search(queries.vectors[rows], side, other(side), k, hidden))


@dataclass(frozen=True)
class WithoutRetrieval(NeighbourFuser):
    """Runs a fusion on empty neighbours, as in the control that is trained without retrieval."""

    fuser: NeighbourFuser

    @property
    def name(self) -> str:  # type: ignore[override]  # it is a dataclass, which is only read
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
    memory: Learned,
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

    def moving(fuser: Fuser, sides: Side, modes: tuple[Mode, Mode] = ("uni", "cross")) -> Method:
        return Method((fuser,), k, gate=False, sides=sides, modes=modes)

    return {
        "mean of neighbours": lambda: [moving(fuser, sides) for fuser in grid(sides)],
        "kNN label transfer": lambda: [moving(fuser, "image") for fuser in transfers()],
        "logit ensemble": lambda: [ScoringMethod(scorer, k) for scorer in ensembles()],
        "text-only enrichment": lambda: [moving(fuser, "text", ("uni", "uni")) for fuser in enrichments()],
    }


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
