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
    few = [replace(row, clip=None) for row in SOME]
    address = elasticsearch.fill("bytes", few, element_type="byte", similarity="cosine", index=True)
    with closing(open_index(address)) as index, pytest.raises(EngineError, match="element_type byte"):
        index.describe()
    for other, said in (("byte", "has no index 'byte'"), ("bytes,products", "'bytes' and 'products'")):
        opened = open_index(address.replace("/bytes?", f"/{other}?"))
        with closing(opened) as index, pytest.raises(EngineError, match=said):
            index.describe()
