"""What only an index of OpenSearch can be, asked of the real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reco_plugin.engines import Question, open_index
from reco_plugin.errors import ConfigError, EngineError

from .conftest import DIMENSION, Served, check_scores, fails, rows, scaled, unit

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("opensearch")]
SOME = rows()[:40]


def lucene(space: str, **parameters: Any) -> dict[str, Any]:
    return {"method": {"name": "hnsw", "engine": "lucene", "space_type": space, "parameters": parameters}}


def fill(engine: Served) -> Callable[..., str]:
    assert engine.fill is not None
    return engine.fill


def ask(engine: Served, method: str, path: str, body: Any = None) -> Any:
    assert engine.query is not None
    return engine.query((method, path, body))  # type: ignore[arg-type]


@pytest.mark.parametrize(("space", "metric"), [("l2", "euclid"), ("innerproduct", "dot"), ("cosinesimil", "cosine")])
def test_scores_are_those_of_the_metric(opensearch: Served, space: str, metric: str):
    longer = scaled(SOME, 3)
    address = fill(opensearch)("scaled", longer, **lucene(space))
    check_scores(address, longer, metric, atol=1e-4)


def test_a_compressed_index_says_so(opensearch: Served):
    address = fill(opensearch)("squeezed", SOME, space_type="cosinesimil", mode="on_disk", compression_level="4x")
    with closing(open_index(address)) as index:
        assert index.describe().index.endswith("on_disk 4x")
    address = fill(opensearch)("quantised", SOME, **lucene("l2", encoder={"name": "sq", "parameters": {"bits": 7}}))
    with closing(open_index(address)) as index:
        assert index.describe().index == "lucene hnsw sq"


def test_vectors_that_are_not_indexed_are_read_and_not_searched(opensearch: Served):
    ask(opensearch, "PUT", "/unindexed", {
        "settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {"properties": {"clip": {"type": "knn_vector", "dimension": 2, "space_type": "cosinesimil"}}},
    })  # fmt: skip
    ask(opensearch, "PUT", "/unindexed/_doc/a?refresh=true", {"clip": [1, 1]})
    host = opensearch.address.partition("/products")[0]
    with closing(open_index(f"{host}/unindexed")) as index:
        assert index.describe().index == "not indexed"
        assert [one.id for page in index.scan() for one in page.documents] == ["a"]
        with pytest.raises(EngineError, match="index them"):
            index.search(Question(np.asarray([1, 0], np.float32)))


def test_vectors_that_cannot_be_compared_are_refused(opensearch: Served):
    few = [replace(row, clip=None) for row in SOME]
    space = lucene("l2")
    assert "data_type byte" in fails(fill(opensearch)("bytes", few, data_type="byte", **space))
    address = fill(opensearch)("two", SOME)
    ask(opensearch, "PUT", "/two/_mapping", {"properties": {
        "logo": {"type": "knn_vector", "dimension": 4, **space},
        "passages": {"type": "nested", "properties": {"clip": {"type": "knn_vector", "dimension": 4, **space}}},
    }})  # fmt: skip
    assert "it has 'clip', 'logo'" in fails(address.replace("vector=clip&", ""))
    assert "holds text" in fails(address.replace("vector=clip", "vector=title"))
    assert "nested documents" in fails(address.replace("vector=clip", "vector=passages.clip"))
    assert "did you mean 'two'" in fails(address.replace("/two?", "/twoo?"))


def test_an_alias_is_followed_to_one_index_and_refused_over_two(opensearch: Served):
    address = fill(opensearch)("first", SOME)
    fill(opensearch)("second", SOME)
    ask(opensearch, "POST", "/_aliases", {"actions": [{"add": {"index": "first", "alias": "shop"}}]})
    with closing(open_index(address.replace("/first", "/shop"))) as index:
        assert index.describe().name == "first"
        assert len([document for page in index.scan() for document in page.documents]) == len(SOME)
    ask(opensearch, "POST", "/_aliases", {"actions": [{"add": {"index": "second", "alias": "shop"}}]})
    assert "'first' and 'second'" in fails(address.replace("/first", "/shop"))


def test_vectors_that_are_kept_out_of_the_source_are_searched_but_not_read(opensearch: Served):
    address = fill(opensearch)("hidden", [])
    ask(opensearch, "DELETE", "/hidden")
    ask(opensearch, "PUT", "/hidden", {"settings": {"index": {"knn": True}}, "mappings": {
        "_source": {"excludes": ["clip"]},
        "properties": {
            "clip": {"type": "knn_vector", "dimension": DIMENSION, **lucene("cosinesimil")},
            "sku": {"type": "keyword"}, "title": {"type": "text"}, "photo": {"type": "keyword"},
            "changed": {"type": "integer"},
        },
    }})  # fmt: skip
    ask(opensearch, "PUT", "/hidden/_doc/1?refresh=true", {"sku": "one", "title": "a fox", "clip": SOME[0].clip})
    with closing(open_index(address)) as index:
        (document,) = next(iter(index.scan(vectors=False))).documents
        assert (document.id, document.text) == ("one", "a fox")
        assert [hit.id for hit in index.search(Question(unit(1, 1)[0]))] == ["one"]
        with pytest.raises(EngineError, match="not read back"):
            next(iter(index.scan()))


def test_a_page_is_never_cut_between_documents_of_one_number(opensearch: Served):
    address = fill(opensearch)("cut", SOME, shards=5)
    for size in (1, 2, 3, 7):
        with closing(open_index(address)) as index:
            found = [document.id for page in index.scan(size=size) for document in page.documents]
            assert sorted(found) == [row.sku for row in SOME]


def test_documents_of_odd_forms_are_told(opensearch: Served):
    address = fill(opensearch)("odd", [])
    for number, document in enumerate(
        [{"sku": ["a", "b"]}, {"title": "no id"}, {"sku": "c", "title": ["two", "titles"], "photo": ["p", "q"]}]
    ):
        ask(opensearch, "PUT", f"/odd/_doc/{number}?refresh=true", document)
    with closing(open_index(address)) as index:
        found = {document.id: document for page in index.scan() for document in page.documents}
    assert "no single 'sku'" in str(found["0"].problem)
    assert "no single 'sku'" in str(found["1"].problem)
    assert (found["c"].text, found["c"].image, found["c"].problem) == ("two, titles", "p, q", None)


def test_what_is_no_json_is_refused_and_the_engines_own_words_are_shown(opensearch: Served):
    query = unit(1, 1)[0]
    with closing(open_index(opensearch.address)) as index:
        with pytest.raises(ConfigError, match="the filter is no JSON"):
            index.search(Question(query, where="price < 5"))
        with pytest.raises(EngineError, match=r"refuses \(400\): unknown query \[near\]"):
            index.search(Question(query, where='{"near": {}}'))
        with pytest.raises(EngineError, match="dimension"):
            index.search(Question(np.ones(3, np.float32)))
        wheres = json.dumps([{"range": {"price": {"lt": 5}}}, {"term": {"sku": "sku-0001"}}])
        assert [hit.id for hit in index.search(Question(query, where=wheres))] == ["sku-0001"]
        assert [hit.id for hit in index.search(Question(text="number1", where=wheres))] == ["sku-0001"]
