"""How many captions are wrong, among the first of a list and in all: a mixture of right and wrong scores.

The scores of wrong captions are known, from captions that were exchanged, at random and among similar pictures. Those
of right ones follow a normal distribution with a wider shoulder. A Metropolis sampler draws what fits the scores of the
catalogue, from two starts, few wrong captions and many: its draws differ as far as the scores leave it open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..learning.nearest import RowNumbers
from ..vectors import Floats
from .clean import CaptionScores

LENGTHS = (20, 100, 500)
"""Lengths of the beginnings of the list that are counted."""
_BINS, _DRAWS, _THIN, _WARM_UP = 60, 300, 20, 1_500
_TRUST = 100.0
"""Pairs that the scores count as, at most: a model that is only nearly true must not be surer with more of them."""
_WIDEST = 0.5
"""Width of the interval of the share of wrong captions, from which a part cannot be told."""
_FEWEST = 50
_LOW = 0.01
"""Quantile of the draws at the lower end of a 90 % interval: it has to be lower than 5 %, as measured."""
_TINY = 1e-12


@dataclass(frozen=True)
class Count:
    """An expected number with its 90 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Part:
    """Captions with several pictures, or with one.

    Attributes:
        name: for people.
        pairs: how many it has.
        wrong: of them, how many are wrong.
        known: whether the scores can tell.
    """

    name: str
    pairs: int
    wrong: Count
    known: bool


@dataclass(frozen=True)
class Counts:
    """Expected numbers of wrong captions.

    Attributes:
        first: by length of a list, among the worst so many.
        parts: of the catalogue.
        chance: (N,) of each caption to be wrong.
        is_known: (N,) whether its part can be told.
    """

    first: dict[int, Count]
    parts: tuple[Part, ...]
    chance: Floats
    is_known: npt.NDArray[np.bool_]


def count_wrong(
    scores: CaptionScores, order: RowNumbers, decided: npt.NDArray[np.bool_] | None = None, seed: int = 0
) -> Counts:
    """Count the wrong captions of N, each part of the catalogue by itself.

    Args:
        scores: of the captions.
        order: rows of the list, the worst first; some may be left out.
        decided: (N,) captions that are known to be right or wrong, and are not counted; None: none is.
        seed: of the sampler.
    """
    rng, count = np.random.default_rng(seed), len(scores.score)
    parts, draws = list[Part](), np.zeros((_DRAWS, count), np.float32)  # chance of each, by draw
    is_known, left = np.ones(count, bool), np.ones(count, bool) if decided is None else ~decided
    one, more = (int((left & kind).sum()) for kind in (~scores.several, scores.several))
    several = scores.several if min(one, more) >= _FEWEST else np.zeros(count, bool)
    names = ("captions with one picture", "captions with several pictures") if several.any() else ("all captions",)
    for kind, name in enumerate(names):
        rows = (several == kind) & left
        null = [drawn[(of == kind) | (len(names) == 1)] for drawn, of in scores.exchanged]
        null = [
            part if len(part) >= _FEWEST else whole for part, (whole, _) in zip(null, scores.exchanged, strict=True)
        ]
        draws[:, rows] = chance = _draw(scores.score[rows], null[0], null[1], rng)
        wrong = _count(chance, rng)
        known = wrong.high - wrong.low <= _WIDEST * rows.sum()
        is_known[rows] = known
        parts.append(Part(name, int(rows.sum()), wrong, bool(known)))
    first = {length: _count(draws[:, order[:length]], rng) for length in LENGTHS if length <= len(order)}
    return Counts(first, tuple(parts), draws.mean(axis=0), is_known)


def _count(chance: Floats, rng: np.random.Generator) -> Count:
    """How many of n pairs are wrong, by draws (S, n) of their chances."""
    spread = np.sqrt((chance * (1 - chance)).sum(axis=1))
    drawn = np.clip(chance.sum(axis=1) + spread * rng.standard_normal(len(chance)), 0, chance.shape[1])
    low, high = np.quantile(drawn, (_LOW, 1 - _LOW))
    return Count(float(chance.sum(axis=1).mean()), float(np.floor(low)), float(np.ceil(high)))


def _draw(score: Floats, random: Floats, near: Floats, rng: np.random.Generator) -> Floats:
    """Draws (S, n) of the chance of each of n scores to be one of a wrong caption."""
    edges = np.linspace(min(score.min(), random.min()) - _TINY, max(score.max(), random.max()) + _TINY, _BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    place = np.clip(np.digitize(score, edges) - 1, 0, _BINS - 1)
    seen = np.bincount(place, minlength=_BINS) * min(1.0, _TRUST / len(score))
    nulls = [_smooth(np.asarray(np.histogram(part, edges)[0], np.float32)) for part in (random, near)]
    centre, width = float(np.median(score)), float(score.std()) + 1e-6
    ceiling = float(np.median(random))

    def chances(b: npt.NDArray[np.float64]) -> tuple[Floats, float]:
        """Chance by bin, and the logarithm of the posterior."""
        share, hard, broad = 1 / (1 + np.exp(-b[:3]))
        inner, outer = np.exp(b[4]) * width, np.exp(b[4] + abs(b[5])) * width
        at = centre + b[3] * width
        right = 0.3 * broad * _normal(middle, at + abs(b[6]) * inner, outer)
        right = _smooth(right + (1 - 0.3 * broad) * _normal(middle, at, inner), 0.0)
        wrong = share * ((1 - hard) * nulls[0] + hard * nulls[1])
        total = wrong + (1 - share) * right + _TINY
        prior = -0.5 * (((b[0] + 3) / 2) ** 2 + (b[1] / 2) ** 2 + (b[2] / 2) ** 2 + (b[3] / 1.5) ** 2)
        prior += -0.5 * ((b[4] + 0.3) ** 2 + (b[5] / 0.8) ** 2 + (b[6] / 0.7) ** 2)
        return wrong / total, float(seen @ np.log(total)) + prior - 1e3 * max(0.0, at - ceiling)

    step, kept = np.array([0.5, 1.0, 1.0, 0.1, 0.1, 0.3, 0.3]), list[Floats]()
    for start in ([-3.0, 0.0, -1.0, -0.1, -0.3, 0.3, 0.3], [0.0, 0.0, -1.0, -0.8, -0.7, 0.3, 0.3]):  # few, or many
        b = np.array(start, np.float64)
        chance, best = chances(b)
        for turn in range(_WARM_UP + _DRAWS // 2 * _THIN):
            tried = b + step * rng.standard_normal(len(b)) * (0.3 if turn % 2 else 1.0)
            new, value = chances(tried)
            if np.log(rng.random()) < value - best:
                b, chance, best = tried, new, value
            if turn >= _WARM_UP and turn % _THIN == 0:
                kept.append(chance)
    return np.asarray(np.stack(kept)[:, place], np.float32)


def _normal(x: npt.NDArray[np.float64], mean: float, deviation: float) -> npt.NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * ((x - mean) / deviation) ** 2) / deviation)


def _smooth(count: Floats, more: float = 0.3) -> Floats:
    """Shares (B,) of bins, of counts that a narrow kernel spreads."""
    spread = np.convolve(count, (0.25, 0.5, 0.25), "same") + more if more else count
    return np.asarray(spread / (spread.sum() + _TINY))
