"""A linear adapter on frozen vectors, trained on a memory's pairs in numpy: what users do before they fine-tune."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..refine import Trusted
from ..types import Modality, Records, Vectors
from .baselines import softmax
from .measure import Measured, measure
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

    def measure(self, task: Task, memory: Trusted) -> Measured:
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
