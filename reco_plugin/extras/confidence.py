"""How sure a ranking's first answer is: a probability, and a cut-off with a guarantee.

Both are learned from the memory's own pairs, which serve as held-out queries, see :mod:`.questions`. A part of them
fits a logistic regression of four signals of a ranking. The others test cut-offs of that probability by Learn then Test
(Angelopoulos, Bates, Candès, Jordan and Lei, arXiv:2110.01052, 2021) with fixed-sequence testing: a cut-off is one
hypothesis, namely that less than the wanted share of what passes is right. The number of wrong answers among those that
pass is binomial, so its tail is a p-value. The cut-off to begin with is chosen on the part that was fitted; from there
cut-offs are tested downwards until one is not rejected. The chance that the last rejected one does not hold is at most
:data:`RISK`, for queries that are drawn as these were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, InputError
from ..types import MODALITIES, Modality, Refinement, ToldShort, check_rankings
from ..values import show
from .chance import Chance, Chances

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
_GRID = 100  # cut-offs that are tested at most
_FITTED = 0.3  # of the questions; the others test
_BEYOND = 1.001  # a cosine of rounded vectors may be a little above 1


@dataclass(frozen=True)
class Questions:
    """Questions of one kind: signals (n, 4) of their rankings, and whether the first answer is right (n,)."""

    signals: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Confidence:
    """What is known of the rankings of one modality's queries, plain or refined ones.

    Attributes:
        chance: that the first answer is right, by the signals.
        cuts: (G,) of that probability, the highest first.
        counts: (2, G, Q, 2) of Q kinds of questions, of those that were fitted and of those that test: how many pass
            each cut-off, and how many of these are wrong.
        tested: (Q,) how many questions of each kind test.
    """

    chance: Chance
    cuts: Chances
    counts: npt.NDArray[np.int64]
    tested: npt.NDArray[np.int64]

    def cutoff(self, precision: float) -> tuple[float, float] | None:
        """The lowest cut-off that holds for each kind of questions, and the share that passes; None: none does."""
        fitted, tested = (
            np.array([max(_doubt(passing, wrong, precision) for passing, wrong in kinds) for kinds in part.tolist()])
            for part in self.counts
        )
        kept = None
        for place in range(int(fitted.argmin()), len(self.cuts)):
            if tested[place] > RISK:
                break
            kept = place
        if kept is None:
            return None
        return float(self.cuts[kept]), float((self.counts[1, kept, :, 0] / self.tested).min())

    @classmethod
    def fit(cls, kinds: Sequence[Questions]) -> Confidence:
        """Learn from questions, whose order is random."""
        split = [int(_FITTED * len(one.right)) for one in kinds]
        chance = Chance.fit(
            np.concatenate([one.signals[:end] for one, end in zip(kinds, split, strict=True)]),
            np.concatenate([one.right[:end] for one, end in zip(kinds, split, strict=True)]),
        )
        scores = [chance.of(one.signals) for one in kinds]
        chosen = np.concatenate([score[:end] for score, end in zip(scores, split, strict=True)])
        cuts = np.unique(np.quantile(chosen, np.linspace(0.0, 1.0, _GRID)))[::-1]
        counts = np.zeros((2, len(cuts), len(kinds), 2), np.int64)
        for number, (one, score, end) in enumerate(zip(kinds, scores, split, strict=True)):
            for part, rows in enumerate((slice(0, end), slice(end, None))):
                passes = score[rows] >= cuts[:, None]
                counts[part, :, number] = np.stack([passes.sum(axis=1), (passes & ~one.right[rows]).sum(axis=1)], 1)
        left = [len(one.right) - end for one, end in zip(kinds, split, strict=True)]
        return cls(chance, cuts, counts, np.asarray(left, np.int64))

    def to_json(self) -> dict[str, Any]:
        """For the memory's header."""
        arrays = {"weights": self.chance.weights, "cuts": self.cuts, "counts": self.counts, "tested": self.tested}
        return {name: array.tolist() for name, array in arrays.items()}

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Confidence:
        """Read :meth:`to_json` back.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        cuts = np.asarray(stored["cuts"], np.float64)
        counts, tested = (np.asarray(stored[name], np.int64) for name in ("counts", "tested"))
        if counts.shape != (2, len(cuts), len(tested), 2) or not counts.size:
            raise ValueError(f"counts of shape {counts.shape}")
        return cls(Chance.read(stored["weights"], _SIGNALS), cuts, counts, tested)


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
    return Matches(np.where(found, known.chance.of(signals), 0.0), None if cutoff is None else cutoff[0])


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


def _doubt(passing: int, wrong: int, precision: float) -> float:
    """p-value of so many wrong ones or fewer, if the share ``1 - precision`` of what passes were wrong.

    >>> round(_doubt(10, 1, 0.5), 5)
    0.01074
    """
    if wrong >= passing:
        return 1.0
    n = np.arange(1, wrong + 1)
    ratios = np.log((passing - n + 1) / n) + math.log(1.0 - precision) - math.log(precision)  # of one term to the last
    terms = passing * math.log(precision) + np.append(0.0, np.cumsum(ratios))
    return float(np.exp(terms).sum())


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
