"""Means of queries with their intervals, paired differences, and when one may be called sure.

An interval is a studentised bootstrap over queries, or over groups that are drawn whole (Hall, The bootstrap and
Edgeworth expansion, 1992): where many small rises meet a few large drops, a percentile or a t interval misses the truth
three to five times as often as it says. A difference is sure by a sign-flip permutation test and by its interval, both,
and only where enough queries and groups changed. The tests take scipy; intervals take numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import InputError, importing

DRAWS, LEVEL = 1000, 0.95
SURE = 0.04
"""p below which a difference is sure: with .05, draws and flips of tests/measure call 3 % of nulls a gain."""
CHANGED, GROUPS, LEAST = 20, 10, 0.005
"""Queries that changed, groups they are of, and the difference (half a point), below which nothing is sure."""
_FEW, _ALL = 12, 2**12  # groups of which all flips are made, and how many these are
_NORMAL = 2000  # groups from which on the sum of flipped signs is as good as normal
_AT_ONCE = 2**16  # groups that are drawn at once: several draws of few, which fit a cache
_POWER = 2.8  # standard errors that an effect must have: 5 % on two sides, four of five tries
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
    weights: npt.ArrayLike | None = None,
    samples: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean and its interval; with groups, whole groups are drawn.

    Draw groups where the values of some queries are correlated, as those of one class are when its prompt changes. With
    fewer than two groups the values are drawn one by one. Bounds lie within the values.

    Args:
        values: (N,) one number per query, as hits (0 or 1) or their difference.
        groups: (N,) group of each query.
        weights: (N,) how often each was asked; None: all alike.
        samples: number of draws.
        level: confidence level.
        seed: of the draws; the same seed gives the same bounds.

    Raises:
        InputError: no values, or not one group and weight for each.
    """
    numbers, (sums, counts) = _numbers(values), _by_group(values, groups, weights)
    mean = float(sums.sum() / counts.sum())
    error = float(_error(sums[None], counts[None])[0])
    if error == 0.0:
        return Interval(mean, mean, mean)
    apart = np.concatenate([_apart(*drawn, mean) for drawn in _draws(sums, counts, samples, seed)])
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(apart, [tail, 1.0 - tail], method="inverted_cdf")
    least, most = float(numbers.min()), float(numbers.max())
    bounds = np.clip([mean - high * error, mean - low * error], least, most)
    if np.isinf([low, high]).any():  # many draws lack what is rare: it is as rare as a share so near an end may be
        share = (mean - least) / (most - least)
        rare = [
            least + (most - least) * one
            for one in _wilson(share, share * (1 - share) * ((most - least) / error) ** 2, level)
        ]
        bounds = np.where(np.isinf([high, low]), rare, bounds)
    return Interval(mean, float(bounds[0]), float(bounds[1]))


def level(
    values: npt.ArrayLike, groups: npt.ArrayLike | None = None, *, weights: npt.ArrayLike | None = None
) -> Interval:
    """Mean of values from 0 to 1 and its interval by Wilson's score, which is as good near 0 and 1.

    Values of one group count as far as they differ from one another: by the variance of the groups' means, N values
    are as many independent ones as would give it.

    >>> mean, low, high = level([1.0] * 59 + [0.0])
    >>> round(mean, 3), round(low, 3), round(high, 3)
    (0.983, 0.91, 0.997)

    Raises:
        InputError: see :func:`bootstrap`.
    """
    sums, counts = _by_group(values, groups, weights)
    mean = min(max(float(sums.sum() / counts.sum()), 0.0), 1.0)
    variance = float(_error(sums[None], counts[None])[0]) ** 2
    many = mean * (1.0 - mean) / variance if variance > 0 else float(len(sums))
    low, high = _wilson(mean, many, LEVEL)
    return Interval(mean, max(0.0, low), min(1.0, high))


@dataclass(frozen=True)
class Difference:
    """What a paired difference of N queries says.

    Attributes:
        interval: the mean difference.
        p: how often it would be as large if the sides were exchanged at random, times the number that was tried; 1
            where too few changed.
        changed: queries with a difference.
        groups: that they are of.
        effect: whether it surely gains or loses; ``no difference`` where enough changed and it is neither.
        more: queries beside these that a difference of this size needs, in four of five tries; 0 where it is sure;
            None where there is none.
    """

    interval: Interval
    p: float
    changed: int
    groups: int
    effect: Effect
    more: int | None

    @property
    def sure(self) -> bool:
        """Whether it surely gains."""
        return self.effect == "gains"


def compare_pairs(
    difference: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    weights: npt.ArrayLike | None = None,
    tried: int = 1,
    samples: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Test paired differences of N queries.

    Args:
        difference: (N,) after minus before, as shares.
        groups: (N,) what is drawn, and exchanged, whole: classes, people; None: each query alone.
        weights: (N,) how often each query was asked; None: all alike.
        tried: comparisons of which this is one that may be picked: level and p are corrected for them (Bonferroni).
        samples: draws of the interval, and half of the flips of the test.
        seed: of draws and flips.

    Raises:
        InputError: see :func:`bootstrap`.
        MissingExtra: scipy is not installed.
    """
    numbers, (sums, counts) = _numbers(difference), _by_group(difference, groups, weights)
    changed = int((numbers != 0).sum())
    moved = int((sums != 0).sum())
    level = 1.0 - (1.0 - LEVEL) / tried
    interval = bootstrap(difference, groups, weights=weights, level=level, samples=samples, seed=seed)
    enough = changed >= CHANGED and moved >= GROUPS
    p = min(1.0, tried * _exchanged(sums[sums != 0], 2 * samples - 1, seed)) if enough else 1.0
    sure = enough and p < SURE and abs(interval.mean) >= LEAST
    effect: Effect = "no difference" if enough else "too few"
    if sure and interval.low > 0:
        effect = "gains"
    elif sure and interval.high < 0:
        effect = "loses"
    error = _error(sums[None], counts[None])[0]
    more = 0 if effect in ("gains", "loses") else _more(interval.mean, error, len(numbers))
    return Difference(interval, p, changed, moved, effect, more)


def sign_test(one: int, other: int) -> float:
    """Chance of votes that differ at least as much, from fair coins: the binomial, on two sides.

    >>> round(sign_test(1, 9), 9)
    0.021484375

    Raises:
        MissingExtra: scipy is not installed.
    """
    with importing("scipy", "measure", "a test of votes"):
        from scipy.stats import binomtest
    return float(binomtest(one, one + other).pvalue) if one + other else 1.0


def _numbers(values: npt.ArrayLike) -> Figures:
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise InputError(f"bootstrap needs values of shape (N,), got {numbers.shape}")
    return numbers


def _by_group(
    values: npt.ArrayLike, groups: npt.ArrayLike | None, weights: npt.ArrayLike | None
) -> tuple[Figures, Figures]:
    """Sums and weights of G groups, (G,) each."""
    numbers = _numbers(values)
    member = np.arange(len(numbers)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(member) != len(numbers):
        raise InputError(f"{len(member)} groups for {len(numbers)} values: give one each")
    if member.max() == 0:
        member = np.arange(len(numbers))
    each = np.ones(len(numbers)) if weights is None else np.asarray(weights, np.float64)
    if each.shape != numbers.shape:
        raise InputError(f"{len(each)} weights for {len(numbers)} values: give one each")
    return np.bincount(member, numbers * each).astype(np.float64), np.bincount(member, each).astype(np.float64)


def _draws(sums: Figures, counts: Figures, samples: int, seed: int) -> Iterator[tuple[Figures, Figures]]:
    """Sums and weights of drawn groups, (b, G) each, some draws at a time."""
    rng, rows = np.random.default_rng(seed), max(_AT_ONCE // len(counts), 1)
    for start in range(0, samples, rows):
        drawn = rng.integers(0, len(counts), (min(rows, samples - start), len(counts)))
        yield sums[drawn], counts[drawn]


def _error(sums: Figures, counts: Figures) -> Figures:
    """Standard errors (b,) of the means of groups (b, G)."""
    total, many = counts.sum(axis=1), counts.shape[1]
    apart = sums - (sums.sum(axis=1) / total)[:, None] * counts
    variance = np.einsum("bg,bg->b", apart, apart) * many / max(many - 1, 1)
    found: Figures = np.sqrt(np.where(variance > 1e-18 * total**2, variance, 0.0)) / total
    return found


def _apart(sums: Figures, counts: Figures, mean: float) -> Figures:
    """How many of its own standard errors each drawn mean lies from the true one, (b,); infinitely many of none."""
    far, error = sums.sum(axis=1) / counts.sum(axis=1) - mean, _error(sums, counts)
    without = np.where(np.abs(far) > 1e-12, np.copysign(np.inf, far), 0.0)
    return np.where(error > 0, far / np.where(error > 0, error, 1.0), without)


def _wilson(mean: float, many: float, confidence: float) -> tuple[float, float]:
    """Wilson's bounds of a share of so many."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    centre, wide = mean + z * z / (2 * many), z * math.sqrt(mean * (1.0 - mean) / many + (z / (2 * many)) ** 2)
    return (centre - wide) / (1.0 + z * z / many), (centre + wide) / (1.0 + z * z / many)


def _exchanged(sums: Figures, flips: int, seed: int) -> float:
    """The p of a sign-flip permutation test of groups, of which none is 0."""
    with importing("scipy", "measure", "a test of differences"):
        from scipy import stats
    if len(sums) > _NORMAL:
        return float(2 * stats.norm.sf(abs(sums.sum()) / np.sqrt((sums**2).sum())))
    many = _ALL if len(sums) <= _FEW else flips
    how = {"permutation_type": "samples", "vectorized": True, "n_resamples": many, "batch": 500}
    found = stats.permutation_test((sums,), np.mean, rng=np.random.default_rng(seed), **how)
    return float(found.pvalue)


def _more(mean: float, error: float, queries: int) -> int | None:
    """Queries beside these until a difference of this size has enough standard errors."""
    if abs(mean) < LEAST:
        return None
    return max(1, math.ceil(((_POWER * error / abs(mean)) ** 2 - 1.0) * queries))
