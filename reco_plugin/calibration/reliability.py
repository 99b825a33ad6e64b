"""Reliability of what a query found: how far each neighbour's other side agrees with those of the other neighbours.

It is computed for each query from what was found alone, and ranks neighbours: nothing is stored with a pair.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..machine.blas import Floats
from ..types import Vectors
from .moments import Values

UNLIKELY = 0.1
"""Chance of a shuffled pair to score as high, below which CLIP is believed to know a pair by itself."""
_SHARPNESS = 3.0  # of the other neighbours' weights, per spread of similarity
_MOST = 2.0  # standard deviations, beyond which all agree alike: one that others hardly know may still be right
_BLOCK = 512  # queries
_STEPS = 50  # of Newton's method, at most


def agreement(
    similarity: Floats, vectors: Vectors, found: npt.NDArray[np.bool_], values: Values, spread: float
) -> Floats:
    """Reliability (B, K) of neighbours, in (0, 1]; 0 where padded.

    The score of a neighbour by the evidence of the others, in standard deviations, is a logarithm of how much more
    often such a score is right than wrong.

    Args:
        similarity: (B, K) within the query's modality, the largest first.
        vectors: (B, K, D) of the other modality.
        found: (B, K) False where padded.
        values: moments of the other modality.
        spread: standard deviation of similarity within the query's modality.
    """
    parts = [
        _agreement(similarity[rows], vectors[rows], found[rows], values, spread)
        for rows in (slice(start, start + _BLOCK) for start in range(0, max(len(vectors), 1), _BLOCK))
    ]
    return np.concatenate(parts)


def _agreement(
    similarity: Floats, vectors: Vectors, found: npt.NDArray[np.bool_], values: Values, spread: float
) -> Floats:
    dimension = vectors.shape[-1]
    near = np.exp(np.minimum(_SHARPNESS / spread * (similarity - similarity[:, :1]), 0.0)) * found
    centred = vectors - values.mean
    said = values.precision.apply(centred.reshape(-1, dimension)).reshape(vectors.shape)
    said *= near[..., None].astype(np.float32)
    others = said.sum(axis=1, keepdims=True) - said
    length = values.covariance.length(others.reshape(-1, dimension)).reshape(found.shape)
    score = np.einsum("bkd,bkd->bk", centred, others) / np.maximum(length, np.float32(1e-5))
    return np.asarray(np.exp(np.clip(score, -_MOST, _MOST) - _MOST) * found, np.float32)


def unknown(scores: Floats) -> Floats:
    """How far CLIP does not know pairs by itself, in [0, 1], from its own scores for them, of any shape.

    The chance of a shuffled pair to score as high, over a tenth.

    >>> unknown(np.float32([-1, 1, 2, 3])).round(2).tolist()
    [1.0, 1.0, 0.23000000417232513, 0.009999999776482582]

    Args:
        scores: in standard deviations.
    """
    chance = [0.5 * math.erfc(score / math.sqrt(2.0)) for score in scores.ravel().tolist()]
    return np.asarray(np.minimum(np.array(chance).reshape(scores.shape) / UNLIKELY, 1.0), np.float32)


def fit_logistic(
    signals: npt.NDArray[np.float32], yes: npt.NDArray[np.bool_] | npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Weights of S signals, and a constant (S + 1,), of a logistic regression of (M,) on (M, S), by Newton's method."""
    centre, scale = signals.mean(axis=0), signals.std(axis=0) + 1e-6
    x = np.column_stack([(signals - centre) / scale, np.ones(len(signals))]).astype(np.float64)
    w = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        chance = sigmoid(x @ w)
        gradient = x.T @ (chance - yes) + w
        curve = (x * (chance * (1.0 - chance))[:, None]).T @ x + np.eye(len(w))
        step = np.linalg.solve(curve, gradient)
        w = w - step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-9))
        if np.abs(step).max() < 1e-8:
            break
    raw = w[:-1] / scale
    return np.append(raw, w[-1] - raw @ centre)


def chance_of(signals: npt.NDArray[np.float32], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities (B,) by what :func:`fit_logistic` learned, of signals (B, S)."""
    return sigmoid(signals @ weights[:-1] + weights[-1])


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logistic function, of any shape."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0))))
