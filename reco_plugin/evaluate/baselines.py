"""Simple baselines of a few lines, which a trained fusion has to beat.

Most are fusers, and move vectors; the logit ensemble mixes scores instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from ..fuse import Fused
from ..types import MODALITIES, Modality, Neighbours, Vectors
from .task import Side

ALONE = 1e6
"""A weight so large that the neighbours replace the query: label transfer."""
_TEMPERATURES = (0.05, np.inf)

ScoreMatrix = npt.NDArray[np.floating[Any]]
"""(B, C); larger is nearer."""


@dataclass(frozen=True)
class MeanOfNeighbours:
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
