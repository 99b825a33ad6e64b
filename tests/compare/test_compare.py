"""A comparison in Python, of an index that is a function."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.compare import (
    CompareOptions,
    FunctionIndex,
    Judgments,
    QueryLog,
    SearchHow,
    SearchQuery,
    compare,
)
from reco_plugin.compare.figures import findings_of, render, to_json
from reco_plugin.engines import IndexHit, Question
from reco_plugin.errors import DataError, EngineError, FingerprintMismatch


@pytest.fixture
def index(drawn_records, drawings) -> FunctionIndex:
    """The drawings, compared with each vector."""

    def search(question: Question) -> list[IndexHit]:
        scores = drawn_records.image @ question.vector
        return [
            IndexHit(drawings[row].id, float(scores[row]), drawings[row].text)
            for row in np.argsort(-scores)[: question.k]
        ]

    return FunctionIndex(search, drawn_records.image.shape[1], name="mine")


@pytest.fixture
def log(drawings) -> QueryLog:
    return QueryLog(tuple(SearchQuery(pair.id, pair.text) for pair in drawings), 24)


def test_a_function_is_compared_as_an_index_is(filled, index, log):
    told = list[tuple[int, str]]()
    found = compare(filled, index, log, CompareOptions(SearchHow(5)), lambda n, what: told.append((n, what)))
    assert list(found.rankings.hits) == ["plain", "refined"]
    assert all(len(hits) == 5 for hits in found.rankings.hits["plain"])
    assert found.check is not None
    assert found.check.said.startswith("not checked")
    assert found.no_exactness.startswith("not measured")
    assert sum(n for n, what in told if what == "search") == 48 == next(n for n, what in told if what == "searches")
    assert dict(found.target) == {"text": "image", "image": "text"}
    text = render(found)
    assert text.endswith(found.verdict.sentence)
    assert findings_of(found, "made so").command == "made so"
    assert to_json(found, "")["verdict"]["decision"] == "not known"  # titles are no judgments


def test_what_cannot_be_compared_is_refused(filled, index, log):
    narrow = FunctionIndex(lambda question: [], 7)
    with pytest.raises(FingerprintMismatch, match="7 dimensions"):
        compare(filled, narrow, log)
    with pytest.raises(DataError, match=r"judges none of these queries.*called nobody, ours"):
        compare(filled, index, log, CompareOptions(judgments=Judgments({"nobody": {"a": 1.0}}, "qrels")))


def test_a_memory_that_learned_nothing_leaves_it(reco, index, log):
    found = compare(reco, index, log)
    assert found.verdict.decision == "leave"
    assert "the memory has learned nothing about its pairs" in found.verdict.sentence
    assert set(found.why_plain()) == {"no pair was found"}


def test_an_index_that_does_not_show_its_vectors_is_compared_all_the_same(filled, index, log):
    """As of OpenSearch or Elasticsearch, whose _source leaves them out."""

    def scan(**_):
        raise EngineError("no vectors in its documents, so they can be searched, but not read back")
        yield

    index.scan = scan
    found = compare(filled, index, log, CompareOptions(SearchHow(5)))
    assert found.check.said == (
        "not checked to be of this encoder: no vectors in its documents, so they can be searched, but not read back"
    )
    assert (
        found.verdict.sentence
        == compare(filled, FunctionIndex(index._search, 128), log, CompareOptions(SearchHow(5))).verdict.sentence
    )
