"""Paired differences of queries: the mean, its confidence interval, and whether it is significant.

Queries of one group are correlated, so groups are resampled and sign-flipped as a whole. A difference is significant if
a permutation test is below :data:`ALPHA` and the interval excludes 0. The test alone calls one null in eight a gain if
many small gains meet a few large losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import InputError, importing

RESAMPLES, LEVEL, ALPHA = 999, 0.97, 0.03
"""At 95 % and .05, skewed and clustered nulls of benchmarks/nulls.py show more than 3 % false gains."""
MIN_CHANGED, MIN_GROUPS, MIN_EFFECT = 20, 10, 0.005
"""Changed queries, their groups, and the mean difference (half a point) below which nothing is significant."""
_POWER = 3.0  # standard errors of an effect that is found in four of five tries, at 3 % on two sides
Figures = npt.NDArray[np.float64]
Effect: TypeAlias = Literal["gains", "loses", "no difference", "too few"]


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


def bootstrap(
    values: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean of values (N,) with its BCa bootstrap interval (SciPy).

    Whole groups (N,) are resampled. With fewer than two groups, single values are.

    Raises:
        InputError: there are no values, or the number of groups differs.
        MissingExtra: scipy is not installed.
    """
    with importing("scipy", "measure", "an interval"):
        from scipy import stats
    sums, counts = _by_group(values, groups)
    mean = float(sums.sum() / counts.sum())
    if np.ptp(sums - mean * counts) < 1e-12:
        return Interval(mean, mean, mean)

    def ratio(total: Any, number: Any, axis: int = -1) -> Any:
        return total.sum(axis=axis) / number.sum(axis=axis)

    options = {"n_resamples": RESAMPLES, "batch": max(1, 2**20 // len(sums)), "vectorized": True, "paired": True}
    bounds = stats.bootstrap(
        (sums, counts), ratio, confidence_level=level, method="BCa", rng=np.random.default_rng(seed), **options
    ).confidence_interval
    return Interval(mean, float(bounds.low), float(bounds.high))


@dataclass(frozen=True)
class Difference:
    """A tested mean difference of paired queries.

    Attributes:
        interval: of the mean.
        p: two-sided p-value, times the number of comparisons that were tried; 1 if too few queries changed.
        changed: number of queries with a difference.
        effect: ``gains`` and ``loses`` are significant; ``no difference`` means that enough queries changed.
        more: additional queries needed to find a difference of this size in four of five tries; 0 if it is significant;
            None if the difference is too small to matter.
    """

    interval: Interval
    p: float
    changed: int
    effect: Effect
    more: int | None

    @property
    def is_gain(self) -> bool:
        """Whether the gain is significant."""
        return self.effect == "gains"


def compare_pairs(
    difference: npt.ArrayLike, groups: npt.ArrayLike | None = None, *, tried: int = 1, seed: int = 0
) -> Difference:
    """Test paired differences (N,), after minus before; each query counts once.

    Args:
        difference: shares from -1 to 1.
        groups: (N,) group of each query; None: every query is independent.
        tried: number of comparisons from which one may be selected (Bonferroni correction).
        seed: of resampling and permutation.

    Raises:
        InputError, MissingExtra: see :func:`bootstrap`.
    """
    with importing("scipy", "measure", "a test of differences"):
        from scipy import stats
    sums, counts = _by_group(difference, groups)
    changed, moved = int(np.count_nonzero(difference)), sums[sums != 0]
    interval = bootstrap(difference, groups, level=1.0 - (1.0 - LEVEL) / tried, seed=seed)
    enough = changed >= MIN_CHANGED and len(moved) >= MIN_GROUPS
    p = 1.0
    if enough:
        options = {"permutation_type": "samples", "vectorized": True, "n_resamples": 2 * RESAMPLES + 1, "batch": 500}
        test = stats.permutation_test((moved,), np.mean, rng=np.random.default_rng(seed), **options)
        p = min(1.0, tried * float(test.pvalue))
    effect: Effect = "no difference" if enough else "too few"
    if enough and p < ALPHA and abs(interval.mean) >= MIN_EFFECT and interval.low * interval.high > 0:
        effect = "gains" if interval.mean > 0 else "loses"
    residuals = sums - interval.mean * counts
    error = math.sqrt(float(residuals @ residuals) * len(sums) / max(len(sums) - 1, 1)) / float(counts.sum())
    more = 0 if effect in ("gains", "loses") else _more(interval.mean, error, int(counts.sum()))
    return Difference(interval, p, changed, effect, more)


def _by_group(values: npt.ArrayLike, groups: npt.ArrayLike | None) -> tuple[Figures, Figures]:
    """Sums and counts of the values of G groups, (G,) each."""
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise InputError(f"values of shape (N,) are needed, got {numbers.shape}")
    member = np.arange(len(numbers)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(member) != len(numbers):
        raise InputError(f"{len(member)} groups for {len(numbers)} values: give one each")
    if member.max() == 0:
        member = np.arange(len(numbers))
    return np.bincount(member, numbers).astype(np.float64), np.bincount(member).astype(np.float64)


def _more(mean: float, error: float, queries: int) -> int | None:
    """Additional queries until a difference of this size has enough standard errors."""
    if abs(mean) < MIN_EFFECT:
        return None
    return max(1, math.ceil(((_POWER * error / abs(mean)) ** 2 - 1.0) * queries))
