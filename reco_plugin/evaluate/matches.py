"""How well chances of a match hold on labelled queries: a reliability curve for each direction and way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from ..calibration.match import FEWEST_THINGS, LOOKED, MatchState, QueryWay, auc_of, read_matches, reliability_curve
from ..calibration.nearest import nearest_columns
from ..match import RecentQueries, match_rankings
from ..options import RefineHow
from ..score import Refines
from ..types import Refinement
from .findings import Chart, Line
from .task import Task

_ROWS, _NUMBERS = 1_000, 2**26  # queries at a time, and their scores
_TIE = 1e-6
_SHOWN = 20  # queries in a bin from which on it is drawn


@dataclass(frozen=True)
class MatchReliability:
    """Chances that the first answer is right, of queries whose answer is in the index, and how often it was.

    Attributes:
        direction: as in ``text->image``.
        way: of the queries, plain or refined.
        queries: their number.
        said: mean chance.
        right: share of right first answers.
        error: expected calibration error over ten bins.
        auc: how often a right first answer has the higher chance; None where all are alike.
        curve: of each bin that is not empty: mean chance, share that is right, number.
        shift: how the queries differ from those that the memory's pairs asked; empty where they do not.
    """

    direction: str
    way: QueryWay
    queries: int
    said: float
    right: float
    error: float
    auc: float | None
    curve: tuple[tuple[float, float, int], ...]
    shift: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values."""
        return asdict(self)


def state_of(reco: Refines) -> MatchState | None:
    """What the memory knows of matches; None where nothing, or where there is no memory."""
    searches: Any = getattr(getattr(getattr(reco, "reco", reco), "memory", None), "searches", None)
    return None if searches is None else read_matches(searches.header.calibration)


def check_matches(
    reco: Refines, state: MatchState, task: Task, direction: str, **options: Unpack[RefineHow]
) -> Iterator[MatchReliability]:
    """Compare chances with labels, for plain queries and refined ones; nothing where too few things could ask.

    Args:
        reco: refines.
        state: what its memory knows of matches.
        task: frozen queries, all of which have an answer, among frozen candidates.
        direction: as in ``text->image``.
        options: of the refinement.
    """
    modality = task.queries.modality
    ways: tuple[QueryWay, ...] = ("plain", "refined")
    for way in ways:
        if len(task) < FEWEST_THINGS or state.sureness(modality, way, 0.0) is None:
            continue
        chances, right, recent, shift = [], [], RecentQueries(every=1), ""
        for rows in _blocks(task):
            asked = _ask(reco, task, rows, way, **options)
            first, best = _first(task, rows, asked)
            said = match_rankings(state, asked, best, modality, absent=0.0, recent=recent)
            chances.append(said.first)
            right.append(first)
            shift = said.shift
        chance, true = np.concatenate(chances), np.concatenate(right)
        error, curve = reliability_curve(chance, true)
        auc = auc_of(chance, true)
        yield MatchReliability(
            direction, way, len(true), float(chance.mean()), float(true.mean()), error, auc if isfinite(auc) else None,
            curve, shift,
        )  # fmt: skip


def _blocks(task: Task) -> Iterator[slice]:
    size = max(1, min(_ROWS, _NUMBERS // max(len(task.candidates), 1)))
    yield from (slice(start, min(start + size, len(task))) for start in range(0, len(task), size))


def _ask(reco: Refines, task: Task, rows: slice, way: QueryWay, **options: Unpack[RefineHow]) -> Refinement:
    plain, own = task.queries.vectors[rows], task.queries.own
    if way == "plain":
        return Refinement(plain, plain)
    hidden = None if own is None else own[rows]
    return reco.refine(plain, modality=task.queries.modality, exclude=hidden, **options)


def _first(task: Task, rows: slice, asked: Refinement) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Whether the first answer is right (b,), where a tie counts as wrong, and the first ten scores (b, 10)."""
    scores = np.asarray(asked.vectors @ task.candidates.vectors.T, np.float32)
    own = task.queries.labels[rows, None] == task.candidates.labels
    best = nearest_columns(scores, LOOKED)[1]
    mine = np.where(own, scores, np.float32(-2.0)).max(axis=1)
    others = np.where(own, np.float32(-2.0), scores).max(axis=1)
    return np.asarray(mine > others + _TIE), best


def diagram(matches: Sequence[MatchReliability], name: str) -> Chart:
    """Reliability curves: the share of right first answers by the chance that was given, in tenths."""
    middles = tuple(round(0.05 + 0.1 * tenth, 2) for tenth in range(10))
    lines = [Line(name="as said", y=middles)]
    for one in matches:
        shares: list[float | None] = [None] * len(middles)
        for mean, right, number in one.curve:
            if number >= _SHOWN:
                shares[min(int(mean * 10), 9)] = right
        lines.append(Line(name=f"{one.direction}, {one.way}", y=tuple(shares)))
    return Chart(
        title=f"{name}: first answers that are right, by the chance of a match",
        x_title="chance of a match",
        y_title="first answers that are right",
        x=middles,
        lines=tuple(lines),
    )
