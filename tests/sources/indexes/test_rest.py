"""OpenSearch and Elasticsearch by the answers that they document, which a small server gives and remembers who asked.

This shows our side of the conversation. The contract asks the real engines, where they can run.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from reco_plugin.errors import EngineError, EngineTimeout, EngineUnavailable
from reco_plugin.settings import Settings
from reco_plugin.sources.indexes import Engine, IndexQuery, base, open_index

pytestmark = pytest.mark.slow

UNIT = np.asarray([0.6, 0.8], np.float32)


class Answers:
    """What the server says, and what it was asked."""

    def __init__(self) -> None:
        self.version, self.field = "9.2.1", dict[str, Any](type="dense_vector", dims=2, similarity="cosine")
        self.names = ["shop-1"]
        self.hits: list[Any] = []
        self.status = [200]  # of the next requests; the last one stays
        self.asked: list[tuple[str, Any, dict[str, str]]] = []

    def answer(self, path: str) -> Any:
        if path == "/":
            return {"version": {"number": self.version}}
        if path.endswith("/_mapping"):
            inner = {"photo": {"type": "binary"}, "title": {"type": "text", "fields": {"raw": {"type": "keyword"}}}}
            properties = {"clip": self.field, "goods": {"properties": inner}, "sku": {"type": "keyword"}}
            return {name: {"mappings": {"properties": properties}} for name in self.names}
        if path.endswith("/_settings"):
            return {"shop-1": {"settings": {"index.number_of_shards": "1"}}}
        if path.endswith("/_count"):
            return {"count": 7}
        return {"timed_out": False, "hits": {"hits": self.hits}}


@pytest.fixture
def server() -> Iterator[tuple[str, Answers]]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            answers.asked.append((self.path, json.loads(sent) if sent else None, dict(self.headers)))
            status = answers.status.pop(0) if len(answers.status) > 1 else answers.status[0]
            found = answers.answer(self.path.partition("?")[0]) if status == 200 else {"error": {"reason": "no"}}
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"://127.0.0.1:{http.server_port}/shop?vector=clip&text=goods.title&id=sku", answers
        http.shutdown()


@pytest.fixture
def index(server: tuple[str, Answers]) -> Iterator[Engine]:
    with closing(open_index(f"elasticsearch{server[0]}")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "WAITS", (0.0, 0.0, 0.0))


KNN = {"type": "knn_vector", "dimension": 2}


@pytest.mark.parametrize(
    ("engine", "field", "says"),
    [
        ("elasticsearch", {"index_options": {"type": "hnsw", "m": 16}}, ("cosine", "hnsw m=16")),
        ("elasticsearch", {"similarity": "l2_norm", "index_options": {"type": "flat"}}, ("euclid", base.EXACT)),
        ("opensearch", {**KNN, "space_type": "innerproduct", "mode": "on_disk"}, ("dot", "hnsw on_disk")),
        ("opensearch", {**KNN, "method": {"name": "hnsw", "engine": "lucene"}}, ("euclid", "lucene hnsw")),
    ],
)
def test_the_index_is_read_from_the_mapping(server, engine: str, field: dict[str, Any], says: tuple[str, str]) -> None:
    server[1].field |= field
    with closing(open_index(engine + server[0])) as index:
        said = index.describe()
    assert (said.name, said.documents, said.dimension) == ("shop-1", 7, 2)
    assert said.engine.endswith("9.2.1")
    assert (said.metric, said.index) == says


@pytest.mark.parametrize(
    ("engine", "field", "message"),
    [
        ("elasticsearch", {"element_type": "bit"}, "element_type bit"),
        ("opensearch", {**KNN, "space_type": "hamming"}, "hamming"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(server, engine: str, field: dict[str, Any], message: str) -> None:
    server[1].field |= field
    with closing(open_index(engine + server[0])) as index, pytest.raises(EngineError, match=message):
        index.describe()


def test_an_alias_of_two_and_a_field_that_no_document_keeps_are_refused(server) -> None:
    wrong = f"elasticsearch{server[0]}".replace("goods.title", "goods.title.raw")
    with closing(open_index(wrong)) as index, pytest.raises(EngineError, match=r"did you mean 'goods\.title'"):
        index.describe()
    server[1].names = ["shop-1", "shop-2"]
    with closing(open_index(f"opensearch{server[0]}")) as index, pytest.raises(EngineError, match="'shop-1' and"):
        index.describe()


@pytest.mark.parametrize(
    ("engine", "body"),
    [
        (
            "elasticsearch",
            {"knn": {"field": "clip", "query_vector": [0.6, 0.8], "k": 5, "num_candidates": 100, "filter": {"a": 1}}},
        ),
        ("opensearch", {"query": {"knn": {"clip": {"vector": [0.6, 0.8], "k": 100, "filter": {"a": 1}}}}}),
    ],
)
def test_a_search_sends_what_the_documentation_has(server, engine: str, body: dict[str, Any]) -> None:
    answers = server[1]
    answers.field |= {**KNN, "space_type": "cosinesimil"} if engine == "opensearch" else {}
    answers.hits = [
        {"_id": "1", "_score": 0.9, "fields": {"sku": ["s1"], "goods.title": ["a", "fox"], "goods.photo": ["UE5H"]}}
    ]
    with closing(open_index(f"{engine}{server[0]}&image=goods.photo")) as index:
        (hit,) = index.search(IndexQuery(np.asarray([0.6, 0.8]), k=5, where='{"a": 1}'))
    assert (hit.id, hit.text, hit.image, hit.score) == ("s1", "a, fox", b"PNG", pytest.approx(0.8))
    path, sent, _ = answers.asked[-1]
    assert "allow_partial_search_results=false" in path
    rest = {"size": 5, "_source": False, "fields": ["sku", "goods.title", "goods.photo"]}
    assert json.loads(json.dumps(sent), parse_float=lambda x: round(float(x), 6)) == body | rest


@pytest.mark.parametrize(
    ("engine", "field", "score", "expected"),
    [
        ("elasticsearch", {"similarity": "dot_product"}, 0.9, 0.8),
        ("elasticsearch", {"similarity": "max_inner_product"}, 3.5, 2.5),
        ("elasticsearch", {"similarity": "max_inner_product"}, 0.5, -1.0),
        ("elasticsearch", {"similarity": "l2_norm"}, 0.2, -2.0),
        ("opensearch", {**KNN, "space_type": "innerproduct"}, 0.5, -1.0),
    ],
)
def test_scores_become_the_metrics_own(
    server, engine: str, field: dict[str, Any], score: float, expected: float
) -> None:
    server[1].field |= field
    server[1].hits = [{"_id": "1", "_score": score, "fields": {}}]
    with closing(open_index(engine + server[0])) as index:
        assert index.search(IndexQuery(UNIT))[0].score == pytest.approx(expected)


def test_a_scan_goes_by_the_number_of_the_last_change_and_asks_for_the_vectors(server, index: Engine) -> None:
    answers = server[1]
    goods = {"title": "a fox", "photo": "UE5H"}
    answers.hits = [{"_id": "1", "sort": [4], "_source": {"sku": "s1", "goods": goods, "clip": [0.6, 0.8]}}]
    scan = iter(index.scan(size=1))
    (document,) = next(scan)
    np.testing.assert_array_equal(document.vector, UNIT)
    assert (document.id, document.text, document.payload["sku"]) == ("s1", "a fox", "s1")
    body = answers.asked[-1][1]
    assert body["_source"] == {"excludes": [], "exclude_vectors": False}
    assert body["sort"] == [{"_seq_no": "asc"}]
    next(scan)
    assert answers.asked[-1][1]["query"] == {"bool": {"filter": [{"range": {"_seq_no": {"gt": 4}}}]}}


def test_an_engine_that_is_busy_is_asked_again_and_one_that_refuses_is_not(server, index: Engine) -> None:
    answers = server[1]
    answers.status = [503, 429, 200]
    assert index.describe().documents == 7
    for status, says in ((401, "RECO_INDEX_USER"), (403, "view_index_metadata"), (404, "refuses")):
        answers.status, answers.asked = [status], []
        with closing(open_index(f"opensearch{server[0]}")) as other, pytest.raises(EngineError, match=says):
            other.describe()
        assert len(answers.asked) == 1
    answers.status, answers.asked = [503], []
    with closing(open_index(f"opensearch{server[0]}")) as other, pytest.raises(EngineUnavailable):
        other.describe()
    assert len(answers.asked) == 4


@pytest.mark.parametrize(
    ("engine", "settings", "header"),
    [
        ("opensearch", {"index_api_key": "k"}, "Bearer k"),
        ("elasticsearch", {"index_api_key": "k"}, "ApiKey k"),
        ("opensearch", {"index_user": "me", "index_password": "p"}, "Basic bWU6cA=="),
    ],
)
def test_keys_are_sent_as_each_engine_takes_them(server, engine: str, settings: Any, header: str) -> None:
    server[1].field |= KNN if engine == "opensearch" else {}
    with closing(open_index(engine + server[0], settings=Settings(**settings))) as index:
        index.describe()
    sent = {name.lower(): value for name, value in server[1].asked[0][2].items()}
    assert sent["authorization"] == header


def test_a_silent_engine_is_asked_once_and_ends_within_its_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"opensearch://127.0.0.1:{silent.getsockname()[1]}/shop?vector=clip&timeout_s=0.3"
        with pytest.raises(EngineTimeout), closing(open_index(address)) as index:
            index.describe()
