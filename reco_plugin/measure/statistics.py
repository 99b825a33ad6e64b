"""Means of queries with their intervals, paired differences, and when one may be called sure.

An interval is a studentised bootstrap over queries, or over groups that are drawn whole (Hall, The bootstrap and
Edgeworth expansion, 1992): where many small rises meet a few large drops, a percentile or a t interval misses the truth
three to five times as often as it says. A difference is sure by a sign-flip permutation test and by its interval, both,
and only where enough queries and groups changed. The tests take scipy; intervals take numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

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
    bounds = np.clip([mean - high * error, mean - low * error], numbers.min(), numbers.max())
    return Interval(mean, float(bounds[0]), float(bounds[1]))


def harmonic_mean(seen: float, unseen: float) -> float:
    """Harmonic mean of two accuracies: high only where both are.

    >>> harmonic_mean(0.6, 0.3)
    0.4
    >>> harmonic_mean(0.6, 0.0)
    0.0
    """
    return float(_harmonic(np.float64(seen), np.float64(unseen)))


def bootstrap_harmonic(
    seen: Sequence[npt.ArrayLike],
    unseen: Sequence[npt.ArrayLike],
    groups: tuple[npt.ArrayLike | None, npt.ArrayLike | None] = (None, None),
    *,
    samples: int = DRAWS,
    level: float = LEVEL,
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
    found = list[tuple[float, Figures]]()
    for sides in zip(seen, unseen, strict=True):
        drawn = []
        for number, (side, of) in enumerate(zip(sides, groups, strict=True)):
            blocks = _draws(*_by_group(side, of, None), samples, seed + number)  # the same seed draws the same groups
            drawn.append(np.concatenate([sums.sum(axis=1) / counts.sum(axis=1) for sums, counts in blocks]))
        means = (_numbers(side).mean() for side in sides)
        found.append((float(_harmonic(*means)), _harmonic(*drawn)))
    (mean, draws), *before = found
    if before:
        mean, draws = mean - before[0][0], draws - before[0][1]
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(mean, float(low), float(high))


@dataclass(frozen=True)
class Difference:
    """What a paired difference of N queries says.

    Attributes:
        interval: the mean difference.
        p: how often it would be as large if the sides were exchanged at random, times the number that was tried; 1
            where too few changed.
        changed: queries with a difference.
        groups: that they are of.
        told: whether it surely gains or loses; ``no difference`` where enough changed and it is neither.
        more: queries that it would take beside these to tell one of this size, in four of five tries; 0 where it is
            told; None where there is none.
    """

    interval: Interval
    p: float
    changed: int
    groups: int
    told: Effect
    more: int | None

    @property
    def sure(self) -> bool:
        """Whether it surely gains."""
        return self.told == "gains"


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
    told: Effect = "no difference" if enough else "too few"
    if sure and interval.low > 0:
        told = "gains"
    elif sure and interval.high < 0:
        told = "loses"
    more = 0 if told in ("gains", "loses") else _more(interval.mean, _error(sums[None], counts[None])[0], len(numbers))
    return Difference(interval, p, changed, moved, told, more)


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


def _harmonic(seen: Figures | np.float64, unseen: Figures | np.float64) -> Any:
    total = seen + unseen
    return 2.0 * seen * unseen / np.where(total > 0, total, 1.0)
