"""Kinds of queries, and what is known of the titles of an index: which hold a query's words, and which equal it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..errors import EngineError
from ..memory.lexical import CODE, QueryWords, stored_words
from ..sources.indexes.open_index import Description, Engine
from .judgments import Grades
from .queries import SearchQuery, normal

SCANNED = 200_000
"""Documents up to which ids and titles are read."""
COPIED = 0.9
"""Share of the judged texts whose right documents are all those of that title, from which judgments equal titles."""
NUMBERS, NAMES, WORDS, PICTURES = "part numbers", "names and titles", "other words", "pictures"
TEXTS = "texts"  # of which no title is known


def read_titles(index: Engine, described: Description) -> Mapping[str, str] | None:
    """Id -> title, empty where a document has none; None where the index cannot be read, or is too large."""
    if not 0 < described.documents <= SCANNED:
        return None
    try:
        return {one.id: one.text or "" for page in index.scan(vectors=False) for one in page}
    except EngineError:
        return None


def kinds_of(queries: Sequence[SearchQuery], titles: Sequence[str]) -> list[str]:
    """The kind of each query: a word that mixes letters and digits, words that all stand in one title, or others."""
    words = [frozenset(stored_words(title)) for title in set(titles) if title]
    holders = defaultdict[int, list[frozenset[int]]](list)
    for one in words:
        for word in one:
            holders[word].append(one)
    return [_kind(query, holders) for query in queries]


def _kind(query: SearchQuery, holders: Mapping[int, Sequence[frozenset[int]]]) -> str:
    if query.text is None:
        return PICTURES
    words = QueryWords.of(query.text)
    if words is None:
        return WORDS
    if CODE in words.weights.values():
        return NUMBERS
    rarest = min((holders[word] for word in words.weights if word in holders), key=len, default=())
    if not holders:
        return TEXTS
    return NAMES if any(words.lacks(title) == 0.0 for title in rarest) else WORDS


def equal_titles(queries: Sequence[SearchQuery], grades: Sequence[Grades], titles: Mapping[str, str]) -> bool:
    """Whether what is judged as right is, for nearly all texts, what has the query as its title, word for word."""
    named = defaultdict[str, set[str]](set)
    for id_, title in titles.items():
        named[normal(title)].add(id_)
    judged = [(query.text, right) for query, right in zip(queries, grades, strict=True) if right and query.text]
    same = sum(set(right) == named[normal(text)] for text, right in judged)
    return bool(judged) and same >= COPIED * len(judged)
