"""What the neighbours of a query say, and how far it follows them.

``z = (z_clip + s z_memory) / sqrt(1 + s^2 + 2 s rho)``: z_clip are a query's plain scores, in the mean standard
deviation of queries' scores; z_memory those of its evidence, in their own; rho is their correlation. The strength s is
log-linear in four features of what was found, times the factors of the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..machine.blas import Floats
from ..types import Vectors
from .moments import Values

FEATURES = 4
"""One; CLIP's mean score of the found pairs; nearness; lead."""
STRONGEST = 4.0
"""Largest logarithm of a strength."""
_MOST_OWN = 20.0  # of a pair's own score: its exponential is finite
_TINY = 1e-6
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """The evidence of B queries.

    Attributes:
        direction: (B, D) the metric applied to the weighted mean of the centred values.
        weights: (B, K) share of each neighbour, summing to 1; 0 where padded.
        own: (B,) its mean score of the pairs that were found.
        reliability: (B,) their mean.
        best: (B,) similarity of the nearest one.
        lead: (B,) of that over the mean of all.
        length: (B,) standard deviation of the direction's scores over the memory's values.
        correlation: (B,) of these scores with the query's own.
        factors: by name, the share (B,) of the strength that each leaves.
    """

    direction: Vectors
    weights: Floats
    own: Floats
    reliability: Floats
    best: Floats
    lead: Floats
    length: Floats
    correlation: Floats
    factors: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def share(self) -> Floats:
        """(B,) what all factors leave."""
        share = np.ones(len(self.best), np.float32)
        for factor in self.factors.values():
            share = share * factor
        return share

    def features(self, spread: float) -> Doubles:
        """(B, 4), with similarities in spreads."""
        columns = [
            np.ones(len(self.best)),
            self.own.astype(np.float64),
            (self.best.astype(np.float64) - 1.0) / spread,
            self.lead.astype(np.float64) / spread,
        ]
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Gate:
    """How far queries of one modality move.

    Attributes:
        phi: (4,) coefficients of the features.
        sharpness: logarithm of tau, which weighs neighbours by exp(tau * (s - s1) / spread).
        temperature: logarithm of kappa, the sharpness of the scores in the fit.
    """

    phi: Doubles
    sharpness: float
    temperature: float

    def strength(self, features: Doubles) -> Floats:
        """Length (B,) of the move, in standard deviations of the query's own scores, from features (B, 4)."""
        return np.exp(np.clip(features @ self.phi, -2.0 * STRONGEST, STRONGEST)).astype(np.float32)


def spread_of(strength: Any, correlation: Any) -> Any:
    """Standard deviation of the scores after a move: the denominator of the formula."""
    return (1.0 + strength * strength + 2.0 * strength * correlation).clip(1e-6) ** 0.5


def share(
    similarity: Floats, reliability: Floats, found: npt.NDArray[np.bool_], sharpness: float, spread: float
) -> tuple[Doubles, Doubles]:
    """Shares (B, K) of the neighbours by similarity and reliability, and its mean (B,) by similarity alone."""
    logit = np.exp(sharpness) * (similarity - similarity[:, :1]).astype(np.float64) / spread
    near = np.exp(np.minimum(logit, 0.0)) * found
    reliable = near * (reliability + _TINY)
    shares = reliable / np.maximum(reliable.sum(axis=1, keepdims=True), 1e-12)
    return shares, np.asarray((near * reliability).sum(axis=1) / np.maximum(near.sum(axis=1), _TINY))


def mean_own(own: Floats, reliability: Floats) -> Floats:
    """CLIP's own scores (B,) of the pairs that a query found, by reliability; 0 where it found none.

    Args:
        own: (B, K) of image and caption of each pair, in standard deviations.
        reliability: (B, K), 0 where padded.
    """
    total = np.maximum(reliability.sum(axis=1), np.float32(_TINY))
    return np.asarray((reliability * own).sum(axis=1) / total, np.float32)


def weigh(
    plain: Vectors,
    neighbours: Floats,
    similarity: Floats,
    shares: tuple[Doubles, Doubles],
    found: npt.NDArray[np.bool_],
    own: Floats,
    values: Values,
    metric: Callable[[Vectors], Vectors] | None = None,
) -> Evidence:
    """Weigh what was found.

    Args:
        plain: (B, D) queries over the mean standard deviation of their plain scores over the values.
        neighbours: (B, K, D) values of the other modality.
        similarity: (B, K) within the query's modality, the largest first.
        shares: from :func:`share`.
        found: (B, K) False where padded.
        own: (B,) from :func:`mean_own`.
        values: moments of the other modality.
        metric: multiplies (B, D) by another one than that of the values.
    """
    weights = shares[0].astype(np.float32)
    mean = np.matmul(weights[:, None], neighbours)[:, 0] - weights.sum(axis=1, keepdims=True) * values.mean
    direction = (metric or values.precision.apply)(mean)
    spread_over, own_spread = np.split(values.covariance.apply(np.concatenate([direction, plain])), 2)
    length = np.sqrt(np.maximum(np.einsum("bd,bd->b", direction, spread_over), 1e-9))
    deviation = np.sqrt(np.maximum(np.einsum("bd,bd->b", plain, own_spread), 1e-9))  # of its own plain scores
    best = similarity[:, 0]
    mean_similarity = (similarity * found).sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    return Evidence(
        direction,
        weights,
        np.minimum(own, np.float32(_MOST_OWN)),
        shares[1].astype(np.float32),
        best,
        best - mean_similarity.astype(np.float32),
        length,
        np.einsum("bd,bd->b", plain, spread_over) / (length * deviation),
    )
