"""How sure a ranking's first answer is: a probability, and a cut-off with a guarantee.

Both are learned from the memory's own pairs, which serve as held-out queries, see :mod:`.questions`. A part of them
fits a logistic regression of four signals of a ranking. The others test cut-offs of that probability by Learn then Test
(Angelopoulos, Bates, Candès, Jordan and Lei, arXiv:2110.01052, 2021) with fixed-sequence testing. A cut-off is one
hypothesis: less than the wanted share of what passes is right. The number of wrong answers among those that pass is
binomial, so a share below its exact lower bound is rejected. The part that was fitted chooses the cut-off to begin
with; from there cut-offs are tested downwards until one is not rejected. The chance that the last rejected one does not
hold is at most :data:`RISK`, for queries that are drawn as these were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, InputError
from ..types import MODALITIES, Modality, Refinement, ToldShort, check_rankings
from ..values import show
from .logistic import chance_of, fit_logistic

PRECISION = 0.9
"""Share of right answers among those that pass, by default."""
ABSENT = 0.2
"""Share of the queries that have no right answer in the index."""
RISK = 0.1
"""Chance that a cut-off does not hold its precision."""
LOOKED = 10
"""Scores of a ranking that are looked at."""
FEWEST_THINGS = 60
"""Things that must serve as queries."""
QueryWay: TypeAlias = Literal["plain", "refined"]
WAYS: tuple[QueryWay, ...] = get_args(QueryWay)
NAME = "confidence"
_SIGNALS = 4
Chances = npt.NDArray[np.float64]
_GRID = 100  # cut-offs that are tested at most
_BEYOND = 1.001  # a cosine of rounded vectors may be a little above 1


@dataclass(frozen=True)
class Questions:
    """Questions of one kind, one a thing.

    Attributes:
        signals: (n, 4) of their rankings.
        right: (n,) whether the first answer is right.
        fits: (n,) whether the thing's questions fit, and so choose what the others test.
    """

    signals: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]
    fits: npt.NDArray[np.bool_]

    def of(self, part: npt.NDArray[np.bool_]) -> Questions:
        """Those of a mask (n,)."""
        return Questions(self.signals[part], self.right[part], self.fits[part])


@dataclass(frozen=True)
class Confidence:
    """What is known of the rankings of one modality's queries, plain or refined ones.

    Attributes:
        weights: (5,) of the signals and a constant, by which the first answer is right.
        cuts: (G,) of that probability, in the order of the tests, the highest first.
        holds: (G,) the largest share of right answers among those that pass for which a cut-off is not rejected.
        passes: (G,) the share of the questions that pass.
    """

    weights: Chances
    cuts: Chances
    holds: Chances
    passes: Chances

    def cutoff(self, precision: float) -> tuple[float, float] | None:
        """The lowest cut-off that holds a precision, and the share that passes it; None: none does."""
        place = int(np.append(self.holds < precision, True).argmax()) - 1
        return None if place < 0 else (float(self.cuts[place]), float(self.passes[place]))

    @classmethod
    def fit(cls, kinds: Sequence[Questions]) -> Confidence:
        """Learn from several kinds of questions; a cut-off must hold for each kind."""
        fitted, others = [one.of(one.fits) for one in kinds], [one.of(~one.fits) for one in kinds]
        signals = np.concatenate([one.signals for one in fitted])
        weights = _fit_rising(signals, np.concatenate([one.right for one in fitted]))
        cuts = np.unique(np.quantile(chance_of(signals, weights), np.linspace(0.0, 1.0, _GRID)))[::-1]
        first = int(_measure(weights, cuts, fitted)[0].argmax())
        return cls(weights, cuts[first:], *_measure(weights, cuts[first:], others))

    def to_json(self) -> dict[str, Any]:
        """For the memory's header."""
        arrays = {"weights": self.weights, "cuts": self.cuts, "holds": self.holds, "passes": self.passes}
        return {name: array.tolist() for name, array in arrays.items()}

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Confidence:
        """Read :meth:`to_json` back.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        numbers = np.asarray([stored[name] for name in ("cuts", "holds", "passes")], np.float64)
        weights = np.asarray(stored["weights"], np.float64)
        if numbers.ndim != 2 or weights.shape != (_SIGNALS + 1,):
            raise ValueError(f"numbers of shape {numbers.shape}, weights of shape {weights.shape}")
        return cls(weights, *numbers)


def _fit_rising(signals: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> Chances:
    """Weights (5,) by which a higher score or lead never makes it less likely that the answer is right (n,)."""
    used = np.ones(_SIGNALS, np.float32)
    while True:
        weights = fit_logistic(signals * used, right)
        falls = weights[:-1] < 0.0
        falls[-1] = False  # how far a query moved may count either way
        if not falls.any():
            return weights
        used[falls] = 0.0


def _measure(weights: Chances, cuts: Chances, kinds: Sequence[Questions]) -> tuple[Chances, Chances]:
    """What cut-offs (G,) hold, and the share that passes them: the lowest of the kinds, for each."""
    holds, passes = list[Chances](), list[Chances]()
    for one in kinds:
        passing = chance_of(one.signals, weights) >= cuts[:, None]  # (G, n)
        holds.append(lower_bound(passing.sum(axis=1), (passing & ~one.right).sum(axis=1)))
        passes.append(passing.mean(axis=1))
    return np.min(holds, axis=0), np.min(passes, axis=0)


def lower_bound(passing: npt.NDArray[np.int64], wrong: npt.NDArray[np.int64]) -> Chances:
    """The share of right answers (G,) that is exceeded with a confidence of 1 - :data:`RISK` (Clopper and Pearson).

    >>> lower_bound(np.array([10, 22, 0]), np.array([1, 0, 0])).round(3).tolist()
    [0.663, 0.901, 0.0]

    Args:
        passing: (G,) of how many.
        wrong: (G,) how many of them are wrong.
    """
    n, j = passing[:, None], np.arange(int(wrong.max(initial=0)) + 1)
    steps = np.log(np.maximum(n - j[1:] + 1, 1) / j[1:])
    ways = np.where(j <= wrong[:, None], np.cumsum(np.append(np.zeros((len(n), 1)), steps, axis=1), axis=1), -np.inf)
    low, high = np.zeros(len(n)), np.ones(len(n))
    for _ in range(30):
        share = (low + high)[:, None] / 2.0
        tail = np.exp(ways + j * np.log1p(-share) + (n - j) * np.log(share)).sum(axis=1)
        rejected = tail <= RISK
        low, high = np.where(rejected, share[:, 0], low), np.where(rejected, high, share[:, 0])
    return np.asarray(low)


def read_confidence(calibration: Mapping[str, Any], modality: Modality, way: QueryWay) -> Confidence | None:
    """What a memory's header knows of such queries; None where nothing was learned.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        stored = calibration.get(NAME, {}).get(modality, {}).get(way)
        return None if stored is None else Confidence.of_json(stored)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"what the memory knows of confidence is damaged ({error!r}): run `reco memory build --relearn`"
        ) from error


@dataclass(frozen=True, repr=False)
class Matches(ToldShort):
    """How sure the first answers to B queries are.

    Attributes:
        chance: (B,) probability that the first answer is right.
        cutoff: of that probability; what passes holds the precision. None: no cut-off does.
    """

    chance: Chances
    cutoff: float | None

    @property
    def passes(self) -> npt.NDArray[np.bool_]:
        """(B,) whether the first answer passes; False where there is no cut-off."""
        return np.asarray(self.chance >= (np.inf if self.cutoff is None else self.cutoff))


def match_rankings(
    calibration: Mapping[str, Any],
    queries: Refinement,
    scores: Sequence[Sequence[float]] | npt.NDArray[np.floating],
    modality: Modality,
    precision: float = PRECISION,
) -> Matches:
    """Say how sure the first answers are; arguments and errors as in :meth:`reco_plugin.reco.Reco.match`."""
    if not isinstance(precision, float | int | np.number) or not 0.5 <= precision < 1.0:
        raise InputError(f"precision must be a share from .5 to below 1, got {show(precision)}")
    best = _ten_each(scores, len(queries.frozen))
    plain = queries.coverage is None or queries.coverage.plain or queries.degraded is not None
    known = read_confidence(calibration, modality, "plain" if plain else "refined")
    if known is None:
        raise InputError(
            f"the memory does not know how sure answers to {modality} queries are: it needs 300 pairs of "
            f"{FEWEST_THINGS} things or more; if it has them, run reco memory build --relearn"
        )
    found = ~np.isnan(best[:, 0])
    signals = signals_of(queries.plain_scores(np.where(found[:, None], best, np.float32(0.0))), queries.moved)
    cutoff = known.cutoff(precision)
    return Matches(np.where(found, chance_of(signals, known.weights), 0.0), None if cutoff is None else cutoff[0])


def cutoff_notes(calibration: Mapping[str, Any], precision: float = PRECISION) -> Iterator[str]:
    """How many first answers pass, a sentence for each modality and way that has a cut-off."""
    for modality, way in product(MODALITIES, WAYS):
        known = read_confidence(calibration, modality, way)
        if known is not None and (cutoff := known.cutoff(precision)) is not None:
            yield (
                f"Reco.match lets {cutoff[1]:.0%} of the first answers to {way} {modality} queries pass, of which "
                f"{precision:.0%} are right (docs/confidence.md)."
            )


def signals_of(best: npt.NDArray[np.float32], moved: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Signals (B, 4) of rankings: the first score, its lead over the second and over the last, the root of the move.

    Args:
        best: (B, K) the first scores on the scale of plain scores, the best first.
        moved: (B,) cosine distance of the query from its plain vector.
    """
    first, second, last = best[:, 0], best[:, min(1, best.shape[1] - 1)], best[:, -1]
    return np.stack([first, first - second, first - last, np.sqrt(moved)], axis=1).astype(np.float32)


def _ten_each(scores: Sequence[Sequence[float]] | npt.NDArray[np.floating], queries: int) -> npt.NDArray[np.float32]:
    """The first ten scores (B, 10) of each ranking, of a shorter one the last again and again; NaN where it is empty.

    Raises:
        InputError: another number of rankings, no cosines, or not the best first.
    """
    check_rankings(scores, queries)
    best = np.full((queries, LOOKED), np.nan, np.float32)
    for row, ranking in enumerate(scores):
        try:
            given = np.asarray(ranking, np.float64)
        except (TypeError, ValueError):
            given = np.empty((0, 0))
        if given.ndim != 1:
            raise InputError(f"scores[{row}] must be a list of numbers, got {show(ranking)}")
        if not (np.abs(given) <= _BEYOND).all():
            raise InputError(
                f"scores[{row}] must hold cosines, from -1 to 1: 1 - distance, or 2 s - 1 of Elasticsearch's scores"
            )
        if (np.diff(given) > 1e-6).any():
            raise InputError(f"scores[{row}] must be the best first; a higher one is nearer, so give 1 - distance")
        if len(given):
            best[row] = np.append(given[:LOOKED], np.full(max(0, LOOKED - len(given)), given[-1]))
    return best
