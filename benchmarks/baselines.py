"""The training-free baseline: a query mixed with the mean of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_plugin.fusion.base import Fused, NeighbourFuser
from reco_plugin.types import Modality, Neighbours, Vectors

ALONE = 1e6
"""A weight with which the neighbours replace the query (label transfer)."""
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
        """Refine (B, D), see :meth:`reco_plugin.fusion.base.Fuser.fuse`; trust only masks padding."""
        weight = self.image_weight if modality == "image" else self.text_weight
        shares = shares_of(neighbours.similarity, trust > 0, self.temperature)
        mean = np.einsum("bk,bkd->bd", shares, neighbours.vectors)
        refined = vectors + weight * mean
        refined /= np.linalg.norm(refined, axis=1, keepdims=True)
        return Fused(refined.astype(np.float32), shares.astype(np.float32))


def grid() -> list[MeanOfNeighbours]:
    """All variants, of which the best is chosen on a development split."""
    weights = (0.0, 0.5, 1.0, 2.0, ALONE)
    choices = product(weights, weights, _TEMPERATURES)
    return [MeanOfNeighbours(image, text, temperature) for image, text, temperature in choices if image or text]


def shares_of(similarity: ScoreMatrix, present: npt.NDArray[np.bool_], temperature: float) -> ScoreMatrix:
    """Shares (B, K) of the neighbours that are present, summing to 1; 0 where there are none."""
    logits = np.where(present, similarity / temperature, -np.inf)
    logits -= logits.max(axis=1, keepdims=True, initial=-1e9)
    shares = np.exp(logits)
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12))
