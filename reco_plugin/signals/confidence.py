"""How sure a ranking's first answer is: a probability, and a cut-off with a guarantee.

Both are learned from the memory's own pairs, which serve as held-out queries, see :mod:`.questions`. A part of them
fits a logistic regression of three signals. The others test cut-offs of that probability by Learn then Test
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
ABSENT = 0.5
"""Share of the queries that have no right answer in the index."""
SIZES = (2, 3, 6, 20, 60)
"""Documents of the index, for which cut-offs are tested, for each thing of half of the memory."""
RISK = 0.1
"""Chance that a cut-off does not hold its precision."""
FEWEST_THINGS = 60
"""Things that must serve as queries, in each half of a memory."""
QueryWay: TypeAlias = Literal["plain", "refined"]
WAYS: tuple[QueryWay, ...] = get_args(QueryWay)
NAME = "confidence"
_SIGNALS = 3
Chances = npt.NDArray[np.float64]
_GRID = 50  # cut-offs that are tested at most
_BEYOND = 1.001  # a cosine of rounded vectors may be a little above 1


@dataclass(frozen=True)
class Questions:
    """Questions of one kind, one a thing.

    Attributes:
        signals: (n, 3) of their rankings.
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
        weights: (4,) of the signals and a constant, by which the first answer is right.
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
    def fit(cls, asked: Questions) -> Confidence:
        """Learn from questions."""
        fitted, others = asked.of(asked.fits), asked.of(~asked.fits)
        weights = _fit_rising(fitted.signals, fitted.right)
        cuts = np.unique(np.quantile(chance_of(fitted.signals, weights), np.linspace(0.0, 1.0, _GRID)))[::-1]
        first = int(_measure(weights, cuts, fitted)[0].argmax())
        return cls(weights, cuts[first:], *_measure(weights, cuts[first:], others))

    def to_json(self) -> dict[str, Any]:
        """For the memory's header."""
        return {name: getattr(self, name).round(6).tolist() for name in ("weights", "cuts", "holds", "passes")}

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
    """Weights (4,) by which neither a higher score nor presence makes it less likely that the answer is right (n,)."""
    used = np.ones(_SIGNALS, np.float32)
    while True:
        weights = fit_logistic(signals * used, right)
        falls = weights[:-1] < 0.0
        falls[1] = False  # how far a query moved may count either way
        if not falls.any():
            return weights
        used[falls] = 0.0


def _measure(weights: Chances, cuts: Chances, asked: Questions) -> tuple[Chances, Chances]:
    """What cut-offs (G,) hold, and the share that passes them."""
    passing = chance_of(asked.signals, weights) >= cuts[:, None]  # (G, n)
    return lower_bound(passing.sum(axis=1), (passing & ~asked.right).sum(axis=1)), passing.mean(axis=1)


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


def read_confidence(
    calibration: Mapping[str, Any], modality: Modality, way: QueryWay, documents: int | None = None
) -> tuple[Confidence | None, str]:
    """What a memory's header knows of such queries to an index of so many documents, or why nothing.

    Without ``documents`` the index has as many as the memory has pairs.

    Raises:
        InputError: a number that cannot be.
        ConfigError: it is damaged.
    """
    if documents is not None and not (isinstance(documents, int | np.integer) and documents > 0):
        raise InputError(f"documents must be the number of documents of the index, got {show(documents)}")
    try:
        of_side = calibration.get(NAME, {}).get(modality, {})
        stored = of_side.get(way)
        if not isinstance(stored, list):
            need = f"it needs 300 pairs of {2 * FEWEST_THINGS} things; if it has them, run reco memory build --relearn"
            return None, f"the memory does not know how sure answers to {modality} queries are: {need}"
        most, documents = SIZES[-1] * of_side["things"], documents or calibration.get("pairs", 0)
        if documents > most:
            return None, f"an index of {documents:,} documents was not tested, by so many things at most {most:,}"
        place = next(place for place, times in enumerate(SIZES) if documents <= times * of_side["things"])
        return Confidence.of_json(stored[place]), ""
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(
            f"what the memory knows of confidence is damaged ({error!r}): run `reco memory build --relearn`"
        ) from error


@dataclass(frozen=True, repr=False)
class Matches(ToldShort):
    """How sure the answers to B queries are.

    Attributes:
        chance: (B,) probability that the first answer is right; NaN where it is not known, 0 without an answer.
        least: (B,) the cosine from which an answer is right with the precision asked for, also as the threshold of an
            engine; above 1, none is. None: no cosine holds the precision.
        passes: (B,) whether the first answer reaches it.
        why: why there is no least, for people.
    """

    chance: Chances
    least: npt.NDArray[np.float32] | None
    passes: npt.NDArray[np.bool_]
    why: str = ""


def match_rankings(
    calibration: Mapping[str, Any],
    queries: Refinement,
    scores: Sequence[Sequence[float]] | npt.NDArray[np.floating] | None,
    modality: Modality,
    precision: float = PRECISION,
    documents: int | None = None,
) -> Matches:
    """Say how sure the first answers are; arguments and errors as in :meth:`reco_plugin.reco.Reco.match`."""
    if not isinstance(precision, float | int | np.number) or not 0.5 <= precision < 1.0:
        raise InputError(f"precision must be a share from .5 to below 1, got {show(precision)}")
    first = np.full(len(queries.frozen), np.nan, np.float32) if scores is None else _first(scores, len(queries.frozen))
    plain = queries.coverage is None or queries.coverage.plain or queries.degraded is not None
    known, why = read_confidence(calibration, modality, "plain" if plain else "refined", documents)
    if known is not None and not plain and queries.presence is None:
        known, why = None, f"the presence of the queries is not known: {queries.why_no_presence}"
    if known is None:
        return Matches(np.full(len(first), np.nan), None, np.zeros(len(first), np.bool_), why)
    signals = signals_of(queries.plain_scores(first[:, None])[:, 0], queries)
    empty = np.isnan(first) & (scores is not None)
    chance, cutoff = np.where(empty, 0.0, chance_of(signals, known.weights)), known.cutoff(precision)
    if cutoff is None or known.weights[0] <= 0.0:
        why = f"no cosine holds a precision of {precision:g}, by the memory's own pairs"
        return Matches(chance, None, np.zeros(len(first), np.bool_), why)
    odds = np.log(cutoff[0] / max(1.0 - cutoff[0], 1e-12)) - signals[:, 1:] @ known.weights[1:-1] - known.weights[-1]
    least = queries.refined_scores((odds / known.weights[0])[:, None])[:, 0]
    return Matches(chance, least, np.asarray(first >= least))


def cutoff_notes(calibration: Mapping[str, Any], precision: float = PRECISION) -> Iterator[str]:
    """How many first answers pass, a sentence for each modality and way that has a cut-off."""
    for modality, way in product(MODALITIES, WAYS):
        known, _ = read_confidence(calibration, modality, way)
        if known is not None and (cutoff := known.cutoff(precision)) is not None:
            yield (
                f"Reco.match lets {cutoff[1]:.0%} of the first answers to {way} {modality} queries pass, of which "
                f"{precision:.0%} are right (docs/confidence.md)."
            )


def signals_of(first: npt.NDArray[np.float32], queries: Refinement) -> npt.NDArray[np.float32]:
    """Signals (B, 3): first scores (B,) on the plain scale, the root of each move, the log odds of presence or 0."""
    presence = np.full(len(first), 0.5) if queries.presence is None else queries.presence.astype(np.float64)
    known = np.clip(presence, 1e-6, 1.0 - 1e-6)
    return np.stack([first, np.sqrt(queries.moved), np.log(known / (1.0 - known))], axis=1).astype(np.float32)


def _first(scores: Sequence[Sequence[float]] | npt.NDArray[np.floating], queries: int) -> npt.NDArray[np.float32]:
    """The first score (B,) of each ranking; NaN where it is empty.

    Raises:
        InputError: another number of rankings, no cosines, or not the best first.
    """
    check_rankings(scores, queries)
    best = np.full(queries, np.nan, np.float32)
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
        best[row] = given[0] if len(given) else np.nan
    return best
