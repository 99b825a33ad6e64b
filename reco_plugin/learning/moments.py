"""Mean and covariance of a memory's vectors, and the metric in which they are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Vectors
from ..vectors import multiply

RANK = 128
"""Directions of a covariance that are kept."""
RIDGE = 1.0
"""Of the metric of captions, in mean eigenvalues of their covariance: with less, moves follow what is rare in them."""


@dataclass(frozen=True)
class LowRank:
    """A symmetric matrix (D, D) as ``scale * I`` and some directions; small to store, quick to apply.

    Attributes:
        directions: (R, D) float16, orthonormal rows.
        weights: (R,) float32 what each direction has above the scale.
        scale: of all other directions.
    """

    directions: npt.NDArray[np.float16]
    weights: npt.NDArray[np.float32]
    scale: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "_wide", self.directions.astype(np.float32))  # made once: a query applies it

    def apply(self, x: Vectors) -> Vectors:
        """Multiply rows (B, D) by the matrix."""
        wide: npt.NDArray[np.float32] = self._wide  # type: ignore[attr-defined]
        return np.asarray(np.float32(self.scale) * x + multiply(multiply(x, wide.T) * self.weights, wide), np.float32)

    def length(self, x: Vectors) -> npt.NDArray[np.float32]:
        """Length (B,) of rows (B, D) in this metric: the square root of ``x M x``."""
        return np.asarray(np.sqrt(np.maximum(np.einsum("bd,bd->b", x, self.apply(x)), 1e-12)), np.float32)

    def inverse(self, shrinkage: float) -> LowRank:
        """The inverse of this plus ``shrinkage`` times its mean eigenvalue."""
        rank, dimension = self.directions.shape
        mean = self.scale + float(self.weights.sum()) / dimension
        added = shrinkage * max(mean, 1e-9)
        tail = 1.0 / (self.scale + added) if rank < dimension else 0.0
        inverted = 1.0 / (self.scale + self.weights.astype(np.float64) + added)
        return LowRank(self.directions, (inverted - tail).astype(np.float32), tail)


def low_rank(matrix: npt.NDArray[np.floating], rank: int) -> LowRank:
    """The nearest matrix of this form to a covariance (D, D); exact where ``rank`` is D."""
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    rank = min(rank, len(values))
    tail = float(values[rank:].mean()) if rank < len(values) else 0.0
    directions = np.ascontiguousarray(vectors[:, :rank].T.astype(np.float16))
    return LowRank(directions, (values[:rank] - tail).astype(np.float32), tail)


@dataclass(frozen=True)
class Values:
    """The vectors of one modality, as what a query retrieves.

    Attributes:
        mean: (D,).
        covariance: of all.
        precision: the metric in which they are told apart.
        slack: (D,) unit-norm direction that the vectors use least.
    """

    mean: npt.NDArray[np.float32]
    covariance: LowRank
    precision: LowRank
    slack: npt.NDArray[np.float32]


def measure_values(x: Vectors) -> Values:
    """Moments of vectors (N, D), with the inverse of their covariance and a ridge as the metric."""
    mean = x.mean(axis=0)
    centred = x - mean
    covariance = low_rank(centred.T @ centred / len(x), RANK)
    slack = np.linalg.eigh((x.T @ x).astype(np.float64))[1][:, 0].astype(np.float32)
    return Values(mean.astype(np.float32), covariance, covariance.inverse(RIDGE), slack)


def scale_of(plain: Vectors, refined: Vectors, values: Values) -> npt.NDArray[np.float32]:
    """What maps scores of refined queries to the scale of plain ones: a factor and a number that is added (B, 2).

    With them, a query's scores over the vectors it is compared with have the mean and the standard deviation that its
    plain vector has, by the moments of the memory's vectors.

    >>> values = measure_values(np.float32([[3, 1], [1, 1], [3, 0], [1, 0]]))  # deviations 1 and .5
    >>> scale_of(np.float32([[1, 0]]), np.float32([[0, 1]]), values).tolist()
    [[2.0, 1.0]]
    """
    factor = values.covariance.length(plain) / values.covariance.length(refined)
    return np.stack([factor, plain @ values.mean - factor * (refined @ values.mean)], axis=1).astype(np.float32)
