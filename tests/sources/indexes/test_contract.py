"""What each engine must do, asked of the real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from reco_plugin.errors import ConfigError, EngineError, VectorError
from reco_plugin.sources.indexes import Engine, IndexQuery, open_index

from .conftest import DIMENSION, DOCUMENTS, Served, rows, unit

pytestmark = pytest.mark.slow

ROWS = {row.sku: row for row in rows()}
WITH_VECTOR = [row for row in ROWS.values() if row.clip is not None]
CLIP = np.asarray([row.clip for row in WITH_VECTOR], np.float32)


@pytest.fixture
def index(engine: Served) -> Iterator[Engine]:
    with closing(open_index(engine.address)) as opened:
        yield opened


def best(query: np.ndarray, k: int, most: float = np.inf) -> list[str]:
    """Ids of the documents that are nearest to a query (D,) by the cosine."""
    order = np.argsort(-(CLIP @ query), kind="stable")
    return [WITH_VECTOR[row].sku for row in order if WITH_VECTOR[row].price < most][:k]


def test_an_index_is_described(index: Engine) -> None:
    said = index.describe()
    assert said.documents == DOCUMENTS
    assert (said.vector, said.dimension, said.metric) == ("clip", DIMENSION, "cosine")
    assert {"title", "photo"} <= set(said.fields)
    assert said.engine
    assert said.index
    assert said.searches_text


def test_a_scan_reads_each_document_once(index: Engine) -> None:
    assert {one.vector for page in index.scan(size=150, vectors=False) for one in page} == {None}
    found = [document for page in index.scan(size=70) for document in page]
    assert sorted(document.id for document in found) == sorted(ROWS)
    for document in found:
        row = ROWS[document.id]
        assert (document.text, document.image, document.problem) == (row.title, row.photo, None)
        assert document.payload["price"] == pytest.approx(row.price)
        assert "clip" not in document.payload
        if row.clip is None:
            assert document.vector is None
        else:
            assert document.vector is not None
            assert document.vector.dtype == np.float32
            np.testing.assert_allclose(document.vector, row.clip, atol=1e-6)


def test_a_search_finds_most_of_the_nearest_and_scores_them_as_the_metric_does(index: Engine) -> None:
    found = 0
    for query in unit(20, 1):
        hits = index.search(IndexQuery(query, k=10))
        found += len({hit.id for hit in hits} & set(best(query, 10)))
        cosines = [float(np.dot(ROWS[hit.id].clip or [], query)) for hit in hits]
        np.testing.assert_allclose([hit.score for hit in hits], cosines, atol=1e-4)
        assert cosines == sorted(cosines, reverse=True)
        assert [(hit.text, hit.image) for hit in hits] == [(ROWS[hit.id].title, ROWS[hit.id].photo) for hit in hits]
    assert found > 190


def test_a_filter_is_in_the_words_of_the_engine(index: Engine, engine: Served) -> None:
    query = unit(1, 3)[0]
    if engine.where is None:
        with pytest.raises(ConfigError):
            index.search(IndexQuery(query, where="price < 5"))
        return
    hits = index.search(IndexQuery(query, k=3, where=engine.where))
    assert {hit.id for hit in hits} <= set(best(query, 50, most=5))
    assert len(hits) == 3
    with pytest.raises((EngineError, ConfigError)):
        index.search(IndexQuery(query, where="price << <"))


def test_a_text_alone_is_searched_by_the_engine(index: Engine) -> None:
    assert [hit.id for hit in index.search(IndexQuery(text="number123", k=5))] == ["sku-0123"]
    hits = index.search(IndexQuery(text="fox", k=50))
    assert hits
    assert all("fox" in (hit.text or "") for hit in hits)
    assert list(index.search(IndexQuery(text="''\"<>&|! ", k=5))) == []


def test_a_field_that_is_not_there_is_named(engine: Served) -> None:
    for field, name in (("vector=", "clip"), ("text=", "title"), ("image=", "photo")):
        wrong = engine.address.replace(f"{field}{name}", f"{field}{name}s")
        with closing(open_index(wrong)) as opened, pytest.raises(EngineError, match=f"did you mean '{name}'"):
            opened.describe()


def test_a_query_of_another_dimension_is_refused(index: Engine) -> None:
    with pytest.raises(VectorError, match="16 dimensions, the query has 8"):
        index.search(IndexQuery(unit(1, 0)[0][:8]))


def test_fields_that_half_of_the_documents_lack(engine: Served) -> None:
    assert engine.fill is not None
    half = {
        row.sku: replace(row, title=None if n % 2 else row.title, clip=row.clip if n % 3 else None)
        for n, row in enumerate(rows()[:60])
    }
    with closing(open_index(engine.fill("half", list(half.values())))) as index:
        found = {document.id: document for page in index.scan(size=7) for document in page}
        assert found.keys() == half.keys()
        for id_, row in half.items():
            assert (found[id_].text, found[id_].problem) == (row.title, None)
            assert (found[id_].vector is None) == (row.clip is None)
        assert len(index.search(IndexQuery(unit(1, 0)[0], k=5))) == 5
