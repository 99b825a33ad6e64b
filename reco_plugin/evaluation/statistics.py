"""Paired differences of queries: the mean, its interval, and when it may be called sure.

Queries of one thing move together, so groups of them are drawn and exchanged whole. A difference is sure where a
sign-flip permutation test is below :data:`SURE` and the interval leaves out 0: where many small rises meet a few large
drops, the test alone calls one null in eight a gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import InputError, importing

DRAWS, LEVEL, SURE = 999, 0.97, 0.03
"""Of the bootstrap; with 95 % and .05, skewed and clustered nulls of benchmarks/nulls.py pass 3 %."""
CHANGED, GROUPS, LEAST = 20, 10, 0.005
"""Queries that changed, groups they are of, and the difference (half a point), below which nothing is sure."""
_POWER = 3.0  # standard errors that an effect must have: 3 % on two sides, four of five tries
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
    """Mean and its interval by SciPy's bootstrap (BCa), over groups where values of one group are correlated.

    With fewer than two groups the values are drawn one by one. Bounds lie within the values.

    Args:
        values: (N,) one number per query, as hits (0 or 1) or their difference.
        groups: (N,) group of each query.
        level: confidence level.
        seed: of the draws; the same seed gives the same bounds.

    Raises:
        InputError: no values, or not one group for each.
        MissingExtra: scipy is not installed.
    """
    with importing("scipy", "measure", "an interval"):
        from scipy import stats
    sums, counts = _by_group(values, groups)
    mean = float(sums.sum() / counts.sum())
    if np.ptp(sums - mean * counts) < 1e-12:
        return Interval(mean, mean, mean)

    def ratio(total: Any, many: Any, axis: int = -1) -> Any:
        return total.sum(axis=axis) / many.sum(axis=axis)

    how = {"n_resamples": DRAWS, "batch": max(1, 2**20 // len(sums)), "vectorized": True, "paired": True}
    found = stats.bootstrap(
        (sums, counts), ratio, confidence_level=level, method="BCa", rng=np.random.default_rng(seed), **how
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


@dataclass(frozen=True)
class Difference:
    """What a paired difference of N queries says.

    Attributes:
        interval: the mean difference.
        p: how often it would be as large if the sides were exchanged at random, times the number that was tried; 1
            where too few changed.
        changed: queries with a difference.
        effect: whether it surely gains or loses; ``no difference`` where enough changed and it is neither.
        more: queries beside these that a difference of this size needs, in four of five tries; 0 where it is sure;
            None where there is none.
    """

    interval: Interval
    p: float
    changed: int
    effect: Effect
    more: int | None

    @property
    def sure(self) -> bool:
        """Whether it surely gains."""
        return self.effect == "gains"


def compare_pairs(
    difference: npt.ArrayLike, groups: npt.ArrayLike | None = None, *, tried: int = 1, seed: int = 0
) -> Difference:
    """Test paired differences of N queries; each query counts once, however often it is searched for.

    Args:
        difference: (N,) after minus before, as shares.
        groups: (N,) what is drawn, and exchanged, whole: classes, people; None: each query alone.
        tried: comparisons of which this is one that may be picked: level and p are corrected for them (Bonferroni).
        seed: of draws and flips.

    Raises:
        InputError, MissingExtra: see :func:`bootstrap`.
    """
    with importing("scipy", "measure", "a test of differences"):
        from scipy import stats
    sums, counts = _by_group(difference, groups)
    changed, moved = int(np.count_nonzero(difference)), sums[sums != 0]
    interval = bootstrap(difference, groups, level=1.0 - (1.0 - LEVEL) / tried, seed=seed)
    enough = changed >= CHANGED and len(moved) >= GROUPS
    p = 1.0
    if enough:
        how = {"permutation_type": "samples", "vectorized": True, "n_resamples": 2 * DRAWS + 1, "batch": 500}
        test = stats.permutation_test((moved,), np.mean, rng=np.random.default_rng(seed), **how)
        p = min(1.0, tried * float(test.pvalue))
    effect: Effect = "no difference" if enough else "too few"
    if enough and p < SURE and abs(interval.mean) >= LEAST and interval.low * interval.high > 0:
        effect = "gains" if interval.mean > 0 else "loses"
    apart = sums - interval.mean * counts
    error = math.sqrt(float(apart @ apart) * len(sums) / max(len(sums) - 1, 1)) / float(counts.sum())
    more = 0 if effect in ("gains", "loses") else _more(interval.mean, error, int(counts.sum()))
    return Difference(interval, p, changed, effect, more)


def _by_group(values: npt.ArrayLike, groups: npt.ArrayLike | None) -> tuple[Figures, Figures]:
    """Sums and numbers of values of G groups, (G,) each."""
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
    """Queries beside these until a difference of this size has enough standard errors."""
    if abs(mean) < LEAST:
        return None
    return max(1, math.ceil(((_POWER * error / abs(mean)) ** 2 - 1.0) * queries))
