"""How sure the first answers of an application's own index are: chances, and a cut-off with a promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .extras.chances import (
    ABSENT,
    BY,
    LOOKED,
    Cutoffs,
    MatchState,
    PassesBy,
    QueryWay,
    check_promise,
    measure,
    signals_of,
)
from .types import Modality, Refinement, ToldShort, check_rankings
from .values import show

PRECISION = 0.9
"""Share of right answers among those that pass, unless said otherwise."""
_BEYOND = 1.001  # a cosine of rounded vectors may be a little above 1


@dataclass(frozen=True, repr=False)
class Matches(ToldShort):
    """What is known of the answers of B queries.

    Attributes:
        first: (B,) chance that the first answer is right.
        none: (B,) chance that none of the first ten is.
        verdicts: by what passes: (B,) whether the first answer passes the cut-off of that; None: none is promised.
        cutoffs: what is promised, and why not.
        way: whether this is known of plain queries, or of refined ones.
    """

    first: npt.NDArray[np.float64]
    none: npt.NDArray[np.float64]
    verdicts: Mapping[PassesBy, npt.NDArray[np.bool_] | None]
    cutoffs: Cutoffs
    way: QueryWay

    @property
    def passes(self) -> npt.NDArray[np.bool_]:
        """(B,) whether the first answer passes by the chance of a match; False where no cut-off of that is promised."""
        verdict = self.verdicts["match"]
        return np.zeros(len(self.first), np.bool_) if verdict is None else verdict

    def cutoff(self, by: PassesBy = "score") -> float | None:
        """One number: what passes it holds the promise; None where none can be promised.

        By ``score`` or ``lead`` it is for scores of :meth:`~reco_plugin.types.Refinement.plain_scores`.

        Raises:
            InputError: another word.
        """
        if by not in BY:
            raise InputError(f"by must be {', '.join(BY)}, got {by!r}")
        promise = self.cutoffs.of[by]
        return None if promise is None else promise.cut


def match_rankings(
    state: MatchState | None,
    queries: Refinement,
    scores: Sequence[Sequence[float]] | npt.NDArray[np.floating],
    modality: Modality,
    precision: float = PRECISION,
    absent: float = ABSENT,
) -> Matches:
    """Say how sure the first answers are; arguments and errors as in :meth:`reco_plugin.reco.Reco.match`."""
    check_promise(precision, absent)  # before it is fitted
    best = _ten_each(scores, len(queries.frozen))
    if state is None:
        raise InputError(
            "the memory does not know how sure an answer is: it needs 300 pairs, of 60 things, then reco "
            "memory build --relearn"
        )
    stay_plain = queries.coverage is None or queries.coverage.plain or queries.degraded is not None
    way: QueryWay = "plain" if stay_plain else "refined"
    sure = state.sureness(modality, way, absent)
    if sure is None:
        raise InputError(state.why_not(modality))
    found = ~np.isnan(best[:, 0])
    signals = signals_of(queries.plain_scores(np.where(found[:, None], best, np.float32(0.0))), queries.moved)
    first = np.where(found, sure.first(signals), 0.0)
    none = np.where(found, np.minimum(sure.none(signals), 1.0 - first), 1.0)
    cutoffs = state.cutoffs(modality, way, precision, absent)
    verdicts = {
        by: None if (one := cutoffs.of[by]) is None else found & (measure(by, signals, sure.first) >= one.cut)
        for by in BY
    }
    return Matches(first, none, verdicts, cutoffs, way)


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
            raise InputError(f"scores[{row}] must be a list of numbers, got {show(ranking)}") from None
        if given.ndim != 1:
            raise InputError(f"scores[{row}] must be a list of numbers, got shape {given.shape}")
        if not np.isfinite(given).all() or (np.abs(given) > _BEYOND).any():
            raise InputError(
                f"scores[{row}] must hold cosines, from -1 to 1: 1 - distance, or 2 s - 1 of Elasticsearch's scores"
            )
        if (np.diff(given) > 1e-6).any():
            raise InputError(f"scores[{row}] must be the best first; a higher one is nearer, so give 1 - distance")
        if len(given):
            some = given[:LOOKED]
            best[row, : len(some)], best[row, len(some) :] = some, some[-1]
    return best
