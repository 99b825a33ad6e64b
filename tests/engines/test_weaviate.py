"""What only a collection of Weaviate can be, asked of the real one."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.engines import weaviate as weaviate_server
from benchmarks.engines.nodes import NotHere
from benchmarks.processes import free_port
from reco_plugin.config import Settings
from reco_plugin.engines import Question, open_index
from reco_plugin.errors import ConfigError, EngineError, EngineUnavailable

from .conftest import DIMENSION, Served, check_scores, fails, fill_collection, rows, scaled, unit

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("weaviate")]
SOME = rows()[:40]


@pytest.mark.parametrize(("distance", "metric"), [("l2-squared", "euclid"), ("dot", "dot"), ("cosine", "cosine")])
def test_scores_are_those_of_the_metric(weaviate: Served, distance: str, metric: str):
    longer = scaled(SOME, 3)
    address = weaviate.fill("Scaled", longer, distance=distance)
    check_scores(address, longer, metric, atol=1e-3)


@pytest.mark.parametrize(("kind", "says"), [("bq", "BQ"), ("sq", "SQ"), ("rq", "RQ"), ("pq", "PQ")])
def test_a_compressed_index_says_so(weaviate: Served, kind: str, says: str):
    from weaviate.classes.config import Configure

    address = weaviate.fill("Squeezed", SOME, quantizer=getattr(Configure.VectorIndex.Quantizer, kind)())
    with closing(open_index(address)) as index:
        assert index.describe().index == f"hnsw {says}"


def test_a_collection_of_one_vector_without_a_name(weaviate: Served):
    address = weaviate.fill("Unnamed", SOME, named=False)
    with closing(open_index(address.replace("vector=default&", ""))) as index:
        assert index.describe().vector == "default"
        found = [document for page in index.scan(size=7) for document in page.documents]
        assert sorted(document.id for document in found) == sorted(row.sku for row in SOME)
        assert all(document.vector is not None or document.id == "sku-0011" for document in found)
        assert len(index.search(Question(unit(1, 1)[0], k=5))) == 5


def test_what_cannot_be_compared_or_found_is_told(weaviate: Served):
    few = [replace(row, clip=None) for row in SOME]
    assert "none of the first objects of Empty has a vector" in fails(weaviate.fill("Empty", few))
    assert "did you mean 'Products'" in fails(weaviate.address.replace("/products?", "/product?"))
    assert "hamming" in fails(weaviate.fill("Bits", SOME, distance="hamming"))
    with closing(open_index(weaviate.address)) as index:
        query = unit(1, 1)[0]
        for where in ("price < 5", '{"path": ["price"], "operator": "Less", "valueNumber": 5}', "[]"):
            with pytest.raises(ConfigError, match="no JSON of a `where`"):
                index.search(Question(query, where=where))
        both = (
            '{"operator": "And", "operands": [{"path": ["price"], "operator": "LessThan", "valueNumber": 5}, '
            '{"path": ["sku"], "operator": "Equal", "valueText": "sku-0001"}]}'
        )
        assert [hit.id for hit in index.search(Question(query, where=both))] == ["sku-0001"]
        with pytest.raises(EngineError):
            index.search(Question(np.ones(DIMENSION + 1, np.float32)))


@pytest.mark.parametrize("option", ["ca_file=/x", "grpc_port=x"])
def test_options_are_checked(option: str):
    with pytest.raises(ConfigError):
        open_index(f"weaviate://host/Product?{option}")


def test_a_server_that_is_not_there_cannot_be_reached(monkeypatch: pytest.MonkeyPatch):
    from reco_plugin.engines import asking

    monkeypatch.setattr(asking.ask, "__kwdefaults__", {"waits": (0.0,)})
    settings: Any = Settings(index_api_key="tell-nobody")
    unreachable = pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:1/Product cannot be reached")
    opened = open_index("weaviate://127.0.0.1:1/Product", settings=settings)
    with closing(opened) as index, unreachable as raised:
        index.describe()
    assert "tell-nobody" not in str(raised.value)


def test_a_user_who_may_read_suffices_and_a_server_that_restarts_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the first page, and started again at the first wait."""
    from weaviate import connect_to_custom
    from weaviate.classes.init import Auth

    from reco_plugin.engines import asking

    told = {
        "AUTHENTICATION_APIKEY_ENABLED": "true",
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": "of-the-owner,of-the-reader",
        "AUTHENTICATION_APIKEY_USERS": "owner,reader",
        "AUTHORIZATION_ADMINLIST_ENABLED": "true",
        "AUTHORIZATION_ADMINLIST_USERS": "owner",
        "AUTHORIZATION_ADMINLIST_READONLY_USERS": "reader",
    }
    ports = [free_port() for _ in range(7)]
    with ExitStack() as first, ExitStack() as second:
        try:
            url, grpc = first.enter_context(weaviate_server.node(tmp_path, ports, told))
        except NotHere as reason:
            pytest.skip(str(reason))
        where = ("127.0.0.1", ports[0], False, "127.0.0.1", grpc, False)
        with closing(
            connect_to_custom(*where, auth_credentials=Auth.api_key("of-the-owner"), skip_init_checks=True)
        ) as owner:
            fill_collection(owner, "Products", SOME)
        address = f"{url.replace('http', 'weaviate')}/Products?grpc_port={grpc}&vector=clip&text=title&id=sku"
        for key in (None, "Sesame-open-1"):
            with closing(open_index(address, settings=Settings(index_api_key=key))) as index:
                with pytest.raises(EngineError, match=r"refuses: .*RECO_INDEX_API_KEY") as refused:
                    index.describe()
                assert not isinstance(refused.value, EngineUnavailable)
                assert "Sesame" not in str(refused.value)
        with closing(open_index(address, settings=Settings(index_api_key="of-the-reader"))) as index:
            assert index.describe().documents == len(SOME)
            assert len(index.search(Question(unit(1, 1)[0], k=5))) == 5
            pages = index.scan(size=10)
            found = [document.id for document in next(pages).documents]
            first.close()
            starting = [lambda: second.enter_context(weaviate_server.node(tmp_path, ports, told))]
            monkeypatch.setattr(asking.time, "sleep", lambda _: starting and starting.pop()())
            found += [document.id for page in pages for document in page.documents]
            assert sorted(found) == [row.sku for row in SOME]
