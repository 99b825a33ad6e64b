"""What only an index of Elasticsearch can be, asked of its real core."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest

from reco_plugin.engines import Question, open_index
from reco_plugin.errors import EngineError

from .conftest import Row, Served, rows, unit

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("elasticsearch")]
SOME = rows()[:40]


@pytest.mark.parametrize(
    ("similarity", "metric", "length"),
    [("l2_norm", "euclid", 3), ("max_inner_product", "dot", 3), ("dot_product", "dot", 1), ("cosine", "cosine", 3)],
)
def test_scores_are_those_of_the_metric(elasticsearch: Served, similarity: str, metric: str, length: int):
    scaled = [
        Row(row.sku, row.title, row.photo, row.price, row.changed, [length * x for x in row.clip] if row.clip else None)
        for row in SOME
    ]
    address = elasticsearch.fill("scaled", scaled, similarity=similarity, index=True)
    vectors = {row.sku: np.asarray(row.clip) for row in scaled if row.clip is not None}
    query = unit(1, 7)[0]
    expected = {
        "euclid": lambda vector: -np.linalg.norm(vector - query),
        "dot": lambda vector: vector @ query,
        "cosine": lambda vector: vector @ query / np.linalg.norm(vector),
    }[metric]
    with closing(open_index(address)) as index:
        assert index.describe().metric == metric
        for exact in (True, False):
            hits = index.search(Question(query, k=40, exact=exact))
            assert len(hits) == len(vectors)
            truth = [expected(vectors[hit.id]) for hit in hits]
            np.testing.assert_allclose([hit.score for hit in hits], truth, atol=1e-4)


@pytest.mark.parametrize(
    ("field", "index_says", "compression"),
    [
        ({"index_options": {"type": "int8_hnsw"}}, "hnsw", "int8"),
        ({"index_options": {"type": "hnsw", "m": 8, "ef_construction": 50}}, "hnsw m=8 ef_construction=50", ""),
        ({"index": False}, "none: each vector is compared", ""),
    ],
)
def test_the_index_says_what_it_is(elasticsearch: Served, field: dict[str, Any], index_says: str, compression: str):
    if field.get("index", True):
        field = {"index": True, "similarity": "cosine", **field}
    address = elasticsearch.fill("kinds", SOME, **field)
    with closing(open_index(address)) as index:
        said = index.describe()
        assert said.engine == "Elasticsearch 8.12.2"
        assert said.index.startswith(index_says)
        assert said.compression == compression
        assert len(index.search(Question(unit(1, 1)[0], k=5))) == 5


def test_bytes_and_an_alias_over_two_are_refused(elasticsearch: Served):
    few = [Row(row.sku, row.title, row.photo, row.price, row.changed, None) for row in SOME]
    address = elasticsearch.fill("bytes", few, element_type="byte", similarity="cosine", index=True)
    with closing(open_index(address)) as index, pytest.raises(EngineError, match="element_type byte"):
        index.describe()
    for other, said in (("byte", "has no index 'byte'"), ("bytes,products", "'bytes' and 'products'")):
        opened = open_index(address.replace("/bytes?", f"/{other}?"))
        with closing(opened) as index, pytest.raises(EngineError, match=said):
            index.describe()
