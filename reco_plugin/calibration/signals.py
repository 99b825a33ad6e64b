"""What the neighbours of a query say: one whitened direction, and eight numbers about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Vectors
from .moments import Values

_TINY = 1e-6
MOST_OWN = 20.0
"""Of a pair's own score, in standard deviations: beyond any that was met, so that its exponential is finite."""


@dataclass(frozen=True)
class Evidence:
    """The evidence of B queries.

    Attributes:
        direction: (B, D) the metric applied to the weighted mean of the centred values.
        signals: (B, 8), see :data:`.gate.SIGNALS`.
        weights: (B, K) share of each neighbour, summing to 1; 0 where padded.
    """

    direction: Vectors
    signals: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]

    @property
    def length(self) -> npt.NDArray[np.float32]:
        """(B,) standard deviation of the direction's scores over the memory's values."""
        return self.signals[:, 5]

    @property
    def correlation(self) -> npt.NDArray[np.float32]:
        """(B,) of the direction's scores with the query's own."""
        return self.signals[:, 6]


def share(
    similarity: npt.NDArray[np.float32],
    reliability: npt.NDArray[np.float32],
    found: npt.NDArray[np.bool_],
    sharpness: float,
    spread: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Shares (B, K) of the neighbours by similarity and reliability, and its mean (B,) by similarity alone."""
    logit = np.exp(sharpness) * (similarity - similarity[:, :1]).astype(np.float64) / spread
    near = np.exp(np.minimum(logit, 0.0)) * found
    total = np.maximum(near.sum(axis=1), _TINY)
    honest = near * (reliability + _TINY)
    shares = honest / np.maximum(honest.sum(axis=1, keepdims=True), 1e-12)
    return shares, np.asarray((near * reliability).sum(axis=1) / total)


def mean_own(
    own: npt.NDArray[np.float32], reliability: npt.NDArray[np.float32], usual: float
) -> npt.NDArray[np.float32]:
    """CLIP's own scores (B,) of the pairs that a query found, by reliability.

    Args:
        own: (B, K) third witness; NaN where a pair was not measured yet.
        reliability: (B, K), 0 where padded.
        usual: where none was measured.
    """
    known = np.isfinite(own)
    weights = np.where(known, reliability, np.float32(0.0))
    total = weights.sum(axis=1)
    mean = (weights * np.where(known, own, np.float32(0.0))).sum(axis=1) / np.maximum(total, np.float32(_TINY))
    return np.where(total > 0.0, mean, np.float32(usual)).astype(np.float32)


def weigh(
    query: Vectors,
    neighbours: npt.NDArray[np.float32],
    similarity: npt.NDArray[np.float32],
    shares: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    found: npt.NDArray[np.bool_],
    own: npt.NDArray[np.float32],
    values: Values,
    unit: float,
) -> Evidence:
    """Weigh what was found.

    Args:
        query: (B, D) unit-norm.
        neighbours: (B, K, D) values of the other modality.
        similarity: (B, K) within the query's modality, the largest first.
        shares: from :func:`share`.
        found: (B, K) False where padded.
        own: (B,) from :func:`mean_own`.
        values: moments of the other modality.
        unit: mean standard deviation of a query's plain scores over the values.
    """
    weights, reliability = shares[0].astype(np.float32), shares[1]
    mean = np.matmul(weights[:, None], neighbours)[:, 0] - weights.sum(axis=1, keepdims=True) * values.mean
    direction = values.precision.apply(mean)
    plain = query / np.float32(unit)
    spread_over, own_spread = np.split(values.covariance.apply(np.concatenate([direction, plain])), 2)
    length = np.sqrt(np.maximum(np.einsum("bd,bd->b", direction, spread_over), 1e-9))
    deviation = np.sqrt(np.maximum(np.einsum("bd,bd->b", plain, own_spread), 1e-9))  # of its own plain scores
    best = similarity[:, 0]
    around = (similarity * found).sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    columns = [
        np.einsum("bd,bd->b", mean, plain),
        np.exp(np.minimum(own, np.float32(MOST_OWN))),
        reliability,
        best,
        best - around,
        length,
        np.einsum("bd,bd->b", plain, spread_over) / (length * deviation),
        found.any(axis=1),
    ]
    return Evidence(direction, np.stack(columns, axis=1).astype(np.float32), weights)
