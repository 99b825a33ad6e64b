"""The metric in which images are compared: the inverse of how images of one caption differ (Fisher's, without labels).

An image with a wrong caption differs from the others of that caption by more than chance. So pairs count as far as
their images agree.

A metric fits the pairs that it is measured on better than any others: it draws an image towards the very images that it
was compared with. A gate that is fitted on these pairs would believe that evidence tells that much of a new image, too.
So captions are dealt out to folds, like captions to the same one, and the pairs of a fold ask in the metric of the
other folds (cross-fitting).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Vectors
from .moments import LowRank, Values, low_rank, rank_for
from .nearest import NearestRows, RowNumbers
from .reliability import agreement

FOLDS = 4
_BLOCK = 500  # pairs whose neighbours' vectors are at hand at a time
_FEWEST = 50  # pairs that a metric is measured on
_TINY = 1e-5


@dataclass(frozen=True)
class Metric:
    """A metric of images.

    Attributes:
        whole: of all pairs.
        fold: (N,) fold of each pair.
        without: of all pairs but those of a fold, for each.
    """

    whole: LowRank
    fold: RowNumbers
    without: tuple[LowRank, ...]

    def apply(self, rows: RowNumbers, x: Vectors) -> Vectors:
        """Multiply what the pairs ``rows`` (B,) found, (B, D), by the metric of other folds than their own."""
        out, fold = np.empty_like(x), self.fold[rows]
        for one, metric in enumerate(self.without):
            out[fold == one] = metric.apply(x[fold == one])
        return out


def measure_metric(
    image: Vectors, values: Values, rows: RowNumbers, near: NearestRows, same: float, spread: float
) -> Metric:
    """The metric of images (N, D); that of ``values`` where few captions have several images.

    Args:
        image: unit-norm.
        values: their moments.
        rows: of the pairs to measure.
        near: the nearest captions of others, (N, K).
        same: cosine from which two captions mean the same.
        spread: standard deviation of the cosines of captions.
    """
    residual, trust = np.zeros_like(image[rows]), np.zeros(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        similarity = np.concatenate([np.ones((len(block), 1), np.float32), near[1][block]], axis=1)
        held = image[np.concatenate([block[:, None], near[0][block]], axis=1)]  # the pair itself, and those like it
        reliable = agreement(similarity, held, np.ones(similarity.shape, np.bool_), values, spread)
        weights = np.maximum(similarity[:, 1:] - np.float32(same), 0.0) * reliable[:, 1:]
        total = weights.sum(axis=1)
        mean = np.matmul((weights / np.maximum(total, _TINY)[:, None])[:, None], held[:, 1:])[:, 0]
        residual[start : start + _BLOCK] = held[:, 0] - mean
        trust[start : start + _BLOCK] = np.where(total > _TINY, reliable[:, 0], 0.0)

    def of(some: npt.NDArray[np.bool_]) -> LowRank:
        count, chosen, weight = int(np.count_nonzero(trust[some])), residual[some], trust[some][:, None]
        if count < _FEWEST:
            return values.precision
        scatter = low_rank((chosen * weight).T @ chosen / weight.sum(), rank_for(count))
        return scatter.inverse(chosen.shape[1] / count)

    groups = _groups(near, same)
    fold = np.random.default_rng(0).integers(0, FOLDS, len(image))[groups]
    whole = of(np.ones(len(rows), np.bool_))
    return Metric(whole, fold, tuple(of(fold[rows] != one) for one in range(FOLDS)))


def _groups(near: NearestRows, same: float) -> RowNumbers:
    """The group (N,) of each pair: those with captions that mean the same, also by way of others.

    >>> _groups((np.array([[1], [0], [1], [2]]), np.array([[0.9], [0.9], [0.8], [0.1]])), 0.5).tolist()
    [0, 0, 0, 3]
    """
    alike, group = near[1] > same, np.arange(len(near[0]))
    before = np.full(len(group), -1)
    while (group != before).any():
        before = group
        least = np.where(alike, group[near[0]], len(group)).min(axis=1, initial=len(group))
        group = np.minimum(group, least)
        np.minimum.at(group, near[0][alike], np.repeat(group, alike.sum(axis=1)))
        group = group[group]
    return group
