"""What only an index of Elasticsearch can be, asked of its real core."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from reco_plugin.engines import Question, open_index
from reco_plugin.errors import EngineError

from .conftest import Served, check_scores, rows, scaled, unit

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("elasticsearch")]
SOME = rows()[:40]


@pytest.mark.parametrize(
    ("similarity", "metric", "length"),
    [("l2_norm", "euclid", 3), ("max_inner_product", "dot", 3), ("dot_product", "dot", 1), ("cosine", "cosine", 3)],
)
def test_scores_are_those_of_the_metric(elasticsearch: Served, similarity: str, metric: str, length: int):
    longer = scaled(SOME, length)
    address = elasticsearch.fill("scaled", longer, similarity=similarity, index=True)
    check_scores(address, longer, metric, atol=1e-4)


@pytest.mark.parametrize(
    ("field", "index_says"),
    [
        ({"index_options": {"type": "int8_hnsw"}}, "int8_hnsw"),
        ({"index_options": {"type": "hnsw", "m": 8, "ef_construction": 50}}, "hnsw m=8 ef_construction=50"),
    ],
)
def test_the_index_says_what_it_is(elasticsearch: Served, field: dict[str, Any], index_says: str):
    if field.get("index", True):
        field = {"index": True, "similarity": "cosine", **field}
    address = elasticsearch.fill("kinds", SOME, **field)
    with closing(open_index(address)) as index:
        said = index.describe()
        assert said.engine == "Elasticsearch 8.12.2"
        assert said.index.startswith(index_says)
        assert len(index.search(Question(unit(1, 1)[0], k=5))) == 5


def test_bytes_and_an_alias_over_two_are_refused(elasticsearch: Served):
    few = [replace(row, clip=None) for row in SOME]
    address = elasticsearch.fill("bytes", few, element_type="byte", similarity="cosine", index=True)
    with closing(open_index(address)) as index, pytest.raises(EngineError, match="element_type byte"):
        index.describe()
    for other, said in (("byte", "has no index 'byte'"), ("bytes,products", "'bytes' and 'products'")):
        opened = open_index(address.replace("/bytes?", f"/{other}?"))
        with closing(opened) as index, pytest.raises(EngineError, match=said):
            index.describe()


@pytest.mark.parametrize("title", ["name", "goods.title.raw", "goods.title"])
def test_fields_that_a_document_does_not_keep_itself_are_read_from_those_that_it_does(
    elasticsearch: Served, title: str
):
    """An alias, and a sub-field as ``title.keyword``: a search showed them, and a scan found no caption anywhere."""
    assert elasticsearch.fill is not None and elasticsearch.query is not None
    address = elasticsearch.fill("goods", []).partition("?")[0]
    words = {"type": "text", "fields": {"raw": {"type": "keyword"}}}
    fields = {
        "goods": {"properties": {"title": words, "number": {"type": "integer"}}},
        "name": {"type": "alias", "path": "goods.title"},
        "code": {"type": "alias", "path": "goods.number"},
    }
    elasticsearch.query(("PUT", "/goods/_mapping", {"properties": fields}))
    vectors = unit(2, 2)
    for number, (said, vector) in enumerate(zip([["a red fox", "an animal"], "a cat"], vectors, strict=True)):
        document = {"goods": {"title": said, "number": number}, "clip": vector.tolist()}
        elasticsearch.query(("PUT", f"/goods/_doc/{number + 7}?refresh=true", document))
    with closing(open_index(f"{address}?vector=clip&text={title}&id=code")) as index:
        documents = [one for page in index.scan() for one in page.documents]
        assert {one.id: one.text for one in documents} == {"0": "a red fox, an animal", "1": "a cat"}
        assert all(one.problem is None for one in documents)
        (hit,) = index.search(Question(vectors[1], k=1))
        assert (hit.id, hit.text) == ("1", "a cat")
