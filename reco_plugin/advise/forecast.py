"""How likely search fails for a thing: learned from questions that a memory's own pairs ask, hidden from it.

A thing asks by its words; the index holds one picture of each thing. What that shows (whether its own picture leads,
how near the memory's captions and the best rival are, how far the query moved) is compared with how the same thing
fares when it is asked for once more: by another of its captions for another of its pictures; where it has one, by that
caption in other words. So no label is needed, and what its own caption finds is not taken for safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..calibration.cutoff import Chances, interval
from ..calibration.match import Logistic, auc_of, fit_logistic, reliability_curve
from ..calibration.presence import moved_towards
from ..calibration.questions import HIDDEN
from ..machine.blas import Floats
from ..refine import Refiner
from .index import IndexView, PictureIndex, ThingQueries
from .things import KnownPairs

ASKED = 500
"""Things of the memory that ask, at most."""
FEWEST = 40
"""Things that must ask before chances are learned."""
ALIKE = 60
"""Own questions of the nearest chances, of which the interval of a chance is told."""
OTHERWISE = 0.98
"""Cosine of a caption in other words with itself, where a thing has no second one."""
_FEW_FAIL = 10


@dataclass(frozen=True)
class OwnQuestions:
    """What was seen of n things with their pairs hidden, then of the same n with them visible; and what came of it.

    Attributes:
        shown: (2 n,) of the questions.
        failed: (2 n,) whether the thing was not found when it was asked for once more.
    """

    shown: IndexView
    failed: npt.NDArray[np.bool_]

    @property
    def mended(self) -> float | None:
        """Share of those that fail hidden and not visible, of those that fail hidden; None where too few do."""
        hidden, visible = np.split(self.failed, 2)
        return float((hidden & ~visible).sum() / hidden.sum()) if hidden.sum() >= _FEW_FAIL else None


@dataclass(frozen=True)
class Forecast:
    """Chances that search fails, and what they were on own questions that the fit had not seen.

    Attributes:
        chance: that search finds the thing, of signals.
        without: the same of things of which the memory shows no pair.
        within: that search finds such a thing once the memory shows its pairs, of the same signals.
        pictured: whether the signals have the margin of an own picture.
        held_out: (n,) forecasts of failing for own questions, by a fit to the other half of the things.
        failed: (n,) whether these did.
        auc: how often one that fails has the higher forecast.
        error: expected calibration error.
        curve: ten bins: mean forecast, share that failed, number.
    """

    chance: Logistic
    without: Logistic
    within: Logistic
    pictured: bool
    held_out: Chances
    failed: npt.NDArray[np.bool_]
    auc: float
    error: float
    curve: tuple[tuple[float, float, int], ...]

    def fails(self, shown: IndexView) -> Chances:
        """Chance (B,) that search fails."""
        return np.asarray(1.0 - self.chance(shown.signals(pictured=self.pictured)))

    def gains(self, shown: IndexView) -> Chances:
        """By how much pairs of a thing in the memory are expected to raise the chance (B,) that search finds it."""
        signals = shown.signals(pictured=self.pictured)
        return np.maximum(self.within(signals) - self.without(signals), 0.0)

    def interval(self, chance: float) -> tuple[float, float]:
        """95 % interval of the share that failed, of the own questions with the nearest forecasts."""
        nearest = np.argsort(np.abs(self.held_out - chance), kind="stable")[:ALIKE]
        _, low, high = interval(int(self.failed[nearest].sum()), len(nearest))
        return low, high


def ask_own(
    refiner: Refiner, known: KnownPairs, *, seed: int = 0, progress: Callable[[int], object] = int
) -> OwnQuestions | None:
    """Ask with things of the memory, each with all of its pairs hidden, and once more with them visible.

    Where they are visible, what is asked for once more stays hidden if it is another pair.

    Args:
        refiner: of the memory.
        known: pairs of the memory, by thing.
        seed: of what is drawn.
        progress: gets a number of queries.

    Returns:
        None where too few things could ask.
    """
    rng = np.random.default_rng(seed)
    rows_of = dict[int, list[int]]()
    for row in rng.permutation(len(known.thing)).tolist():
        rows_of.setdefault(int(known.thing[row]), []).append(row)
    asking = {one: rows for one, rows in rows_of.items() if len(known.ids_of[one]) <= HIDDEN}
    first = np.array([rows[0] for rows in asking.values()][:ASKED], np.intp)
    if len(first) < FEWEST:
        return None
    second = np.array([rows[min(1, len(rows) - 1)] for rows in asking.values()][:ASKED], np.intp)
    pairs, alone = known.pairs, first == second
    words = pairs.text[second].copy()
    towards = pairs.text[rng.integers(0, len(known.thing), len(first))]
    moved = moved_towards(words, towards, np.full(len(first), OTHERWISE))
    words[alone] = moved[alone]
    shown_of = [rows[0] for rows in rows_of.values()]
    index = PictureIndex(pairs.image[shown_of], known.thing[shown_of])
    kept, failed = list[IndexView](), list[npt.NDArray[np.bool_]]()
    for visible in (False, True):
        hidden = [
            ([] if one else [pairs.ids[two]]) if visible else known.ids_of[int(thing)]
            for one, two, thing in zip(alone.tolist(), second.tolist(), known.thing[first], strict=True)
        ]
        once = ThingQueries(pairs.text[first], known.thing[first], hidden, pairs.image[first])
        again = replace(once, text=words, right=pairs.image[second])
        kept.append(index.ask(refiner, once, progress=progress))
        failed.append(np.asarray(index.ask(refiner, again, progress=progress).margin <= 0.0))
    return OwnQuestions(IndexView.join(kept), np.concatenate(failed))


def learn_forecast(own: OwnQuestions, *, pictured: bool) -> Forecast:
    """Fit chances to own questions, and look how they do on the half of the things that a fit has not seen."""
    signals, found = own.shown.signals(pictured=pictured), ~own.failed
    half = np.arange(len(found)) % (len(found) // 2) % 2 == 0  # both questions of a thing are in one half
    held_out = np.zeros(len(found))
    for side in (half, ~half):
        held_out[side] = 1.0 - _fit(signals[~side], found[~side])(signals[side])
    error, curve = reliability_curve(held_out, own.failed)
    hidden, (before, after) = signals[: len(found) // 2], np.split(found, 2)
    fits = _fit(signals, found), _fit(hidden, before), _fit(hidden, after)
    return Forecast(*fits, pictured, held_out, own.failed, auc_of(held_out, own.failed), error, curve)


def _fit(signals: Floats, found: npt.NDArray[np.bool_]) -> Logistic:
    return fit_logistic(signals, found, np.ones(len(found)), 1.0)
