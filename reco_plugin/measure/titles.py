"""What titles of the index say where nobody judged: a document whose title has all words of a query counts as right.

A title of a memory that is the index both teaches and counts as right, and a wrong one does so, too. So of what counts
as right for a query, one half is hidden from it in the memory and the other half taken out of the index, and the other
way round; the figures are means of both. They are too low where titles are right: the memory lacks half of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines import Engine, IndexHit, Question
from ..errors import EngineError
from ..options import RefineOptions
from ..reco import Reco
from ..types import Target, Vectors
from .judgments import judge
from .memories import halves
from .queries import SearchQuery
from .search import SearchHow
from .statistics import Figures

MOST_TITLES = 200_000
"""Documents up to which all titles are read."""
_RIGHT = (2, 100)
"""Documents that count as right for a query: one has no halves, and of very many a query says little."""
_SMALL = frozenset({"the", "and", "with", "for"})


@dataclass(frozen=True)
class TitleEstimate:
    """Figures of the n queries whose words stand in titles.

    Attributes:
        rows: (n,) of the queries.
        plain, refined: (n,) nDCG@k.
        right: row -> ids that count as right.
        documents: of the index.
        held: how many of them are in the memory; None: not looked for.
        problem: why nothing was measured; empty where something was.
    """

    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    plain: Figures = field(default_factory=lambda: np.empty(0))
    refined: Figures = field(default_factory=lambda: np.empty(0))
    right: Mapping[int, frozenset[str]] = field(default_factory=dict)
    documents: int = 0
    held: int | None = None
    problem: str = ""

    def __len__(self) -> int:
        return len(self.rows)


def estimate_by_titles(
    reco: Reco,
    index: Engine,
    queries: Sequence[SearchQuery],
    frozen: Vectors,
    how: SearchHow,
    target: Target | None,
    options: RefineOptions,
) -> TitleEstimate:
    """Measure B queries with frozen vectors (B, D), by titles of the index taken as true.

    Raises:
        EngineError: of a search; that of a scan is a problem of the estimate.
    """
    if not 0 < index.describe().documents <= MOST_TITLES:
        return TitleEstimate(problem=f"its titles are not read: they are unknown or more than {MOST_TITLES:,}")
    try:
        titles = {one.id: one.text or "" for page in index.scan(vectors=False) for one in page}
    except EngineError as error:
        return TitleEstimate(problem=f"its titles cannot be read: {error}")
    right = _find_right(queries, titles)
    rows = np.array(sorted(right), np.int64)
    if not len(rows):
        return TitleEstimate(documents=len(titles), problem="no query's words stand together in two titles or more")
    split = [halves(right[row], how.seed) for row in rows.tolist()]
    values = np.zeros((2, 2, len(rows)))  # pass, plain or refined, query
    deep = [_search(index, queries[row], frozen[row], how, len(right[row])) for row in rows.tolist()]
    for turn in (0, 1):
        unseen = [half[turn] for half in split]  # by the memory: these count as right
        gone = [half[1 - turn] for half in split]  # from the index: these are in the memory
        asked: Any = {**options, "target": target, "exclude": unseen}
        refined = reco.refine(frozen[rows], modality="text", **asked).vectors
        found = [
            _search(index, queries[row], vector, how, len(right[row]))
            for row, vector in zip(rows.tolist(), refined, strict=True)
        ]
        grades = [dict.fromkeys(ids, 1.0) for ids in unseen]
        for side, hits in enumerate((deep, found)):
            left = [[hit.id for hit in one if hit.id not in out][: how.k] for one, out in zip(hits, gone, strict=True)]
            values[turn, side] = judge(left, grades, how.k)["ndcg"]
    plain, after = values.mean(axis=0)
    return TitleEstimate(rows, plain, after, right, len(titles), _count_held(reco, titles))


def _find_right(queries: Sequence[SearchQuery], titles: Mapping[str, str]) -> dict[int, frozenset[str]]:
    """Row of a query -> ids of the documents whose titles have all its words."""
    holders: dict[str, set[str]] = defaultdict(set)
    for id_, title in titles.items():
        for word in words_of(title):
            holders[word].add(id_)
    found = {}
    for row, query in enumerate(queries):
        words = words_of(query.text or "")
        if not words:
            continue
        if all(word.isascii() for word in words):
            ids = frozenset(set.intersection(*(holders.get(word, set()) for word in words)))
        else:
            ids = frozenset(id_ for id_, title in titles.items() if has_words(title, words))
        if _RIGHT[0] <= len(ids) <= _RIGHT[1]:
            found[row] = ids
    return found


def _search(
    index: Engine, query: SearchQuery, vector: npt.NDArray[np.float32], how: SearchHow, more: int
) -> Sequence[IndexHit]:
    return index.search(Question(vector, None, how.k + more, query.where or how.where))


def _count_held(reco: Reco, titles: Mapping[str, str]) -> int | None:
    if len(reco.memory) > 10 * MOST_TITLES:
        return None
    return sum(id_ in titles for id_, _ in reco.memory.store.payloads())


def words_of(text: str) -> frozenset[str]:
    """The words that count of a text, without an s at their end.

    >>> sorted(words_of("A picture of the Foxes, size 7"))
    ['7', 'foxe', 'picture', 'size']
    """
    words = re.findall(r"\w+", text.casefold())
    kept = [word for word in words if not word.isascii() or not _is_small(word)] or words
    return frozenset(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in kept)


def _is_small(word: str) -> bool:
    return word in _SMALL or (len(word) < 3 and word.isalpha())


def has_words(title: str, words: frozenset[str]) -> bool:
    """Whether a title has all of some words; those of scripts without blanks may be parts of others."""
    own, folded = words_of(title), title.casefold()
    return all(word in own or (not word.isascii() and word in folded) for word in words)
