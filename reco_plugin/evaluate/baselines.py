"""Fusions that anyone could write in three lines; what a trained one has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from ..fuse import Fused
from ..types import Modality, Neighbours, Vectors

_ALONE = 1e6  # a weight so large that the neighbours replace the query: label transfer


@dataclass(frozen=True)
class MeanOfNeighbours:
    """query + weight * softmax(similarity / temperature)-weighted mean of the neighbours' vectors.

    With a large image weight this is kNN label transfer; with a large text weight, prompts become prototypes.

    Attributes:
        image_weight, text_weight: weight per side; 0 leaves a side frozen.
        temperature: of the shares; infinity weighs all neighbours alike.
    """

    image_weight: float
    text_weight: float
    temperature: float
    name: str = "mean of neighbours"

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """See :meth:`reco_plugin.fuse.Fuser.fuse`; trust only marks what is there."""
        weight = self.image_weight if modality == "image" else self.text_weight
        logits = np.where(trust > 0, neighbours.similarity / self.temperature, -np.inf)
        logits -= logits.max(axis=1, keepdims=True, initial=-1e9)
        shares = np.exp(logits)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
        mean = np.einsum("bk,bkd->bd", shares, neighbours.vectors)
        refined = vectors + weight * mean
        refined /= np.linalg.norm(refined, axis=1, keepdims=True)
        return Fused(refined.astype(np.float32), shares.astype(np.float32))


def grid() -> list[MeanOfNeighbours]:
    """The variants from which the best is chosen on a development split (never on the test split)."""
    weights = (0.0, 0.5, 1.0, 2.0, _ALONE)
    return [
        MeanOfNeighbours(image, text, temperature)
        for image, text, temperature in product(weights, weights, (0.05, np.inf))
        if image or text
    ]
