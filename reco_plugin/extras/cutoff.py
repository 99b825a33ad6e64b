"""A cut-off with a promise: at least so many of the first answers that pass it are right.

Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei, Learn then Test: Calibrating predictive algorithms to
achieve risk control, arXiv:2110.01052, 2021) with fixed-sequence testing. A cut-off t is one hypothesis: less than the
promised share of what passes t is right. Of the questions that pass t, the number of wrong ones is binomial, so its
tail is a p-value, for any number of questions. The cut-offs to test, and the one to begin with, are chosen on other
questions; from there they are tested downwards until one is not rejected. So the chance that the cut-off which is kept
does not hold what it promises is at most the error level. That chance is over the choice of the things that asked, and
it holds for queries that are drawn as these were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RISK = 0.1
"""Chance that a promise does not hold."""
_GRID = 100  # cut-offs that are tested at most
Chances = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FirstAnswers:
    """First answers of n questions, one a thing.

    Attributes:
        score: (n,) of the first answer; higher is surer.
        right: (n,) whether it is right.
    """

    score: Chances
    right: npt.NDArray[np.bool_]

    def pass_at(self, cut: float) -> tuple[int, int]:
        """How many pass a cut-off, and how many of these are wrong."""
        passing = self.score >= cut
        return int(passing.sum()), int((passing & ~self.right).sum())


@dataclass(frozen=True)
class Promise:
    """A cut-off, and what its questions say of it.

    Attributes:
        cut: first answers from this score on pass.
        passing: share of the questions that pass, with its 95 % interval; the lowest of the kinds of questions, which
            the same things ask, so that together they are no more evidence.
        right: share of these that are right, with its 95 % interval; the lowest of the kinds, too.
    """

    cut: float
    passing: tuple[float, float, float]
    right: tuple[float, float, float]


def find_cutoff(
    chosen: Sequence[FirstAnswers], tested: Sequence[FirstAnswers], precision: float, risk: float = RISK
) -> Promise | None:
    """The lowest cut-off of which ``precision`` can be promised, for each kind of questions; None where none can.

    Args:
        chosen: questions of each kind that choose the order of the tests.
        tested: other questions of each kind, which are tested.
        precision: share of right answers among those that pass.
        risk: chance that the promise does not hold.
    """
    grid = np.unique(np.quantile(np.concatenate([one.score for one in chosen]), np.linspace(0.0, 1.0, _GRID)))[::-1]
    first = int(np.argmin([_doubt(chosen, float(cut), precision) for cut in grid]))
    kept = None
    for cut in grid[first:]:
        if _doubt(tested, float(cut), precision) > risk:
            break
        kept = float(cut)
    if kept is None:
        return None
    counts = [one.pass_at(kept) for one in tested]
    asked = [(many, len(one.score)) for one, (many, _) in zip(tested, counts, strict=True)]
    least = min(asked, key=lambda one: one[0] / one[1])
    worst = min(counts, key=lambda one: (one[0] - one[1]) / one[0])
    return Promise(kept, interval(*least), interval(worst[0] - worst[1], worst[0]))


def _doubt(kinds: Sequence[FirstAnswers], cut: float, precision: float) -> float:
    """The largest p-value of the kinds, that less than ``precision`` is right of what passes."""
    return max(
        binomial_tail(wrong, passing, 1.0 - precision) if passing else 1.0
        for passing, wrong in (one.pass_at(cut) for one in kinds)
    )


def binomial_tail(at_most: int, of: int, share: float) -> float:
    """Chance of at most so many among ``of``, each with a chance of ``share``.

    >>> round(binomial_tail(1, 10, 0.5), 5)
    0.01074
    """
    if at_most >= of or share <= 0.0:
        return 1.0
    if share >= 1.0:
        return 0.0
    n = np.arange(1, at_most + 1)
    ratios = np.log((of - n + 1) / n) + math.log(share) - math.log1p(-share)  # of one term to the one before
    terms = of * math.log1p(-share) + np.append(0.0, np.cumsum(ratios))
    return float(min(1.0, np.exp(terms).sum()))


def interval(good: int, of: int, level: float = 0.95) -> tuple[float, float, float]:
    """A share with its exact interval (Clopper and Pearson, 1934).

    >>> [round(x, 3) for x in interval(9, 10)]
    [0.9, 0.555, 0.997]
    """
    if not of:
        return 0.0, 0.0, 1.0
    beyond = (1.0 - level) / 2.0
    low = 0.0 if not good else _solve(lambda share: 1.0 - binomial_tail(good - 1, of, share) >= beyond)
    high = 1.0 if good == of else _solve(lambda share: binomial_tail(good, of, share) < beyond)
    return good / of, low, high


def _solve(holds: Callable[[float], bool]) -> float:
    """The lowest share at which something begins to hold."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2.0
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def fewest(precision: float, risk: float = RISK) -> int:
    """Questions that must pass at least, all of them right, for a promise.

    >>> fewest(0.9)
    22
    """
    return math.ceil(math.log(risk) / math.log(precision))
