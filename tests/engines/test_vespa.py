"""A schema of Vespa: asked of the real container where that was fetched, and of answers as its documentation has them.

The container has no content node: a searcher of ours compares the vectors, see benchmarks/engines/vespa.py.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.engines import vespa as vespa_container
from benchmarks.engines.nodes import NotHere
from reco_plugin.config import Settings
from reco_plugin.engines import Engine, Question, asking, open_index, vespa
from reco_plugin.errors import ConfigError, EngineError, EngineUnavailable, VectorError
from reco_plugin.ingest.index_rows import open_index_rows

from .conftest import DIMENSION, DOCUMENTS, rows, unit

ROWS = {row.sku: row for row in rows()}
WITH_VECTOR = [row for row in ROWS.values() if row.clip is not None]
CLIP = np.asarray([row.clip for row in WITH_VECTOR], np.float32)
FIELDS = "vector=clip&text=title&image=photo&id=sku&profile=by_clip"
QUERY = np.asarray([0.6, 0.8], np.float32)
STORED = np.asarray([0.8, 0.6], np.float32)


@dataclass
class Answers:
    """What a stand-in says, and what it was asked."""

    hits: list[dict[str, Any]] = field(default_factory=list)
    coverage: dict[str, Any] = field(default_factory=lambda: {"coverage": 100, "documents": 7, "full": True})
    errors: list[dict[str, Any]] = field(default_factory=list)
    status: list[int] = field(default_factory=lambda: [200])  # the last one goes on
    documents: list[dict[str, Any]] = field(default_factory=list)
    no_documents: int = 0  # status of /document/v1
    asked: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)

    def answer(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON."""
        if path.startswith("/state/v1/version"):
            return 200, {"version": "8.700.24"}
        if path.startswith("/document/v1/"):
            if self.no_documents:
                return self.no_documents, {"pathId": path, "message": "no"}
            if path.startswith("/document/v1/?"):
                return 200, {"pathId": path, "documents": self.documents, "documentCount": len(self.documents)}
            return 200, {"pathId": path, **self.documents[0]}
        status = self.status.pop(0) if len(self.status) > 1 else self.status[0]
        errors = self.errors or ([{"code": 5, "summary": "no", "message": "not now"}] if status != 200 else [])
        root = {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": 7}, "coverage": self.coverage}
        return status, {"root": {**root, **({"errors": errors} if errors else {"children": self.hits})}}


def tensor(values: list[float], kind: str = "float", dimensions: str = "x[2]") -> dict[str, Any]:
    """A tensor as documents show it."""
    return {"type": f"tensor<{kind}>({dimensions})", "values": values}


def document(**fields: Any) -> dict[str, Any]:
    """One, as ``/document/v1`` shows it."""
    return {"id": "id:shop:product::1", "fields": fields}


def hit(relevance: float, **fields: Any) -> dict[str, Any]:
    """One, as a query shows it."""
    return {"id": "index:products/0/c4", "relevance": relevance, "source": "products", "fields": fields}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Answers]]:
    """A stand-in of one schema; its address without further options."""
    monkeypatch.setattr(asking.time, "sleep", lambda _: None)
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _reply(self, body: Any) -> None:
            answers.asked.append((self.path, body, {name.lower(): value for name, value in self.headers.items()}))
            status, said = answers.answer(self.path, body)
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"vespa://127.0.0.1:{listening.server_port}/product", answers
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def told(server: tuple[str, Answers]) -> Iterator[Engine]:
    """The schema, where the address says everything."""
    with closing(open_index(f"{server[0]}?{FIELDS}&dimension=2")) as opened:
        yield opened


def test_a_search_sends_what_the_documentation_has(server, told):
    answers = server[1]
    answers.hits = [hit(1 / 1.1, documentid="id:shop:product::1", sku="s1", title="a fox", photo="1.png")]
    (found,) = told.search(Question(QUERY, k=5, where="price < 5", effort=200))
    assert (found.id, found.text, found.image, found.score) == ("s1", "a fox", "1.png", pytest.approx(0.9))
    path, body, headers = answers.asked[-1]
    assert (path, headers.get("authorization")) == ("/search/", None)
    assert body == {
        "yql": "select documentid, sku, title, photo from product where ({targetHits:200}nearestNeighbor(clip, q)) "
        "and (price < 5)",
        "hits": 5, "timeout": "10s", "ranking.softtimeout.enable": False, "ranking": "by_clip",
        "input.query(q)": pytest.approx([0.6, 0.8]),
    }  # fmt: skip
    told.search(Question(QUERY, k=5, exact=True))
    assert "{targetHits:5,approximate:false}nearestNeighbor(clip, q)" in answers.asked[-1][1]["yql"]
    told.search(Question(QUERY, k=300))
    assert "{targetHits:300}nearestNeighbor" in answers.asked[-1][1]["yql"]


def test_words_go_to_the_field_of_texts_with_a_profile_of_their_own(server, told):
    server[1].hits = [hit(0.25, sku="s1", title="a fox")]
    (found,) = told.search(Question(text='a "red" fox', k=3, where="price < 5"))
    assert (found.id, found.score) == ("s1", 0.25)
    body = server[1].asked[-1][1]
    assert body["yql"].endswith('where ({defaultIndex:"title",grammar:"weakAnd"}userInput(@words)) and (price < 5)')
    assert (body["words"], body["ranking"], body["hits"]) == ('a "red" fox', "default", 3)
    with closing(open_index(f"{server[0]}?vector=clip&dimension=2")) as bare:
        assert not bare.describe().searches_text
        with pytest.raises(ConfigError, match="add text=NAME"):
            bare.search(Question(text="fox"))


@pytest.mark.parametrize(
    ("metric", "kind", "expected"),
    [
        ("prenormalized-angular", "cosine", 0.96), ("angular", "cosine", 0.96),
        ("dotproduct", "dot", 0.96), ("euclidean", "euclid", -np.sqrt(0.08)),
    ],
)  # fmt: skip
def test_scores_become_the_metrics_own(server, metric, kind, expected):
    closeness = {
        "prenormalized-angular": 1 / 1.04, "angular": 1 / (1 + np.arccos(0.96)),
        "dotproduct": 0.96, "euclidean": 1 / (1 + np.sqrt(0.08)),
    }[metric]  # fmt: skip
    server[1].hits = [hit(closeness, sku="s1")]
    with closing(open_index(f"{server[0]}?{FIELDS}&dimension=2&metric={metric}")) as index:
        assert index.describe().metric == kind
        assert index.search(Question(QUERY))[0].score == pytest.approx(expected)


def test_fields_and_dimension_are_read_from_documents_and_the_metric_is_found(server):
    address, answers = server
    answers.documents = [
        document(sku="s1", title="a fox", photo="1.png", price=1, clip=tensor([1.6, 1.2], "bfloat16")),
        document(sku="s2"),
    ]
    with closing(open_index(f"{address}?{FIELDS.replace('vector=clip&', '')}&metric=dotproduct")) as index:
        said = index.describe()
        assert (said.engine, said.documents, said.vector, said.dimension) == ("Vespa 8.700.24", 7, "clip", 2)
        assert (said.compression, said.metric, said.scans) == ("bfloat16", "dot", False)
        assert said.fields == ("sku", "title", "photo", "price", "clip")
    query = np.random.default_rng(vespa._SEED).normal(size=2).astype(np.float32)
    query /= np.linalg.norm(query)
    stored = 2 * STORED
    closeness = {
        "prenormalized-angular": 1 / (2 - query @ stored),
        "angular": 1 / (1 + np.arccos(query @ stored / 2)),
        "dotproduct": query @ stored,
        "euclidean": 1 / (1 + np.linalg.norm(query - stored)),
    }
    for metric, score in closeness.items():
        answers.hits = [hit(float(score), documentid="id:shop:product::1")]
        with closing(open_index(f"{address}?{FIELDS}")) as index:
            assert index.describe().index.endswith(metric)
    paths = [path for path, _, _ in answers.asked]
    assert "/document/v1/?selection=product&wantedDocumentCount=20" in paths
    assert "/document/v1/shop/product/docid/1" in paths
    answers.hits = [hit(14.2, documentid="id:shop:product::1")]
    with closing(open_index(f"{address}?{FIELDS}")) as index, pytest.raises(EngineError, match="profile=NAME"):
        index.describe()


@pytest.mark.parametrize(
    ("documents", "options", "said"),
    [
        ([], "", "no documents to read its fields from"),
        ([document(title="a")], "", "holds the vectors.*none"),
        ([document(a=tensor([1, 2]), b=tensor([1, 2]))], "", "vector=NAME: it has 'a', 'b'$"),
        ([document(clip=tensor([1, 2], "int8"))], "vector=clip", "'clip' holds a vector of int8"),
        ([document(clip=tensor([1, 2], dimensions="p{}, x[2]"))], "vector=clip", "'clip' holds several vectors"),
        ([document(clip=tensor([1, 2]))], "vector=clips", "did you mean 'clip'"),
        ([document(clip=tensor([1, 2]), sku="1")], "vector=clip&id=skus", "did you mean 'sku'"),
    ],
)  # fmt: skip
def test_schemas_that_cannot_be_compared_with_ours(server, documents, options, said):
    server[1].documents = documents
    with closing(open_index(f"{server[0]}?{options}")) as index, pytest.raises(EngineError, match=said):
        index.describe()


@pytest.mark.parametrize("status", [403, 404])
def test_where_no_document_can_be_read_the_address_says_it(server, told, status):
    server[1].no_documents = status
    with closing(open_index(f"{server[0]}?{FIELDS}")) as index:
        with pytest.raises(EngineError, match="add vector=NAME&dimension=NUMBER") as raised:
            index.describe()
        assert f"({status})" in str(raised.value)
    assert told.describe().dimension == 2


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_overloaded_vespa_is_asked_again(server, told, status):
    server[1].status = [status, status, 200]
    assert told.describe().documents == 7
    server[1].status = [status]
    with pytest.raises(EngineUnavailable, match=rf"\({status}\): no: not now"):
        told.search(Question(QUERY))


@pytest.mark.parametrize(
    ("status", "said"), [(401, "RECO_INDEX_API_KEY"), (403, "permission `read`"), (400, "no: not")]
)
def test_a_refusal_says_the_way_out_and_shows_no_key(server, status, said):
    address, answers = server
    answers.status = [status]
    for settings, kind in (
        (Settings(index_api_key="nor-this"), "Bearer nor-this"),
        (Settings(index_user="reader", index_password="tell-nobody", index_api_key="nor-this"), "Basic "),
    ):
        opened = open_index(f"{address}?{FIELDS}&dimension=2", settings=settings)
        with closing(opened) as index, pytest.raises(EngineError, match=said) as raised:
            index.search(Question(QUERY))
        assert not isinstance(raised.value, EngineUnavailable)
        assert "tell-nobody" not in str(raised.value)
        assert "nor-this" not in str(raised.value)
        assert answers.asked[-1][2]["authorization"].startswith(kind)
    assert len(answers.asked) == 2


def test_errors_and_missing_parts_come_with_200_too(server, told):
    answers = server[1]
    answers.errors = [{"code": 12, "summary": "Timed out", "message": "no answer of products", "source": "products"}]
    with pytest.raises(EngineUnavailable, match=r"Timed out: no answer of products. Give timeout_s= more"):
        told.search(Question(QUERY))
    answers.errors = [{"code": 4, "summary": "Invalid query parameter", "message": f"query(q) tensor {[0.25] * 99}"}]
    with pytest.raises(EngineError, match=r"query\(q\) tensor \[…\]\. profile= names"):
        told.search(Question(QUERY))
    answers.errors = []
    for why, cure in (("timeout", "timeout_s="), ("adaptive-timeout", "timeout_s="), ("non-ideal-state", "nodes")):
        answers.coverage = {"coverage": 43, "full": False, "degraded": {"match-phase": True, why: True}}
        with pytest.raises(EngineUnavailable, match=rf"only 43 % of the documents \({why}\): .*{cure}"):
            told.search(Question(QUERY))
    answers.coverage = {"coverage": 43, "full": False, "degraded": {"match-phase": True, "timeout": False}}
    assert told.search(Question(QUERY)) == []


def test_a_template_is_the_json_of_a_query(server, told):
    answers = server[1]
    answers.hits = [hit(3.5, sku="s1"), hit(3.0, sku="s2"), {"id": "group:root:0", "relevance": 1.0}]
    template = '{"yql": "select sku from product", "input.query(e)": "{{vector}}", "words": "{{text}}", "hits": {{k}}}'
    found = told.search(Question(QUERY, 'a "fox"', k=2, template=template))
    assert [(one.id, one.score) for one in found] == [("s1", 3.5), ("s2", 3.0)]
    assert answers.asked[-1][1] == {
        "yql": "select sku from product", "input.query(e)": pytest.approx([0.6, 0.8]), "words": 'a "fox"', "hits": 2
    }  # fmt: skip
    answers.hits = [hit(3.5, title="a fox")]
    with pytest.raises(EngineError, match="has no 'sku'"):
        told.search(Question(QUERY, template=template))
    for wrong in ("select {{vector}}", '["{{vector}}"]'):
        with pytest.raises(ConfigError, match="no JSON of a query of Vespa"):
            told.search(Question(QUERY, template=wrong))


def test_it_is_searched_and_not_scanned(server, told):
    for read in (lambda: told.scan(), lambda: open_index_rows(f"{server[0]}?{FIELDS}&dimension=2", None)):
        with pytest.raises(EngineError, match=r"only searched, not read\. To fill a memory"):
            read()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("vespa://host", "names no schema"),
        ("vespa://host/a/b", "names no schema"),
        ("vespa://host/product?vector=a b", "no name of a field"),
        ("vespa://host/product?text=a;b", "no name of a field"),
        ("vespa://host/product?input=q)", "no name of a tensor"),
        ("vespa://host/product?changed=at", "leave changed= out"),
        ("vespa://host/product?metric=angle", "did you mean 'angular'"),
        ("vespa://host/product?dimension=0&vector=clip", "whole number"),
        ("vespa://host/product?dimension=2", "goes with vector=NAME"),
        ("vespa://host/product?profil=by_clip", "did you mean 'profile'"),
        ("vespa://host/product?cert_file=/x.pem", "add tls=1"),
        ("vespa://host/product?tls=1&cert_file=/nowhere.pem", "cannot be read"),
        ("vespa://host/product?ca_file=/nowhere.pem", "cannot be read"),
        ("vespa://host/product?api_key=x", "no key belongs"),
    ],
)
def test_addresses_that_are_wrong(address, said):
    with pytest.raises(ConfigError, match=said):
        open_index(address)


def test_a_vespa_that_is_not_there_cannot_be_reached(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asking.time, "sleep", lambda _: None)
    with (
        closing(open_index(f"vespa://127.0.0.1:1/product?{FIELDS}")) as index,
        pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:1/product cannot be reached"),
    ):
        index.describe()


def test_tls_with_an_authority_and_a_certificate_of_ones_own(server, tmp_path: Path):
    import ssl

    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours = authority.issue_cert("reader")
    ours.private_key_and_cert_chain_pem.write_to_path(tmp_path / "reader.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            said = b'{"root": {"fields": {"totalCount": 0}}}'
            self.send_response(200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    address = f"vespa://localhost:{listening.server_port}/product?{FIELDS}&dimension=2&ca_file={tmp_path}/ca.pem"
    try:
        with closing(open_index(f"{address}&cert_file={tmp_path}/reader.pem")) as index:
            assert index.search(Question(QUERY)) == []
        with closing(open_index(address)) as index, pytest.raises(EngineError):
            index.search(Question(QUERY))
        untrusted = address.partition("&ca_file=")[0] + "&tls=1"
        with closing(open_index(untrusted)) as index, pytest.raises(EngineError, match=r"TLS fails.*ca_file="):
            index.search(Question(QUERY))
    finally:
        listening.shutdown()
        listening.server_close()


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """The real container, with the documents of all engines' tests; its address."""
    if not vespa_container.HOME.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"no Vespa in {vespa_container.HOME}: `python -m benchmarks.engines.vespa`")
    with ExitStack() as stack:
        try:
            url = stack.enter_context(vespa_container.started([vars(row) for row in rows()]))
        except NotHere as reason:
            pytest.skip(str(reason))
        yield f"vespa://{url.removeprefix('http://')}/product?{FIELDS}"


def best(query: np.ndarray, k: int, most: float = np.inf) -> list[str]:
    """Ids of the documents that are nearest to a query (D,)."""
    order = np.argsort(-(CLIP @ query), kind="stable")
    return [WITH_VECTOR[row].sku for row in order if WITH_VECTOR[row].price < most][:k]


@pytest.mark.slow
@pytest.mark.xdist_group("vespa")
def test_the_real_container_reads_our_queries(container):
    """All of it in one test, since the container takes ten seconds to start."""
    query = unit(1, 5)[0]
    with closing(open_index(container)) as index:
        said = index.describe()
        assert (said.engine, said.documents) == (f"Vespa {vespa_container.VERSION}", DOCUMENTS)
        assert (said.vector, said.dimension, said.metric) == ("clip", DIMENSION, "cosine")
        assert said.index.endswith("prenormalized-angular")
        for exact in (True, False):
            hits = index.search(Question(query, k=10, exact=exact))
            assert [one.id for one in hits] == best(query, 10)
            cosines = [float(np.dot(ROWS[one.id].clip or [], query)) for one in hits]
            np.testing.assert_allclose([one.score for one in hits], cosines, atol=1e-6)
            shown = [(ROWS[one.id].title, ROWS[one.id].photo) for one in hits]
            assert [(one.text, one.image) for one in hits] == shown
        filtered = index.search(Question(query, k=5, where="price < 5"))
        assert [one.id for one in filtered] == best(query, 5, most=5)
        assert [one.id for one in index.search(Question(text="number123", k=5))] == ["sku-0123"]
        assert all("fox" in (one.text or "") for one in index.search(Question(text="fox", k=50)))
        odd = 'fox" or true) @words {x:1} \\ '
        assert index.search(Question(text=odd, k=5)) is not None
        assert index.search(Question(text="''\"<>&|! ", k=5)) == []
        template = json.dumps(
            {
                "yql": "select sku from product where {targetHits: 5}nearestNeighbor(clip, q)",
                "ranking": "by_clip",
                "input.query(q)": "{{vector}}",
            }
        )
        assert [one.id for one in index.search(Question(query, template=template))] == best(query, 5)
        with pytest.raises(EngineError, match=r"refuses \(400\): Invalid query parameter: Could not create query"):
            index.search(Question(query, where="price << <"))
        with pytest.raises(EngineError, match="configured limit: 400"):
            index.search(Question(query, k=1000))
        with pytest.raises(VectorError, match="have 16 dimensions, the query has 8"):
            index.search(Question(query[:8]))
    for profile in ("&", "&profile=nothing"):
        with closing(open_index(container.replace("&profile=by_clip", profile))) as index:
            with pytest.raises(EngineError, match="profile= names the rank profile") as raised:
                index.search(Question(query))
            assert f"{query[0]:.3f}" not in str(raised.value)
