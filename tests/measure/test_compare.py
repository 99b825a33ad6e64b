"""A comparison in Python, of an index that is a function or shows its titles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from reco_plugin.engines import Description, Document, IndexHit, Question
from reco_plugin.errors import DataError, EngineError, FingerprintMismatch
from reco_plugin.measure import (
    CompareOptions,
    FunctionIndex,
    Judgments,
    QueryLog,
    SearchHow,
    SearchQuery,
    compare,
)
from reco_plugin.measure.table import render
from reco_plugin.types import Pair, Records


class Shelf:
    """An index of drawings, compared with each vector, which shows its titles."""

    def __init__(self, drawings: Sequence[Pair], records: Records) -> None:
        self.drawings, self.records, self.growing = drawings, records, False
        self.asked: list[Question] = []

    def describe(self) -> Description:
        count = len(self.drawings) + (len(self.asked) if self.growing else 0)
        return Description("mine 1", "shelf", count, "v", self.records.image.shape[1], "cosine", "none: all")

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        rows = zip(self.drawings, self.records.image, strict=True)
        yield [Document(pair.id, vector if vectors else None, str(pair.text)) for pair, vector in rows]

    def search(self, question: Question) -> Sequence[IndexHit]:
        self.asked.append(question)
        scores = self.records.image @ question.vector
        best = np.argsort(-scores)[: question.k]
        return [IndexHit(self.drawings[row].id, float(scores[row]), str(self.drawings[row].text)) for row in best]

    def close(self) -> None:
        pass


@pytest.fixture
def shelf(drawn_records: Records, drawings: list[Pair]) -> Shelf:
    return Shelf(drawings, drawn_records)


@pytest.fixture
def log(drawings: list[Pair]) -> QueryLog:
    return QueryLog(tuple(SearchQuery(pair.id, str(pair.text)) for pair in drawings), 24)


def test_a_function_is_compared_as_an_index_is(filled: Any, shelf: Shelf, log: QueryLog) -> None:
    steps = list[tuple[int, str]]()
    function = FunctionIndex(shelf.search, 128, name="mine")
    found = compare(filled, function, log, CompareOptions(SearchHow(5)), lambda n, what: steps.append((n, what)))
    assert all(len(row["plain"]) == 5 for row in found.queries)
    assert sum(n for n, what in steps if what == "search") == 48 == next(n for n, what in steps if what == "searches")
    assert render(found).replace("\n", " ").endswith(found.verdict.sentence)
    assert (found.verdict.decision, found.verdict.basis) == ("not known", "nothing"), "its titles cannot be read"
    assert any("not checked" in note for note in found.notes)


def test_of_what_counts_as_right_by_titles_half_is_hidden_and_half_gone_from_the_index(
    filled: Any, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways: no pair of the memory is what counts as right, and none that teaches is found."""
    hidden: list[frozenset[str]] = []
    refine = filled.refine

    def watch(vectors: Any, **options: Any) -> Any:
        hidden.extend(options.get("exclude") or ())
        return refine(vectors, **options)

    monkeypatch.setattr(filled, "refine", watch)
    right = frozenset(pair.id for pair in shelf.drawings if "red" in str(pair.text).split())
    found = compare(filled, shelf, QueryLog((SearchQuery("q", "red"),), 1))
    first, second = hidden
    assert first | second == right
    assert not first & second
    assert abs(len(first) - len(second)) <= 1
    assert max(question.k for question in shelf.asked) == 10 + len(right)
    assert found.verdict.basis == "titles"
    assert "(24 of 24 documents are in the memory)" in found.verdict.sentence
    assert [line.name for line in found.lines] == ["plain vectors", "refined vectors"]


def test_what_cannot_be_compared_is_refused(filled: Any, shelf: Shelf, log: QueryLog) -> None:
    with pytest.raises(FingerprintMismatch, match="7 dimensions"):
        compare(filled, FunctionIndex(lambda question: [], 7), log)
    judgments = Judgments({"1": {"a": 1.0}}, "qrels")
    with pytest.raises(DataError, match=r"judges none of these queries.*called 1, ours .*a column query_id"):
        compare(filled, shelf, log, CompareOptions(judgments=judgments))


def test_a_memory_that_learned_nothing_leaves_it(reco: Any, shelf: Shelf, log: QueryLog) -> None:
    found = compare(reco, shelf, log)
    assert found.verdict.decision == "leave"
    assert "the memory has learned nothing about its pairs" in found.verdict.sentence


def test_an_index_that_changes_meanwhile_is_named(filled: Any, shelf: Shelf, log: QueryLog) -> None:
    shelf.growing = True
    assert any("it held 24 documents, and now" in note for note in compare(filled, shelf, log).notes)


def test_an_index_that_does_not_show_its_documents_is_compared_all_the_same(
    filled: Any, shelf: Shelf, log: QueryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(**_: object) -> Iterator[list[Document]]:
        raise EngineError("no vectors in its documents")
        yield

    monkeypatch.setattr(shelf, "scan", scan)
    found = compare(filled, shelf, log)
    assert "The index: not checked to be of this encoder: no vectors in its documents." in found.notes
    assert "its titles cannot be read" in found.verdict.sentence
