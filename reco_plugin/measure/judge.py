"""Rankings against what is right, and against one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .judgments import Grades
from .statistics import Figures


def judge(ids: Sequence[Sequence[str]], grades: Sequence[Grades], k: int) -> dict[str, Figures]:
    """nDCG@k, recall@k of all right documents, and the reciprocal rank of the first within k, (n,) each.

    nDCG: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002, with trec_eval's
    discount of 1 / log2(position + 1).

    >>> found = judge([["a", "b"], ["c"]], [{"b": 1.0}, {"c": 2.0, "d": 1.0}], 10)
    >>> found["recall"].tolist(), found["mrr"].tolist()
    ([1.0, 0.5], [0.5, 1.0])

    Args:
        ids: n rankings.
        grades: what is right for each; of a query without anything right, all figures are 0.
        k: depth.
    """
    got, best = np.zeros((len(ids), k)), np.zeros((len(ids), k))
    for row, (ranking, right) in enumerate(zip(ids, grades, strict=True)):
        top = list(dict.fromkeys(ranking))[:k]
        got[row, : len(top)] = [right.get(id_, 0.0) for id_ in top]
        ideal = sorted(right.values(), reverse=True)[:k]
        best[row, : len(ideal)] = ideal
    hits, discount = got > 0, 1.0 / np.log2(np.arange(2, k + 2))
    relevant = np.array([max(len(right), 1) for right in grades], np.float64)
    ideal_gain = best @ discount
    ndcg = np.divide(got @ discount, ideal_gain, out=np.zeros(len(ids)), where=ideal_gain > 0)
    first = np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)
    return {"ndcg": ndcg, "recall": hits.sum(axis=1) / relevant, "mrr": first}


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
