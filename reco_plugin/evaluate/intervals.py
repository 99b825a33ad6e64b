"""Means over queries with their confidence intervals, by the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InputError

DRAWS, _LEVEL = 1000, 0.95
_AT_ONCE = 2**16  # groups that are drawn at once: several draws of few, which fit a cache


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


def points(interval: Interval) -> str:
    """Format a difference in points with its bounds.

    >>> points(Interval(0.011, 0.002, 0.02))
    '+1.1 [+0.2, +2.0]'
    """
    mean, low, high = (100 * value for value in interval)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def harmonic_mean(seen: float, unseen: float) -> float:
    """Harmonic mean of two accuracies: high only where both are.

    >>> harmonic_mean(0.6, 0.3)
    0.4
    >>> harmonic_mean(0.6, 0.0)
    0.0
    """
    return float(_harmonic(np.float64(seen), np.float64(unseen)))


def bootstrap(
    values: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    samples: int = DRAWS,
    level: float = _LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean and percentile-bootstrap interval; with groups, whole groups are drawn.

    Draw groups where the values of some queries are correlated, as those of one class are when its prompt changes. With
    fewer than two groups the values are drawn one by one. Of several trainings, give each query's mean: the bounds then
    say how the mean of *these* trainings would vary with other queries.

    Args:
        values: (N,) one number per query, as hits (0 or 1) or their difference.
        groups: (N,) group of each query.
        samples: number of draws.
        level: confidence level.
        seed: of the draws; the same seed gives the same bounds.

    Raises:
        InputError: no values, or not one group for each.
    """
    numbers = np.asarray(values, np.float64)
    draws = _draw(numbers, groups, samples, seed)
    return _interval(float(numbers.mean()), draws, level)


def bootstrap_harmonic(
    seen: Sequence[npt.ArrayLike],
    unseen: Sequence[npt.ArrayLike],
    groups: tuple[npt.ArrayLike | None, npt.ArrayLike | None] = (None, None),
    *,
    samples: int = DRAWS,
    level: float = _LEVEL,
    seed: int = 0,
) -> Interval:
    """Harmonic mean of two accuracies with its interval, or the change of one: seen and unseen are drawn independently.

    >>> bootstrap_harmonic([[1, 1, 1, 0, 0]], [[1, 0, 0, 0, 0, 0, 1, 1, 0, 0]]).mean  # of .6 and .3
    0.4
    >>> bootstrap_harmonic([[1, 1], [1, 0]], [[1, 1], [1, 0]]).mean  # 1 after, .5 before
    0.5

    Args:
        seen: hits (N,) of the queries of seen classes; a second array holds the hits to compare with.
        unseen: the same of the queries of unseen classes, (M,).
        groups: group of each query, (N,) and (M,).
        samples: number of draws.
        level: confidence level.
        seed: of the draws; the same seed gives the same bounds.

    Raises:
        InputError: no values, or not one group for each.
    """
    means, draws = [], []
    for sides in zip(seen, unseen, strict=True):
        values = [np.asarray(side, np.float64) for side in sides]
        drawn = [
            _draw(side, of, samples, seed + row) for row, (side, of) in enumerate(zip(values, groups, strict=True))
        ]
        means.append(float(_harmonic(values[0].mean(), values[1].mean())))
        draws.append(_harmonic(drawn[0], drawn[1]))
    if len(means) == 1:
        return _interval(means[0], draws[0], level)
    return _interval(means[0] - means[1], draws[0] - draws[1], level)  # the same seed drew the same groups


def _draw(
    numbers: npt.NDArray[np.float64], groups: npt.ArrayLike | None, samples: int, seed: int
) -> npt.NDArray[np.float64]:
    """(samples,) means of (N,) values over drawn groups."""
    if numbers.ndim != 1 or not len(numbers):
        raise InputError(f"bootstrap needs values of shape (N,), got {numbers.shape}")
    member = np.arange(len(numbers)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(member) != len(numbers):
        raise InputError(f"{len(member)} groups for {len(numbers)} values: give one each")
    if member.max() == 0:
        member = np.arange(len(numbers))
    sums, counts = np.bincount(member, numbers), np.bincount(member)  # (G,)
    rng, draws = np.random.default_rng(seed), np.empty(samples)
    rows = max(_AT_ONCE // len(counts), 1)
    for start in range(0, samples, rows):
        drawn = rng.integers(0, len(counts), (min(rows, samples - start), len(counts)))
        draws[start : start + rows] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return draws


def _interval(mean: float, draws: npt.NDArray[np.float64], level: float) -> Interval:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(mean, float(low), float(high))


def _harmonic(seen: npt.NDArray[np.float64] | np.float64, unseen: npt.NDArray[np.float64] | np.float64) -> Any:
    total = seen + unseen
    return 2.0 * seen * unseen / np.where(total > 0, total, 1.0)
