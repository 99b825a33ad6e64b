"""Searching in every way: fusion by rank, what an index misses, engines that refuse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from reco_plugin.errors import ConfigError, EngineError, EngineUnavailable
from reco_plugin.evaluation import FunctionIndex, SearchOptions, SearchQuery
from reco_plugin.evaluation.search import fuse, measure_index_recall, plan_searches, search_all
from reco_plugin.sources.indexes import Description, Document, IndexHit, IndexQuery

N, D, K = 300, 16, 10


def unit(rows: int, draw: int) -> np.ndarray:
    """Vectors of norm 1, drawn from the arguments alone: the tests that ran before change nothing."""
    drawn = np.random.default_rng([rows, draw]).normal(size=(rows, D)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def searched(search, index, queries, vectors, options):
    """Search an index's queries by a function."""
    return search_all(search, queries, plan_searches(index.describe(), queries, vectors, options))


class Forgetful:
    """An index that finds some of its 300 documents alone."""

    def __init__(self, seen: int) -> None:
        self.vectors, self.seen = unit(N, 0), seen
        self.described = Description("mine", "mine", N, "v", D, "cosine", "forgetful", searches_text=True)

    def describe(self) -> Description:
        return self.described

    def scan(self, *, vectors=True, size=70) -> Iterator[list[Document]]:
        for start in range(0, N, size):
            rows = range(start, min(start + size, N))
            yield [Document(str(row), self.vectors[row], f"thing {row}") for row in rows]

    def search(self, question: IndexQuery) -> Sequence[IndexHit]:
        if question.vector is None:
            raise EngineError("no words here")
        known = np.random.default_rng(1).permutation(N)[: self.seen]
        cosines = self.vectors[known] @ question.vector
        best = np.argsort(-cosines)[: question.k]
        return [IndexHit(str(known[row]), float(cosines[row])) for row in best]

    def close(self) -> None:
        pass


def test_what_an_index_misses_is_measured_by_one_scan_where_no_query_has_a_filter():
    index, vectors = Forgetful(100), [unit(20, 1), unit(20, 2)]
    queries = [SearchQuery(str(n), "thing") for n in range(20)]
    found = measure_index_recall(index, index.describe(), vectors, queries, SearchOptions(K))
    assert found == pytest.approx([1 / 3, 1 / 3], abs=0.15)
    for how, where in ((SearchOptions(K, "price < 5"), None), (SearchOptions(K), "price < 5")):
        with pytest.raises(EngineError, match="filters"):
            measure_index_recall(index, index.describe(), vectors, [SearchQuery("1", "thing", where=where)], how)


def test_documents_that_both_rankings_have_come_first():
    a, b = [IndexHit(name, 1.0) for name in "abc"], [IndexHit(name, 1.0) for name in "cd"]
    fused = fuse(a, b, k=3)
    assert [hit.id for hit in fused] == ["c", "a", "b"]  # of equal ones the first ranking's
    assert fused[0].score == pytest.approx(0.5 / 63 + 0.5 / 61)


def test_a_text_search_that_is_refused_is_noted_and_a_vector_search_is_not_forgiven():
    index, queries = Forgetful(300), [SearchQuery("1", "thing"), SearchQuery("2", None)]
    vectors = {"plain": unit(2, 1), "refined": unit(2, 2)}
    found = searched(index.search, index, queries, vectors, SearchOptions(3))
    assert list(found[0]) == ["plain", "refined"]
    assert found[1] == ["text: no words here"]

    def refuse(question: IndexQuery) -> Sequence[IndexHit]:
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        searched(refuse, index, queries, vectors, SearchOptions(3))

    def away(question: IndexQuery) -> Sequence[IndexHit]:
        if question.vector is None:
            raise EngineUnavailable("gone")
        return []

    with pytest.raises(EngineUnavailable, match="gone"):
        searched(away, index, queries, vectors, SearchOptions(3))


def test_each_query_is_searched_with_its_own_filter():
    """And where it has none, with that of all; the query that the engine refuses is named."""
    filters: list[str | None] = []

    def search(question: IndexQuery) -> Sequence[IndexHit]:
        filters.append(question.where)
        if question.where == "<<":
            raise EngineError("cannot be read")
        return [IndexHit("a", 1.0)]

    index, how = FunctionIndex(search, D, searches_text=True), SearchOptions(3, "stock > 0")
    queries = [SearchQuery("1", "fox", where="price < 5"), SearchQuery("2", "fox")]
    vectors = {"plain": unit(2, 1), "refined": unit(2, 2)}
    searched(search, index, queries, vectors, how)
    assert filters == ["price < 5", "stock > 0"] * 3
    wrong = [queries[1], SearchQuery("9", "fox", where="<<")]
    with pytest.raises(EngineError, match="the query '9' with its filter '<<': cannot be read"):
        searched(search, index, wrong, vectors, how)

    def unread(question: IndexQuery) -> Sequence[IndexHit]:
        raise ConfigError("the filter is no JSON")

    with pytest.raises(ConfigError, match="the query '1' with its filter 'price < 5': the filter is no JSON"):
        searched(unread, index, queries, vectors, how)
