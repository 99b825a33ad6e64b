"""Figures of rankings: against judgments, and against one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..evaluate.ranking import graded_ndcg, recall
from ..measure.statistics import Figures, Interval, bootstrap
from .judgments import Grades
from .search import ArmName, Rankings

QueryRows = npt.NDArray[np.int64]
METRICS = ("ndcg", "recall", "mrr")


def judge(ids: Sequence[Sequence[str]], grades: Sequence[Grades], k: int) -> dict[str, Figures]:
    """nDCG@k, recall@k of all right documents, and the reciprocal rank of the first within k, (n,) each.

    >>> found = judge([["a", "b"], ["c"]], [{"b": 1.0}, {"c": 2.0, "d": 1.0}], 10)
    >>> found["recall"].tolist(), found["mrr"].tolist()
    ([1.0, 0.5], [0.5, 1.0])

    Args:
        ids: n rankings.
        grades: what is right for each; at least one document.
        k: depth.
    """
    got, best = np.zeros((len(ids), k)), np.zeros((len(ids), k))
    for row, (ranking, right) in enumerate(zip(ids, grades, strict=True)):
        top = list(dict.fromkeys(ranking))[:k]
        got[row, : len(top)] = [right.get(id_, 0.0) for id_ in top]
        ideal = sorted(right.values(), reverse=True)[:k]
        best[row, : len(ideal)] = ideal
    hits = got > 0
    first = np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)
    relevant = np.array([len(right) for right in grades], np.int64)
    return {"ndcg": graded_ndcg(got, best), "recall": recall(hits, relevant), "mrr": first}


@dataclass(frozen=True)
class JudgedQueries:
    """Rankings against judgments, of the n queries that have any right document in the index."""

    rows: QueryRows  # (n,) of the queries
    values: Mapping[ArmName, Mapping[str, Figures]]  # arm -> metric -> (n,)
    right: Mapping[int, frozenset[str]]  # row -> ids of its right documents

    def interval(self, arm: ArmName, metric: str, *, minus: ArmName | None = None, seed: int = 0) -> Interval:
        """Mean over the queries, or of the paired difference of two arms, with its interval."""
        values = self.values[arm][metric]
        return bootstrap(values if minus is None else values - self.values[minus][metric], seed=seed)


def judge_all(rankings: Rankings, grades: Sequence[Grades], k: int) -> JudgedQueries:
    """Judge all arms for the queries, of B, that have a grade."""
    rows = np.array([row for row, right in enumerate(grades) if right], np.int64)
    right = [grades[row] for row in rows.tolist()]
    values = {}
    for arm in rankings.hits:
        ids = rankings.ids(arm)
        values[arm] = judge([ids[row] for row in rows.tolist()], right, k)
    return JudgedQueries(rows, values, {row: frozenset(grades[row]) for row in rows.tolist()})


def overlaps(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> Figures:
    """Share of common documents among two rankings of each of B queries; 1 where both are empty.

    >>> overlaps([["a", "b"], []], [["b", "c"], []]).tolist()
    [0.5, 1.0]
    """
    return np.array(
        [len(set(a) & set(b)) / max(len(a), len(b)) if a or b else 1.0 for a, b in zip(one, other, strict=True)]
    )


def changes(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> Figures:
    """How far two rankings of each of B queries differ, from 0 to 1: the first places count most.

    One minus the mean overlap of the first 1, 2, … documents.

    >>> changes([["a", "b"]], [["b", "a"]]).tolist(), changes([["a"]], [["a"]]).tolist()
    ([0.5], [0.0])
    """
    out = []
    for a, b in zip(one, other, strict=True):
        depth = max(len(a), len(b))
        shared = [len(set(a[:place]) & set(b[:place])) / place for place in range(1, depth + 1)]
        out.append(1.0 - float(np.mean(shared)) if shared else 0.0)
    return np.array(out)
