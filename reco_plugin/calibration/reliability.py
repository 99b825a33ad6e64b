"""Reliability of a pair: how well its caption fits its image, judged by the pairs around it. It ranks only.

Three caption scores, in standard deviations: what the images of its caption's neighbours say of its image, what the
captions of its image's neighbours say of its caption, and the frozen encoder's own score. What neighbours say is their
mean, and how much of what is nearest to the pair they bring: a mean may look right where none of them is. A logistic
regression of real pairs against shuffled ones turns them into a ratio of densities r; the median of r over shuffled
pairs estimates the share e of wrong captions, and ``1 - e / r`` is the reliability. Neighbours count by theirs, as far
as it is known. The shuffled pairs stand in for wrong captions, so no label is needed. e is too high where entities look
alike: many right captions have a low reliability, but wrong ones a lower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import MODALITIES, Modality, Vectors, other
from .moments import Values

LEAST = 1e-3
"""Reliability of a pair whose caption fits worse than a shuffled one; never 0, so that weights stay defined."""
UNLIKELY = 0.1
"""Chance of a shuffled pair to score as high, below which CLIP is believed to know a pair by itself."""
_SHARPNESS = 3.0  # of the caption scores' weights, per spread of similarity
_FURTHEST = 8.0  # beyond, in a logarithm of how alike two are, one is as far as any
_STEPS = 50  # of Newton's method, at most


@dataclass(frozen=True)
class Reliability:
    """Turns a pair's caption scores into its reliability.

    Attributes:
        weights: (4,) of the caption scores, and the intercept.
        wrong: estimated share of wrong captions, in [0, 1]; too high where entities look alike, so it only ranks.
        mean: mean reliability of the pairs that were measured; for a pair without caption scores yet.
    """

    weights: npt.NDArray[np.float64]
    wrong: float
    mean: float = 1.0

    def ratio(self, caption_scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Density of real pairs over that of shuffled ones, (..., 3) -> (...)."""
        return np.asarray(np.exp(np.clip(caption_scores @ self.weights[:-1] + self.weights[-1], -20.0, 20.0)))

    def of(self, caption_scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Reliability in (0, 1] from caption scores, (..., 3) -> (...); the mean where a score is missing (NaN)."""
        known: npt.NDArray[np.bool_] = np.asarray(np.isfinite(caption_scores).all(axis=-1))
        ratio = self.ratio(np.where(known[..., None], caption_scores, 0.0))
        return np.where(known, np.clip(1.0 - self.wrong / ratio, LEAST, 1.0), self.mean).astype(np.float32)


def unknown(frozen: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far CLIP does not know pairs by itself, in [0, 1], from its own scores for them, of any shape.

    The chance of a shuffled pair to score as high, over a tenth. 0, to be careful, where a score is missing (NaN).

    >>> unknown(np.float32([-1, 1, 2, 3, np.nan])).round(2).tolist()
    [1.0, 1.0, 0.23000000417232513, 0.009999999776482582, 0.0]

    Args:
        frozen: the third caption score, in standard deviations.
    """
    chance = [0.5 * math.erfc(score / math.sqrt(2.0)) for score in frozen.ravel().tolist()]
    share = np.minimum(np.array(chance, np.float32).reshape(frozen.shape) / np.float32(UNLIKELY), np.float32(1.0))
    return np.asarray(np.nan_to_num(share))


class Judges(NamedTuple):
    """The neighbours of N pairs by one modality, the nearest first.

    Attributes:
        similarity: (N, K); below -1 where there is no neighbour.
        vectors: (N, K, D) of the other modality.
        counts: (N, K) how much each counts: its reliability, as far as it is known.
    """

    similarity: npt.NDArray[np.float32]
    vectors: Vectors
    counts: npt.NDArray[np.float32]

    def weights(self, spread: float) -> npt.NDArray[np.float32]:
        """(N, K), by similarity in spreads, and by what counts."""
        at = self.similarity
        near = np.exp(_SHARPNESS / spread * (at - at[:, :1])) * (at > -1.5) * self.counts
        return np.asarray(near, np.float32)


def judge(
    values: Mapping[Modality, Values],
    spreads: Mapping[Modality, float],
    pairs: Mapping[Modality, Vectors],
    near: Mapping[Modality, Judges],
) -> npt.NDArray[np.float32]:
    """The three caption scores (N, 3) of pairs.

    Args:
        values: moments of each modality.
        spreads: standard deviation of similarity within each modality.
        pairs: (N, D) by modality.
        near: by the modality that was searched.
    """
    columns, weights = list[npt.NDArray[np.float32]](), {m: near[m].weights(spreads[m]) for m in MODALITIES}
    for value in MODALITIES:
        own, moments, found, by = pairs[value], values[value], near[other(value)].vectors, weights[other(value)]
        summed = np.matmul(by[:, None], found)[:, 0]
        evidence = moments.plain_precision.apply(summed - by.sum(axis=1, keepdims=True) * moments.mean)
        said = ((own - moments.mean) * evidence).sum(axis=1) / moments.covariance.length(evidence)
        beside = np.matmul(found, own[:, :, None])[..., 0] - near[value].similarity[:, :1]
        alike = _log_alike(by, beside / np.float32(spreads[value]), weights[value])
        columns.append(np.asarray(said, np.float32) + alike)
    image, text = pairs["image"], pairs["text"] - values["text"].mean
    columns.append(np.asarray((image * text).sum(axis=1) / values["text"].covariance.length(image), np.float32))
    return np.stack(columns, axis=1)


def _log_alike(
    weights: npt.NDArray[np.float32], beside: npt.NDArray[np.float32], nearest: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """How much of what is near to a pair's vector its neighbours by the other modality bring: (N,), a logarithm.

    A mean of several things may look right where none of them is. 0 where there are no neighbours.

    Args:
        weights: (N, K) of those neighbours.
        beside: (N, K) by how many spreads what each brings is nearer than the nearest of all; below 0 nearly always.
        nearest: (N, K) weights of the nearest of all.
    """
    brought = (weights * np.exp(np.clip(_SHARPNESS * beside, -_FURTHEST, 0.0))).sum(axis=1)
    most = weights.sum(axis=1) * nearest.sum(axis=1)
    there = most > 0.0
    return np.asarray(np.log(np.where(there, brought, 1.0) / np.where(there, most, 1.0)), np.float32)


def learn_reliability(real: npt.NDArray[np.float32], shuffled: npt.NDArray[np.float32]) -> Reliability:
    """Learn reliability from the caption scores (N, 3) of real pairs and of shuffled ones."""
    weights = fit_logistic(np.concatenate([real, shuffled]), np.repeat([1.0, 0.0], [len(real), len(shuffled)]))
    learned = Reliability(weights, 1.0)
    return Reliability(weights, min(1.0, float(np.median(learned.ratio(shuffled)))))


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
