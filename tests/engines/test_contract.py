"""What each engine must do, asked of the real one."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from reco_plugin.engines import Engine, Question, open_index
from reco_plugin.errors import ConfigError, EngineError

from .conftest import DIMENSION, DOCUMENTS, Served, rows, unit

ROWS = {row.sku: row for row in rows()}
WITH_VECTOR = [row for row in ROWS.values() if row.clip is not None]
CLIP = np.asarray([row.clip for row in WITH_VECTOR], np.float32)


@pytest.fixture
def index(keys: Served):
    """The index, open."""
    opened = open_index(keys.address)
    yield opened
    opened.close()


def best(query: np.ndarray, k: int, most: float = np.inf) -> list[str]:
    """Ids of the documents that are nearest to a query (D,) by the cosine."""
    order = np.argsort(-(CLIP @ query), kind="stable")
    return [WITH_VECTOR[row].sku for row in order if WITH_VECTOR[row].price < most][:k]


def test_an_index_is_described(index: Engine, engine: Served):
    said = index.describe()
    assert said.documents == DOCUMENTS
    assert (said.vector, said.dimension, said.metric) == ("clip", DIMENSION, "cosine")
    assert {"title", "photo", "price"} <= set(said.fields)
    assert said.engine
    assert said.index
    assert said.searches_text


def test_a_scan_reads_each_document_once(index: Engine):
    found = [document for page in index.scan(size=70) for document in page.documents]
    assert sorted(document.id for document in found) == sorted(ROWS)
    for document in found:
        row = ROWS[document.id]
        assert (document.text, document.image, document.problem) == (row.title, row.photo, None)
        assert document.payload["price"] == pytest.approx(row.price)
        if row.clip is None:
            assert document.vector is None
        else:
            assert document.vector is not None
            assert document.vector.dtype == np.float32
            np.testing.assert_allclose(document.vector, row.clip, atol=1e-6)


def test_a_scan_without_vectors_has_the_rest(index: Engine):
    found = [document for page in index.scan(size=100, vectors=False) for document in page.documents]
    assert sorted(document.id for document in found) == sorted(ROWS)
    assert all(document.vector is None for document in found)
    assert "clip" not in found[0].payload


def test_a_search_finds_most_of_the_nearest_and_scores_them_as_the_metric_does(index: Engine):
    kept = 0
    for query in unit(20, 1):
        hits = index.search(Question(query, k=10))
        kept += len({hit.id for hit in hits} & set(best(query, 10)))
        cosines = [float(np.dot(ROWS[hit.id].clip, query)) for hit in hits]
        np.testing.assert_allclose([hit.score for hit in hits], cosines, atol=1e-4)
        assert cosines == sorted(cosines, reverse=True)
        assert [(hit.text, hit.image) for hit in hits] == [(ROWS[hit.id].title, ROWS[hit.id].photo) for hit in hits]
    assert kept > 190


def test_a_filter_is_in_the_words_of_the_engine(index: Engine, engine: Served):
    for query in unit(3, 3):
        hits = index.search(Question(query, k=3, where=engine.where))
        assert {hit.id for hit in hits} <= set(best(query, 50, most=5))
        assert len(hits) == 3


def test_a_document_without_a_vector_is_never_found_however_few_others_are_left(index: Engine, engine: Served):
    for where in (engine.where, None):
        hits = index.search(Question(unit(1, 4)[0], k=DOCUMENTS, where=where))
        assert hits
        assert {hit.id for hit in hits} <= {row.sku for row in ROWS.values() if row.clip is not None}
        assert all(np.isfinite(hit.score) for hit in hits)


def test_a_text_alone_is_searched_by_the_engine(index: Engine):
    if not index.describe().searches_text:
        pytest.skip("the engine searches no texts")
    assert [hit.id for hit in index.search(Question(text="number123", k=5))] == ["sku-0123"]
    hits = index.search(Question(text="fox", k=50))
    assert hits
    assert all("fox" in (hit.text or "") for hit in hits)
    assert list(index.search(Question(text="''\"<>&|! ", k=5))) == []


def test_a_field_that_is_not_there_is_named(keys: Served):
    for name in ("vector=clip", "text=title"):
        wrong = keys.address.replace(name, f"{name}s")
        field = name.partition("=")[2]
        with (
            closing(open_index(wrong)) as opened,
            pytest.raises(EngineError, match=rf"{field}s.*did you mean '{field}'"),
        ):
            opened.describe()


def test_an_unknown_option_is_refused(keys: Served):
    with pytest.raises(ConfigError, match="did you mean 'vector'"):
        open_index(keys.address.replace("vector=", "vecter="))
