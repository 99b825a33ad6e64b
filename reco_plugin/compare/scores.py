"""The scale of scores in an index: plain, refined, and refined scores that were brought back to plain's scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Literal, TypeAlias, get_args

import numpy as np

from ..engines import Description, Page
from ..engines.base import Similarity
from ..engines.comparing import similarities
from ..errors import ConfigError
from ..types import Refinement, Vectors
from .evidence import cosine_of
from .measure import Figures
from .search import FoundHits

_LOOKED = 1000
"""Documents that each query is compared with, for the mean and the spread of all scores."""
Scale: TypeAlias = Literal["plain", "refined", "refined, plain's scale"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class ScoreFigures:
    """Scores of B queries on one scale, as cosines.

    Attributes:
        mean, spread: of a query's scores over a part of the index, averaged over the queries; None where the index
            cannot be scanned.
        low, middle, high: 5th percentile, median and 95th percentile of the first results' scores.
        lead: of the first result over the last one, median.
        passing: results a query, of those found, that pass the cut-off.
        first: share of the queries whose first result does.
    """

    mean: float | None
    spread: float | None
    low: float
    middle: float
    high: float
    lead: float
    passing: float
    first: float


@dataclass(frozen=True)
class ScoreScales:
    """What scores are on each scale; the last one is missing where refined scores have no way back.

    Attributes:
        cut: what passes is at least this.
        given: whether it was given.
        of: by scale.
        looked: documents that mean and spread are of.
    """

    cut: float
    given: bool
    of: Mapping[Scale, ScoreFigures]
    looked: int

    @property
    def mapped(self) -> bool:
        """Whether there is a way back."""
        return SCALES[2] in self.of


def check_cut(cut: float | None, described: Description) -> None:
    """Refuse a cut-off that is no number, or that no score of the index can be.

    Raises:
        ConfigError: it is.
    """
    if cut is None:
        return
    if not isfinite(cut):
        raise ConfigError(f"the cut-off must be a number, not {cut}")
    if described.metric != "dot" and abs(cut) > 1:
        cure = ": 1 - distance * distance / 2 is the cosine" if described.metric == "euclid" else ""
        raise ConfigError(
            f"the cut-off {cut:g} is no cosine, from -1 to 1, and the metric of {described.name!r} is "
            f"{described.metric}{cure}"
        )


def measure_scores(
    refinement: Refinement,
    hits: Mapping[str, Sequence[FoundHits]],
    described: Description,
    pages: Iterable[Page],
    cut: float | None,
) -> ScoreScales | None:
    """Measure the scores of B queries; None where none of them found anything.

    Args:
        refinement: of the queries.
        hits: ``plain`` and ``refined``: B rankings.
        described: the index.
        pages: of its documents, of which some are read.
        cut: a cosine, of an index of dot products one of them; None: the one that half of plain's results have.
    """
    found: dict[Scale, list[Figures]] = {
        "plain": [_cosines(ranking, described) for ranking in hits["plain"]],
        "refined": [_cosines(ranking, described) for ranking in hits["refined"]],
    }
    if not all(any(len(row) for row in rows) for rows in found.values()):
        return None
    vectors = _vectors(pages)
    sides = ((SCALES[0], refinement.frozen), (SCALES[1], refinement.vectors))
    every: dict[Scale, Vectors] = {}
    if len(vectors):
        metric: Similarity = "dot" if described.metric == "dot" else "cosine"  # that of the hits' scores
        every = {name: _all(vectors, queries, metric) for name, queries in sides}
    if refinement.scale is not None:
        factor, offset = refinement.scale[:, 0].astype(np.float64), refinement.scale[:, 1].astype(np.float64)
        mapped = SCALES[2]
        found[mapped] = [a * row + b for a, b, row in zip(factor, offset, found["refined"], strict=True)]
        every |= {mapped: refinement.plain_scores(every["refined"])} if every else {}
    least = float(np.median(np.concatenate(found["plain"]))) if cut is None else cut
    figures = {name: _figures(rows, every.get(name), least) for name, rows in found.items()}
    return ScoreScales(least, cut is not None, figures, len(vectors))


def _cosines(ranking: FoundHits, described: Description) -> Figures:
    return np.array([cosine_of(hit.score, described) for hit in ranking], np.float64)


def _vectors(pages: Iterable[Page]) -> Vectors:
    """Vectors (N, D) of the first documents that have one."""
    stored = (one.vector for page in pages for one in page.documents if one.vector is not None)
    some = list(islice(stored, _LOOKED))
    return np.stack(some) if some else np.empty((0, 0), np.float32)


def _all(vectors: Vectors, queries: Vectors, metric: Similarity) -> Vectors:
    """Scores (B, N)."""
    return np.stack([similarities(vectors, query, metric) for query in queries])


def _figures(rows: Sequence[Figures], every: Vectors | None, least: float) -> ScoreFigures:
    scored = [row for row in rows if len(row)]
    low, middle, high = np.percentile([row[0] for row in scored], (5, 50, 95))
    passing = [row >= least - 1e-9 for row in scored]
    return ScoreFigures(
        None if every is None else float(every.mean()),
        None if every is None else float(every.std(axis=1).mean()),
        float(low),
        float(middle),
        float(high),
        float(np.median([row[0] - row[-1] for row in scored])),
        float(np.mean([row.sum() for row in passing])),
        float(np.mean([row[0] for row in passing])),
    )
