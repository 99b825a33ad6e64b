"""How often the index answers right, before and after: the same index, the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reco_plugin.errors import InputError
from reco_plugin.evaluate.intervals import Interval, bootstrap, points
from reco_plugin.evaluate.results import percent, table

from .catalogue import SPLITS, Query
from .index import Hit, Index
from .queries import QueryVectors

K = 10
NOT_FOUND = K
"""Place of a query whose entity is not among the first K."""


@dataclass(frozen=True)
class Answer:
    """One query before and after; places count from 0."""

    query: Query
    before: list[Hit]
    after: list[Hit]

    @property
    def place_before(self) -> int:
        """Of the first right result; NOT_FOUND when there is none."""
        return _place(self.query, self.before)

    @property
    def place_after(self) -> int:
        """The same, refined."""
        return _place(self.query, self.after)


@dataclass(frozen=True)
class Recall:
    """Shares of a group of queries, from 0 to 1.

    Attributes:
        queries: how many there were.
        before: k -> share of queries with a right result among the first k, plain.
        after: likewise, refined.
        gain: R@1 after minus before, with its 95 % interval, bootstrapped over queries.
    """

    queries: int
    before: dict[int, float]
    after: dict[int, float]
    gain: Interval


def ask(index: Index, queries: Sequence[Query], vectors: QueryVectors) -> list[Answer]:
    """Search the index with both vectors of each query."""
    before, after = (index.search(side, K) for side in (vectors.plain, vectors.refined))
    return [Answer(*row) for row in zip(queries, before, after, strict=True)]


def recalls(answers: Sequence[Answer]) -> dict[str, Recall]:
    """R@1 and R@K of the queries of each split."""
    groups = {split: [answer for answer in answers if answer.query.split == split] for split in SPLITS}
    return {split: recall_of(group) for split, group in groups.items() if group}


def recall_of(answers: Sequence[Answer]) -> Recall:
    """R@1 and R@K of some queries.

    Raises:
        InputError: there are none.
    """
    if not answers:
        raise InputError("no queries, so there is no recall")
    before = np.array([answer.place_before for answer in answers])
    after = np.array([answer.place_after for answer in answers])
    first = (after < 1).astype(np.float64) - (before < 1)
    return Recall(
        len(answers),
        {k: float(np.mean(before < k)) for k in (1, K)},
        {k: float(np.mean(after < k)) for k in (1, K)},
        bootstrap(first, np.arange(len(answers))),
    )


def examples(answers: Sequence[Answer], gains: int, losses: int) -> list[Answer]:
    """Some queries that rose from nowhere to the top, and some that fell: those with the largest change.

    Which of many equal ones are shown is neither best nor worst: they are taken evenly.
    """
    rose = [a for a in answers if a.place_before == NOT_FOUND and a.place_after == 0]
    fell = sorted((a for a in answers if a.place_after > a.place_before), key=lambda a: a.place_before - a.place_after)
    return [*_evenly(rose, gains), *fell[:losses]]


def render(found: dict[str, Recall]) -> str:
    """A plain text table, in per cent and points."""
    rows = [
        [split, f"{one.queries:,}", _change(one, 1), _change(one, K), points(one.gain)] for split, one in found.items()
    ]
    return table(["entities", "queries", "R@1 %", f"R@{K} %", "gain in R@1, 95 % interval"], rows)


def _change(recall: Recall, k: int) -> str:
    return f"{percent(recall.before[k])} -> {percent(recall.after[k])}"


def _place(query: Query, hits: Sequence[Hit]) -> int:
    return next((place for place, hit in enumerate(hits) if hit.entity == query.entity), NOT_FOUND)


def _evenly(answers: Sequence[Answer], count: int) -> list[Answer]:
    places = np.linspace(0, len(answers) - 1, min(count, len(answers))).round().astype(int)
    return [answers[place] for place in places]
