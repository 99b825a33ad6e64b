"""Reliability of a pair: how well its caption fits its image, judged by the pairs around it. It ranks only.

Three witnesses, in standard deviations: what the images of its caption's neighbours say of its image, what the
captions of its image's neighbours say of its caption, and the frozen encoder's own score. A logistic regression of real
pairs against shuffled ones turns them into a ratio of densities r; the median of r over shuffled pairs estimates the
share e of wrong captions, and ``1 - e / r`` is the reliability. The shuffled pairs stand in for wrong captions, so no
label is needed. e is too high where entities look alike: many right captions have a low reliability, but wrong ones a
lower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import MODALITIES, Modality, Vectors, other
from .moments import Values

LEAST = 1e-3
"""Reliability of a pair whose caption fits worse than a shuffled one; never 0, so that weights stay defined."""
UNLIKELY = 0.1
"""Chance of a shuffled pair to score as high, below which CLIP is believed to know a pair by itself
(``docs/measurements/gate.md``)."""
_SHARPNESS = 3.0  # of the witnesses' weights, per spread of similarity
_STEPS = 15  # of Newton's method


@dataclass(frozen=True)
class Reliability:
    """Turns a pair's witnesses into its reliability.

    Attributes:
        weights: (4,) of the witnesses, and the intercept.
        wrong: estimated share of wrong captions, in [0, 1]; too high where entities look alike, so it only ranks.
        mean: mean reliability of the pairs that were measured; for a pair without witnesses yet.
    """

    weights: npt.NDArray[np.float64]
    wrong: float
    mean: float = 1.0

    def ratio(self, witnesses: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Density of real pairs over that of shuffled ones, (..., 3) -> (...)."""
        return np.asarray(np.exp(np.clip(witnesses @ self.weights[:-1] + self.weights[-1], -20.0, 20.0)))

    def of(self, witnesses: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Reliability in (0, 1] from witnesses, (..., 3) -> (...); the mean where a witness is missing (NaN)."""
        known, ratio = self._ratio(witnesses)
        return np.where(known, np.clip(1.0 - self.wrong / ratio, LEAST, 1.0), self.mean).astype(np.float32)

    def shown(self, witnesses: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Reliability for people, (..., 3) -> (...): without the floor, at which many pairs would be equal.

        Below one half it goes on along its tangent, towards 0, so the order of the pairs is kept.
        """
        known, ratio = self._ratio(witnesses)
        share = ratio / max(self.wrong, 1e-30)
        fit = np.where(share > 2.0, 1.0 - 1.0 / np.maximum(share, 2.0), share / 4.0)
        return np.where(known, fit, self.mean).astype(np.float32)

    def _ratio(self, witnesses: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Which pairs have all witnesses, and the ratio for them, (..., 3) -> (...)."""
        known: npt.NDArray[np.bool_] = np.asarray(np.isfinite(witnesses).all(axis=-1))
        return known, self.ratio(np.where(known[..., None], witnesses, 0.0))


def unknown(frozen: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far CLIP does not know pairs by itself, in [0, 1], from its own scores for them, of any shape.

    The chance of a shuffled pair to score as high, over a tenth. 0, to be careful, where a score is missing (NaN).

    >>> unknown(np.float32([-1, 1, 2, 3, np.nan])).round(2).tolist()
    [1.0, 1.0, 0.23000000417232513, 0.009999999776482582, 0.0]

    Args:
        frozen: the third witness, in standard deviations.
    """
    chance = [0.5 * math.erfc(score / math.sqrt(2.0)) for score in frozen.ravel().tolist()]
    share = np.minimum(np.array(chance, np.float32).reshape(frozen.shape) / np.float32(UNLIKELY), np.float32(1.0))
    return np.asarray(np.nan_to_num(share))


@dataclass(frozen=True)
class Predicted:
    """What stands beside N pairs to judge them: directions in standard deviations, (N, D) each.

    Attributes:
        image: by the images of their captions' neighbours.
        text: by the captions of their images' neighbours.
        frozen: by the image itself, in the encoder's own score.
    """

    image: Vectors
    text: Vectors
    frozen: Vectors

    def witnesses(self, values: Mapping[Modality, Values], image: Vectors, text: Vectors) -> npt.NDArray[np.float32]:
        """The three witnesses (N, 3) of pairs (N, D)."""
        seen, said = image - values["image"].mean, text - values["text"].mean
        columns = [self.image * seen, self.text * said, self.frozen * said]
        return np.stack([column.sum(axis=1) for column in columns], axis=1)


def predict(
    values: Mapping[Modality, Values],
    spreads: Mapping[Modality, float],
    image: Vectors,
    near: Mapping[Modality, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]],
) -> Predicted:
    """Predict pairs from their neighbours.

    Args:
        values: moments of each modality.
        spreads: standard deviation of similarity within each modality.
        image: (N, D) their own images.
        near: modality that was searched -> similarity (N, K) and the other modality's vectors (N, K, D); similarity
            below -1 where there is no neighbour.
    """
    said: dict[Modality, Vectors] = {}
    for modality in MODALITIES:
        similarity, found = near[modality]
        weights = np.exp(_SHARPNESS / spreads[modality] * (similarity - similarity[:, :1])) * (similarity > -1.5)
        moments = values[other(modality)]
        summed = np.matmul(weights[:, None].astype(np.float32), found)[:, 0]
        evidence = moments.plain_precision.apply(summed - weights.sum(axis=1, keepdims=True) * moments.mean)
        said[other(modality)] = evidence / moments.covariance.length(evidence)[:, None]
    frozen = image / values["text"].covariance.length(image)[:, None]
    return Predicted(said["image"].astype(np.float32), said["text"].astype(np.float32), frozen.astype(np.float32))


def learn_reliability(real: npt.NDArray[np.float32], shuffled: npt.NDArray[np.float32]) -> Reliability:
    """Learn reliability from the witnesses (N, 3) of real pairs and of shuffled ones."""
    weights = _logistic(np.concatenate([real, shuffled]), np.repeat([1.0, 0.0], [len(real), len(shuffled)]))
    learned = Reliability(weights, 1.0)
    return Reliability(weights, min(1.0, float(np.median(learned.ratio(shuffled)))))


def _logistic(signals: npt.NDArray[np.float32], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ridge logistic regression of (M,) on signals (M, S) by Newton's method: weights and intercept (S + 1,)."""
    centre, scale = signals.mean(axis=0), signals.std(axis=0) + 1e-6
    x = np.column_stack([(signals - centre) / scale, np.ones(len(signals))]).astype(np.float64)
    weights = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = sigmoid(x @ weights)
        curvature = x.T @ (x * (p * (1.0 - p))[:, None]) + np.eye(len(weights))
        weights += np.linalg.solve(curvature, x.T @ (target - p) - weights)
    raw = weights[:-1] / scale
    return np.append(raw, weights[-1] - raw @ centre)


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logistic function, of any shape."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0))))
