"""What tells plain from refined without judgments: words of queries in captions of the index.

A document whose caption has all words of a query is taken as right for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..measure.statistics import Figures
from .judgments import Grades
from .measure import QueryRows, judge_all
from .queries import SearchQuery
from .search import Rankings

RestsOn: TypeAlias = Literal["judgments", "captions of the index"]
_SMALL = frozenset({"the", "and", "with", "for"})


@dataclass(frozen=True)
class Indication:
    """Queries for which plain and refined can be told apart.

    Attributes:
        kind: what tells.
        rows: (n,) of the queries.
        plain, refined: (n,) nDCG@k.
        asked: of how many queries.
    """

    kind: RestsOn
    rows: QueryRows
    plain: Figures
    refined: Figures
    asked: int

    @property
    def difference(self) -> Figures:
        """(n,) refined minus plain."""
        return self.refined - self.plain

    def __len__(self) -> int:
        return len(self.rows)


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


def has_words(caption: str | None, words: frozenset[str]) -> bool:
    """Whether a caption has all of some words; those of scripts without blanks may be parts of others."""
    if not caption or not words:
        return False
    own = words_of(caption)
    return all(word in own or (not word.isascii() and word in caption.casefold()) for word in words)


def by_captions_of_index(queries: Sequence[SearchQuery], rankings: Rankings, k: int) -> Indication:
    """Count as right what any arm found whose caption has all words of the query; queries without any are left out."""
    grades = grade_by_captions(queries, rankings)
    judged = judge_all(rankings, grades, k)
    plain, refined = (judged.values[arm]["ndcg"] for arm in ("plain", "refined"))
    return Indication("captions of the index", judged.rows, plain, refined, len(queries))


def grade_by_captions(queries: Sequence[SearchQuery], rankings: Rankings) -> list[Grades]:
    """Of each query, the documents of any arm whose captions have all its words."""
    grades: list[Grades] = []
    for row, query in enumerate(queries):
        words = words_of(query.text or "")
        pooled = (hit for found in rankings.hits.values() for hit in found[row])
        grades.append({hit.id: 1.0 for hit in pooled if has_words(hit.text, words)})
    return grades
