"""A comparison in Python, of an index that is a function or shows its titles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from reco_plugin.errors import DataError, EngineError, FingerprintMismatch
from reco_plugin.evaluation import (
    CompareOptions,
    FunctionIndex,
    Judgments,
    QueryLog,
    SearchOptions,
    SearchQuery,
    compare,
)
from reco_plugin.evaluation.table import render
from reco_plugin.serve.app import create_app
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.sources.indexes import Description, Document, IndexHit, IndexQuery, parse_address
from reco_plugin.types import Pair, Records


class Shelf:
    """An index of drawings, compared with each vector, which shows its titles."""

    def __init__(self, drawings: Sequence[Pair], records: Records) -> None:
        self.drawings, self.records = drawings, records

    def describe(self) -> Description:
        return Description(
            "mine 1", "shelf", len(self.drawings), "v", self.records.image.shape[1], "cosine", "none: all"
        )

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        rows = zip(self.drawings, self.records.image, strict=True)
        yield [Document(pair.id, vector if vectors else None, str(pair.text)) for pair, vector in rows]

    def search(self, question: IndexQuery) -> Sequence[IndexHit]:
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
    found = compare(filled, function, log, CompareOptions(SearchOptions(5)), lambda n, what: steps.append((n, what)))
    assert all(len(row["plain"]) == 5 for row in found.queries)
    assert sum(n for n, what in steps if what == "search") == 48 == next(n for n, what in steps if what == "searches")
    assert render(found).replace("\n", " ").endswith(found.verdicts[0].sentence)
    assert (found.verdicts[0].decision, found.verdicts[0].basis) == ("not known", "nothing"), "nobody judged"
    assert found.verdicts[0].sentence.endswith("Text search was not tried: the function does not take texts.")
    assert any("not checked" in note for note in found.notes)


def test_what_cannot_be_compared_is_refused(filled: Any, shelf: Shelf, log: QueryLog) -> None:
    with pytest.raises(FingerprintMismatch, match="7 dimensions"):
        compare(filled, FunctionIndex(lambda question: [], 7), log)
    judgments = Judgments({"1": {"a": 1.0}}, "qrels")
    with pytest.raises(DataError, match=r"judges none of these queries.*called 1, ours .*a column query_id"):
        compare(filled, shelf, log, CompareOptions(judgments=judgments))


def test_a_memory_that_learned_nothing_leaves_it(reco: Any, shelf: Shelf, log: QueryLog) -> None:
    found = compare(reco, shelf, log)
    assert found.verdicts[0].decision == "leave"
    assert "the memory has learned nothing about its pairs" in found.verdicts[0].sentence


def test_an_index_that_does_not_show_its_documents_is_compared_all_the_same(
    filled: Any, shelf: Shelf, log: QueryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(**_: object) -> Iterator[list[Document]]:
        raise EngineError("no vectors in its documents")
        yield

    monkeypatch.setattr(shelf, "scan", scan)
    found = compare(filled, shelf, log)
    assert "The index: not checked to be of this encoder: no vectors in its documents." in found.notes


def test_a_service_and_a_comparison_rank_the_same(filled: Any, shelf: Shelf, drawings: list[Pair]) -> None:
    """Part numbers, names, other words and pictures, of a memory whose captions have part numbers."""
    numbers = {pair.id: f"QX-{4821 + row}-B" for row, pair in enumerate(drawings)}
    vectors = filled.encoder.texts([f"{numbers[pair.id]} {pair.text}" for pair in drawings])
    captions = [{"caption": f"{numbers[pair.id]} {pair.text}"} for pair in drawings]
    filled.memory.add_records([Records([pair.id for pair in drawings], shelf.records.image, vectors, captions)])
    texts = [*numbers.values(), *(str(pair.text) for pair in drawings), "do you have something round"]
    queries = [SearchQuery(text, text) for text in dict.fromkeys(texts)]
    found = compare(filled, shelf, QueryLog(tuple(queries), len(queries)))
    with TestClient(create_app(ServeSettings(page=False), filled)) as client:
        for refine, side in ((False, "plain"), (True, "refined")):
            answer = client.post(
                "/v1/embeddings", json={"input": [one.text for one in queries], "refine": refine}
            ).json()
            served = [shelf.search(IndexQuery(np.float32(one["embedding"]), k=10)) for one in answer["data"]]
            assert [[hit.id for hit in hits] for hits in served] == [row[side] for row in found.queries], side
    by_number = [row for row in found.queries if row["kind"] == "part numbers"]
    assert len(by_number) == len(drawings)
    assert any(row["plain"] != row["refined"] for row in by_number), "numbers move by their words"


def test_kinds_of_queries_are_lines_of_their_own(
    filled: Any, shelf: Shelf, drawings: list[Pair], tmp_path: Path
) -> None:
    pictures = []
    for pair in drawings[:4]:
        pair.image.save(tmp_path / f"{pair.id}.png")  # type: ignore[union-attr]
        pictures.append(SearchQuery(f"picture {pair.id}", image=tmp_path / f"{pair.id}.png"))
    words = SearchQuery("words", "something to hang on a wall")
    names = [SearchQuery(pair.id, str(pair.text)) for pair in drawings]
    right = {query.id: {query.id.removeprefix("picture "): 1.0} for query in [*names, *pictures]}
    judgments = Judgments(right | {"words": {drawings[0].id: 1.0}}, "judged")
    log = QueryLog((*names, *pictures, words), 29)
    found = compare(filled, shelf, log, CompareOptions(judgments=judgments))
    lines = {line.name: line for line in found.lines}
    assert {name: line.queries for name, line in lines.items()} == {
        "names and titles": 24,
        "pictures": 4,
        "other words": 1,
        "all": 29,
    }
    assert lines["pictures"].values["plain"] == 1.0, "a picture finds itself"
    assert [verdict.sentence.partition(":")[0] for verdict in found.verdicts][1] == "Not known for image queries"


def test_what_a_comparison_assumes_is_noted(filled: Any, shelf: Shelf, log: QueryLog) -> None:
    titles = {pair.id: str(pair.text) for pair in shelf.drawings}
    copied = {query.id: {id_: 1.0 for id_, title in titles.items() if title == query.text} for query in log.queries}
    found = compare(filled, shelf, log, CompareOptions(judgments=Judgments(copied, "clicks.csv", clicks=True)))
    assert found.verdicts[0].basis == "titles"
    assert any(note.startswith("The grades are clicks") for note in found.notes)
    assert found.verdicts[0].sentence.endswith("Text search was not tried: the function does not take texts.")
    strangers = replace(shelf.records, ids=[f"other {id_}" for id_ in shelf.records.ids])
    filled.memory.add_records([strangers])
    noted = compare(filled, shelf, log).notes
    assert any("24 of the memory's 48 ids are not in the index" in note for note in noted)


def test_a_missing_text_in_the_address_is_named(filled: Any, shelf: Shelf, log: QueryLog) -> None:
    address = parse_address("postgresql://host/shop?table=products&vector=clip")
    (verdict,) = compare(filled, shelf, log, CompareOptions(address=address)).verdicts
    assert "Text search was not tried, because the address names no text=" in verdict.sentence
