"""What else could be done with a memory's pairs instead of refining, on vectors alone; with the papers' definitions.

A linear adapter moves vectors, as users do before they fine-tune. Tip-Adapter's cache, label propagation and X-MoRe
score classes: they give no vector to search with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..fuse import Learned
from ..types import Modality, Records, Vectors
from .measure import Measured, measure
from .methods import Measures, ScoreMatrix, retrieve_blocks, softmax, votes_of
from .ranking import parts, rank_scores
from .task import Mask, Side, Task, TaskItems

_BATCH = 512


@dataclass(frozen=True)
class LinearAdapter:
    """Moves a vector by a matrix, residually: x + xW, unit-norm. Images and texts have a matrix each.

    The linear case of CLIP-Adapter (Gao et al., *CLIP-Adapter: Better vision-language models with feature adapters*,
    IJCV 2024), trained with CLIP's own loss, so that it needs no classes.
    """

    weights: Vectors  # (2, D, D): of images, of texts
    settings: str
    sides: Side = "both"  # whose matrix was trained

    def move(self, vectors: Vectors, modality: Modality) -> Vectors:
        """Adapt (N, D) vectors of one modality; (N, D) unit-norm."""
        return _unit(vectors + vectors @ self.weights[int(modality == "text")])[0]

    def measure(self, task: Task, memory: Learned) -> Measured:
        """See :class:`.methods.Measures`."""
        queries, candidates = (self._adapt(items) for items in (task.queries, task.candidates))
        return measure(task, [replace(task, queries=queries, candidates=candidates)])

    def _adapt(self, items: TaskItems) -> TaskItems:
        return replace(items, vectors=self.move(items.vectors, items.modality))


def train_adapters(
    pairs: Records, captions: Sequence[str], steps: Sequence[int], *, rate: float, scale: float, side: Side, seed: int
) -> Iterator[LinearAdapter]:
    """Train an adapter by CLIP's symmetric loss and Adam; yields it after each number of steps, in rising order.

    Args:
        pairs: N pairs.
        captions: (N,) equal captions are no negatives.
        steps: of 512 pairs each.
        rate: of Adam, constant.
        scale: logit per unit of cosine.
        side: whose matrix is trained; the other stays zero.
        seed: of the batches.
    """
    rng, kinds = np.random.default_rng(seed), np.unique(np.array(captions, np.str_), return_inverse=True)[1]
    dimension = pairs.image.shape[1]
    weights, mean, square = np.zeros((3, 2, dimension, dimension), np.float32)
    trained = np.array([side != "text", side != "image"], np.float32)[:, None, None]
    for step in range(1, max(steps) + 1):
        rows = rng.choice(len(pairs), min(_BATCH, len(pairs)), replace=False)
        same = (kinds[rows, None] == kinds[rows]) & ~np.eye(len(rows), dtype=np.bool_)
        gradient = trained * contrastive_gradient(weights, pairs.image[rows], pairs.text[rows], same, scale)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        spread = np.sqrt(square / (1 - 0.99**step)) + 1e-8
        weights = (weights - rate * mean / (1 - 0.9**step) / spread).astype(np.float32)
        if step in steps:
            yield LinearAdapter(weights, f"{step} steps, rate {rate:g}, scale {scale:g}", side)


def contrastive_gradient(weights: Vectors, image: Vectors, text: Vectors, same: Mask, scale: float) -> Vectors:
    """Gradient (2, D, D) of CLIP's symmetric loss of B pairs with respect to both matrices of an adapter.

    Args:
        weights: (2, D, D).
        image: (B, D).
        text: (B, D).
        same: (B, B) other pairs that are no negatives.
        scale: logit per unit of cosine.
    """
    (images, far_image), (texts, far_text) = (_unit(x + x @ w) for x, w in zip((image, text), weights, strict=True))
    logits = np.where(same, -np.inf, scale * images @ texts.T)
    pull = (softmax(logits) + softmax(logits.T).T - 2 * np.eye(len(image))) * scale / (2 * len(image))
    sides = ((image, images, far_image, pull @ texts), (text, texts, far_text, pull.T @ images))
    return np.stack([x.T @ ((to - unit * (unit * to).sum(1, keepdims=True)) / far) for x, unit, far, to in sides])


def _unit(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Unit-norm vectors (N, D) and the norms that they had, (N, 1)."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / norms, norms


NodeRows = npt.NDArray[np.int64]
NearNodes: TypeAlias = tuple[NodeRows, ScoreMatrix]
"""Rows (B, K) of what is near to each of B nodes, and their cosines or shares (B, K)."""


@dataclass(frozen=True)
class Kind:
    """Variants of one method, to choose the best of on development classes."""

    needs: str  # what it asks for beside the pairs, in words
    variants: Callable[[], Iterable[Measures]]  # made when called: an adapter is trained


@dataclass(frozen=True)
class LabelledImages:
    """M images of a memory and the classes that they show, E entries; an image may show several."""

    ids: Sequence[str]
    images: Vectors  # (M, D)
    pair: NodeRows  # (E,) row of an image
    number: NodeRows  # (E,) class that it shows

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of an image by its id."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    def among(self, numbers: NodeRows) -> LabelledImages:
        """Only images of some classes (C,), which are numbered by their place, in order of the classes."""
        kept = np.flatnonzero(np.isin(self.number, numbers))
        kept = kept[np.argsort(self.number[kept], kind="stable")]
        rows, pair = np.unique(self.pair[kept], return_inverse=True)
        ids = [self.ids[row] for row in rows.tolist()]
        return LabelledImages(ids, self.images[rows], pair, np.searchsorted(numbers, self.number[kept]))


@dataclass(frozen=True)
class TipAdapter:
    """Class scores q·p + weight * sum of exp(-sharpness * (1 - q·x)) over the images x of the class.

    Zhang et al., *Tip-Adapter: Training-free adaption of CLIP for few-shot classification*, ECCV 2022, with the weight
    relative to a cosine instead of CLIP's logit; both settings are searched, as there.
    """

    shown: LabelledImages
    weight: float
    sharpness: float
    sides: ClassVar[None] = None

    def measure(self, task: Task, memory: Learned) -> Measured:
        """See :class:`.methods.Measures`."""
        shown, scores = self.shown.among(task.candidates.labels), _cosines(task)
        starts = np.flatnonzero(np.diff(shown.number, prepend=-1))
        for rows in parts(len(task), len(shown.pair)) if len(starts) else ():
            affinity = np.exp(-self.sharpness * (1.0 - task.queries.similarity(rows, shown.images, shown.row_of)))
            votes = np.add.reduceat(affinity[:, shown.pair], starts, axis=1)
            scores[rows, shown.number[starts]] += self.weight * votes
        return _rank(scores, task)


class Graph:
    """The nearest images of a task's queries and of the images themselves, kept for the task that was asked last."""

    def __init__(self, shown: LabelledImages, neighbours: int) -> None:
        self._all, self._neighbours = shown, neighbours
        self._task: Task | None = None
        self._made: Made | None = None

    def of(self, task: Task) -> Made | None:
        """None where no image shows a class of the task."""
        if task is not self._task:
            shown = self._all.among(task.candidates.labels)
            images = TaskItems(shown.images, "image", np.empty(0, np.int64), [(id_,) for id_ in shown.ids])
            near = (self._nearest(shown, items) for items in (images, task.queries) if len(shown.pair))
            self._task, self._made = task, Made(shown, *near) if len(shown.pair) else None
        return self._made

    def _nearest(self, shown: LabelledImages, queries: TaskItems) -> NearNodes:
        k, found = min(self._neighbours, len(shown.images)), []
        for rows in parts(len(queries.vectors), len(shown.images)):
            cosines = queries.similarity(rows, shown.images, shown.row_of)
            near = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
            found.append((near, np.take_along_axis(cosines, near, axis=1)))
        near, cosines = (np.concatenate(side) for side in zip(*found, strict=True))
        return near, cosines


class Made(NamedTuple):
    """A graph of M images, and where a task's queries touch it."""

    shown: LabelledImages
    images: NearNodes  # (M, K)
    queries: NearNodes  # (B, K)


@dataclass(frozen=True)
class LabelPropagation:
    """Class scores q·p + weight * the labels of the query's nearest images, after these were spread over a graph.

    F <- spread * W F + (1 - spread) * Y: Zhou et al., *Learning with local and global consistency*, NeurIPS 2003, with
    rows of W that sum to 1. A query takes the mean of its neighbours (Delalleau et al., *Efficient non-parametric
    function induction in semi-supervised learning*, AISTATS 2005), as it comes alone. Similarities are raised to a
    power, as in Stojnić et al., *Label propagation for zero-shot classification with vision-language models* (ZLaP),
    CVPR 2024, which has no labels.
    """

    graph: Graph
    weight: float
    spread: float
    power: float
    rounds: ClassVar[int] = 20
    sides: ClassVar[None] = None

    def measure(self, task: Task, memory: Learned) -> Measured:
        """See :class:`.methods.Measures`."""
        scores, made = _cosines(task), self.graph.of(task)
        if made is None:
            return _rank(scores, task)
        shown, (graph, asked) = made.shown, (self._shares(near) for near in (made.images, made.queries))
        for columns in parts(len(task.candidates), len(shown.images)):  # all classes at once may be too large
            classes = range(*columns.indices(len(task.candidates)))
            here = np.isin(shown.number, classes)
            labels = np.zeros((len(shown.images), len(classes)), np.float32)
            labels[shown.pair[here], shown.number[here] - classes.start] = 1.0
            spread = labels
            for _ in range(self.rounds):
                spread = self.spread * _mean(graph, spread) + (1.0 - self.spread) * labels
            scores[:, columns] += self.weight * _mean(asked, spread)
        return _rank(scores, task)

    def _shares(self, near: NearNodes) -> NearNodes:
        weights = np.maximum(near[1], 0.0) ** self.power
        return near[0], weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class XMoRe:
    """CLIP's class probabilities of the image and of the captions of its neighbours, each weighted by its confidence.

    Confidence is 1 - entropy / log C, relative to its mean over the queries (the authors' code: over those so far).
    Eom et al., *Cross-modal retrieval meets inference: Improving zero-shot classification with cross-modal retrieval*,
    arXiv:2308.15273, and https://github.com/SeonghaEom/X-MoRe. There k is 16 and the scale CLIP's own.
    """

    k: int
    scale: float
    sides: ClassVar[None] = None

    def measure(self, task: Task, memory: Learned) -> Measured:
        """See :class:`.methods.Measures`."""
        own = softmax(self.scale * _cosines(task))
        votes = np.zeros_like(own)
        for rows, near in retrieve_blocks(task, memory, self.k):
            votes[rows] = votes_of(near, task.candidates.vectors, self.scale, np.inf)
        return _rank(np.log(sum(_confidence(p)[:, None] * p for p in (own, votes)) + 1e-12), task)


def kinds(
    pairs: Records, captions: Sequence[str], shown: LabelledImages | None, *, quick: bool, seed: int
) -> dict[str, Kind]:
    """All methods by name; those that need classes only where these are known."""
    steps = (10, 30) if quick else (100, 300, 1000)

    def adapters(side: Side) -> Iterator[LinearAdapter]:
        for scale in (30.0, 100.0):
            yield from train_adapters(pairs, captions, steps, rate=3e-3, scale=scale, side=side, seed=seed)

    found = {
        "linear adapter": Kind("training, the index made anew", lambda: adapters("both")),
        "linear adapter of texts": Kind("training", lambda: adapters("text")),
        "X-MoRe": Kind("classes to score", lambda: [XMoRe(k, s) for k, s in product((4, 8, 16), (20.0, 50.0, 100.0))]),
    }
    if shown is None:
        return found
    needs, graph = "the class of each pair, classes to score", Graph(shown, 10)
    weights = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    caches = list(product(weights, (2.0, 5.0, 10.0, 20.0, 40.0)))
    graphs = list(product(weights, (0.0, 0.3, 0.6, 0.9), (1.0, 5.0, 20.0)))
    return found | {
        "Tip-Adapter": Kind(needs, lambda: [TipAdapter(shown, *how) for how in caches]),
        "label propagation": Kind(needs, lambda: [LabelPropagation(graph, *how) for how in graphs]),
    }


def _cosines(task: Task) -> ScoreMatrix:
    return np.asarray(task.queries.vectors @ task.candidates.vectors.T)


def _rank(scores: ScoreMatrix, task: Task) -> Measured:
    found = rank_scores(scores.__getitem__, task.queries.labels, task.candidates.labels)
    return Measured(found.ranks[None])


def _mean(near: NearNodes, rows: ScoreMatrix) -> ScoreMatrix:
    """Mean (B, C) of the rows (M, C) that each of B nodes is near to."""
    mean = np.zeros((len(near[0]), rows.shape[1]), np.float32)
    for place in range(near[0].shape[1]):  # (B, K, C) at once would be too large
        mean += near[1][:, place, None] * rows[near[0][:, place]]
    return mean


def _confidence(shares: ScoreMatrix) -> ScoreMatrix:
    """Of distributions (N, C), relative to their mean; 0 where there is none."""
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1)
    sure = np.maximum(1.0 - entropy / np.log(max(shares.shape[1], 2)), 0.0)  # of equal shares it is rounded below 0
    confidence = np.where(shares.any(axis=1), sure, 0.0)
    return np.asarray(confidence / max(confidence.mean(), 1e-12))
