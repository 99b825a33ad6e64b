"""What later versions of Elasticsearch have than the one that runs here, and what engines of its family refuse.

A small server gives the documented answers and remembers what it was asked. That shows our side of the conversation; it
is no proof that Elasticsearch agrees. The core of 8.12 is asked in test_elasticsearch_core.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from reco_plugin.config import Settings
from reco_plugin.engines import Engine, Question, open_index
from reco_plugin.engines import asking as asking_module
from reco_plugin.errors import ConfigError, EngineError, EngineUnavailable

UNIT = np.asarray([0.6, 0.8], np.float32)


class Answers:
    """What the server says, and what it was asked."""

    def __init__(self) -> None:
        self.version, self.field = "9.2.1", dict[str, Any](type="dense_vector", dims=2, similarity="cosine")
        self.hits: list[Any] = []
        self.status = [200]  # of the next requests; the last one stays
        self.error: Any = {"error": {"reason": "no"}}
        self.asked: list[tuple[str, Any, dict[str, str]]] = []

    def answer(self, path: str) -> Any:
        if path == "/":
            return {"version": {"number": self.version}}
        if path.endswith("/_mapping"):
            properties = {"clip": self.field, "title": {"type": "text"}, "sku": {"type": "keyword"}}
            return {"shop-1": {"mappings": {"properties": properties}}}
        if path.endswith("/_settings"):
            return {"shop-1": {"settings": {"index.uuid": "u1", "index.number_of_shards": "1"}}}
        if path.endswith("/_count"):
            return {"count": 7}
        return {"timed_out": False, "hits": {"hits": self.hits}}


@pytest.fixture
def server() -> Iterator[tuple[str, Answers]]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = self.path.partition("?")[0]
            answers.asked.append((self.path, json.loads(sent) if sent else None, dict(self.headers)))
            status = answers.status.pop(0) if len(answers.status) > 1 else answers.status[0]
            body = json.dumps(answers.answer(path) if status == 200 else answers.error).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("x-elastic-product", "Elasticsearch")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"elasticsearch://127.0.0.1:{http.server_port}/shop?vector=clip&text=title&id=sku", answers
        http.shutdown()


@pytest.fixture
def index(server: tuple[str, Answers]) -> Iterator[Engine]:
    with closing(open_index(server[0])) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_module.ask, "__kwdefaults__", {"waits": (0.0, 0.0, 0.0, 0.0)})


@pytest.mark.parametrize(
    ("field", "index_says"),
    [
        ({"index_options": {"type": "hnsw", "m": 16}}, "hnsw m=16"),
        ({"index_options": {"type": "int8_hnsw"}}, "int8_hnsw"),
        ({"index_options": {"type": "flat"}}, "none: each vector is compared"),
        ({"index": False}, "not indexed"),
        ({"dims": 512}, "bbq_hnsw"),
        ({}, "int8_hnsw"),
    ],
)  # fmt: skip
def test_the_index_is_read_from_the_mapping(server, index, field, index_says):
    server[1].field |= field
    said = index.describe()
    assert (said.engine, said.name, said.documents) == ("Elasticsearch 9.2.1", "shop-1", 7)
    assert said.index == index_says


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"element_type": "byte"}, "element_type byte"),
        ({"element_type": "bit"}, "element_type bit"),
        ({"type": "text"}, "holds text"),
        ({"type": "semantic_text"}, "holds semantic_text"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(server, index, field, message):
    server[1].field |= field
    with pytest.raises(EngineError, match=message):
        index.describe()


def test_vectors_without_a_dimension_are_refused(server, index):
    del server[1].field["dims"]
    with pytest.raises(EngineError, match="no dimension yet"):
        index.describe()


def test_a_search_sends_what_the_documentation_has(server, index):
    answers = server[1]
    answers.field["index_options"] = {"type": "hnsw"}
    answers.hits = [{"_id": "1", "_score": 0.9, "fields": {"sku": ["s1"], "title": ["a fox"]}}]
    (hit,) = index.search(Question(UNIT, k=5, where='{"term": {"sku": "s1"}}'))
    assert (hit.id, hit.text, hit.score) == ("s1", "a fox", pytest.approx(0.8))
    path, body, _ = answers.asked[-1]
    assert path.startswith("/shop/_search?")
    assert "allow_partial_search_results=false" in path
    assert body == {
        "knn": {
            "field": "clip", "query_vector": pytest.approx([0.6, 0.8]), "k": 5, "num_candidates": 100,
            "filter": {"term": {"sku": "s1"}},
        },
        "size": 5, "_source": False, "fields": ["sku", "title"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("similarity", "metric", "score", "expected"),
    [
        ("cosine", "cosine", 0.9, 0.8), ("dot_product", "dot", 0.9, 0.8), ("max_inner_product", "dot", 3.5, 2.5),
        ("max_inner_product", "dot", 0.5, -1.0), ("l2_norm", "euclid", 0.2, -2.0),
    ],
)  # fmt: skip
def test_scores_become_the_metrics_own(server, index, similarity, metric, score, expected):
    server[1].field["similarity"] = similarity
    server[1].hits = [{"_id": "1", "_score": score, "fields": {}}]
    assert index.describe().metric == metric
    assert index.search(Question(UNIT))[0].score == pytest.approx(expected)


def test_a_scan_asks_for_the_vectors_where_answers_leave_them_out(server, index):
    answers = server[1]
    answers.hits = [{"_id": "1", "sort": [4], "_source": {"sku": "s1", "title": "a fox", "clip": [0.6, 0.8], "n": 1}}]
    scan = iter(index.scan(size=1))
    (document,) = next(scan).documents
    np.testing.assert_array_equal(document.vector, UNIT)
    assert document.payload == {"sku": "s1", "n": 1}
    body = answers.asked[-1][1]
    assert body["_source"] == {"excludes": [], "exclude_vectors": False}
    assert body["sort"] == [{"_seq_no": "asc"}]
    next(scan)
    assert answers.asked[-1][1]["query"] == {"bool": {"filter": [{"range": {"_seq_no": {"gt": 4}}}]}}
    answers.version = "8.15.0"
    with closing(open_index(server[0])) as older:
        next(iter(older.scan()))
    assert "exclude_vectors" not in answers.asked[-1][1]["_source"]


@pytest.mark.parametrize("scheme", ["elasticsearch", "opensearch"])
@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_overloaded_engine_is_asked_again(server, scheme, status):
    address, answers = server
    answers.field |= {"type": "knn_vector", "dimension": 2} if scheme == "opensearch" else {}
    answers.status = [status, status, 200]
    with closing(open_index(address.replace("elasticsearch", scheme))) as index:
        assert index.describe().documents == 7
        answers.status = [status]
        with pytest.raises(EngineUnavailable, match=rf"overloaded or not ready \({status}\): no"):
            index.describe()


@pytest.mark.parametrize("scheme", ["elasticsearch", "opensearch"])
@pytest.mark.parametrize(
    ("status", "message"), [(401, "RECO_INDEX_API_KEY"), (403, "view_index_metadata"), (404, "has no index 'shop'")]
)
def test_a_refusal_says_the_way_out_and_shows_no_key(server, scheme, status, message):
    address, answers = server
    answers.status = [status]
    settings = Settings(index_user="reader", index_password="tell-nobody", index_api_key="nor-this")
    opened = open_index(address.replace("elasticsearch", scheme), settings=settings)
    with closing(opened) as index, pytest.raises(EngineError, match=message) as raised:
        index.describe()
    assert "tell-nobody" not in str(raised.value)
    assert "nor-this" not in str(raised.value)
    assert answers.asked[0][2]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(("scheme", "word"), [("elasticsearch", "ApiKey"), ("opensearch", "Bearer")])
def test_a_key_is_sent_where_no_user_is_given(server, scheme, word):
    address, answers = server
    answers.status = [401]
    opened = open_index(address.replace("elasticsearch", scheme), settings=Settings(index_api_key="k"))
    with closing(opened) as index, pytest.raises(EngineError):
        index.describe()
    sent = {name.lower(): value for name, value in answers.asked[0][2].items()}
    assert sent["authorization"] == f"{word} k"


@pytest.mark.parametrize("scheme", ["elasticsearch", "opensearch"])
def test_an_engine_that_is_not_there_cannot_be_reached(scheme):
    unreachable = pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:1/shop cannot be reached: .*tls=1")
    with closing(open_index(f"{scheme}://127.0.0.1:1/shop")) as index, unreachable:
        index.describe()


@pytest.mark.parametrize("scheme", ["elasticsearch", "opensearch"])
def test_a_server_without_tls_that_is_asked_for_it(server, scheme):
    opened = open_index(server[0].replace("elasticsearch", scheme) + "&tls=1")
    with closing(opened) as index, pytest.raises(EngineError, match="TLS"):
        index.describe()


@pytest.mark.parametrize("scheme", ["elasticsearch", "opensearch"])
def test_an_address_names_an_index(scheme):
    for wrong in (f"{scheme}://host", f"{scheme}://host/a/b"):
        with pytest.raises(ConfigError, match="names no index"):
            open_index(wrong)
