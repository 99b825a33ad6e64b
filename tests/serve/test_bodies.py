"""Bodies that are small and cost much, that never end, or that are too many at once."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from live_service import wait_until
from pydantic import BaseModel, ValidationError
from service_process import process

from reco_plugin.serve.dialects.clip import VectorizeRequest
from reco_plugin.serve.dialects.cohere import CohereRequest
from reco_plugin.serve.dialects.openai import EmbeddingsRequest
from reco_plugin.serve.dialects.voyage import VoyageRequest
from reco_plugin.serve.memory_routes import AddPairs
from reco_plugin.serve.refine_routes import ExplainRequest, RefineRequest
from reco_plugin.serve.routing import MAX_VALUES

JSON = {"content-type": "application/json"}
ONE = {"input": [{"text": "a red circle"}]}
LISTS: list[tuple[str, str, type[BaseModel]]] = [
    ("/v1/embeddings", "input", EmbeddingsRequest),
    ("/v1/multimodalembeddings", "inputs", VoyageRequest),
    ("/v2/embed", "texts", CohereRequest),
    ("/v2/embed", "images", CohereRequest),
    ("/vectorize", "texts", VectorizeRequest),
    ("/vectorize", "images", VectorizeRequest),
    ("/v1/refine", "vectors", RefineRequest),
    ("/v1/explain", "input", ExplainRequest),
    ("/v1/memory/pairs", "pairs", AddPairs),
]


@pytest.mark.parametrize(("path", "field", "_model"), LISTS)
def test_the_length_of_a_list_is_looked_at_before_what_it_holds(reading, admin, path, field, _model):
    answer = reading.post(path, json={field: [None] * 2049}, headers=admin)
    assert answer.status_code == 413
    assert f"{field}: 2,049" in answer.text
    assert "max_items" in answer.text


@pytest.mark.parametrize(("_path", "field", "model"), LISTS)
def test_the_first_bad_item_ends_the_reading(_path, field, model):
    with pytest.raises(ValidationError) as refused:
        model.model_validate({field: [None] * 200})
    assert len([error for error in refused.value.errors() if error["loc"][0] == field]) == 1


def test_the_first_bad_number_and_the_first_unknown_words_end_it_too():
    for body, most in (({"modality": "text", "vectors": [[None] * 1000]}, 1), ({f"k{n}": 0 for n in range(1000)}, 3)):
        with pytest.raises(ValidationError) as refused:
            RefineRequest.model_validate(body)
        assert refused.value.error_count() <= most


def test_parts_of_all_inputs_together_are_items(reading):
    inputs = [{"content": [{"type": "text", "text": "a"}] * 1200}] * 2
    assert reading.post("/v1/multimodalembeddings", json={"inputs": inputs}).status_code == 413


def test_a_body_of_too_many_values_is_413_before_it_is_parsed(reading):
    for item in (b"0", b"{}", b"[", b'"":0'):  # the last two are no JSON at all, which nobody has looked at yet
        body = b'{"input": [' + b",".join([item] * MAX_VALUES) + b"]}"
        answer = reading.post("/v1/explain", content=body, headers=JSON)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[tuple[int, str]]:
    """A service in a process of its own: its id and its URL."""
    with process(tmp_path_factory.mktemp("running"), model, "--memory", ":memory:") as (started, url):
        wait_until(lambda: started.poll() is not None or httpx.get(f"{url}/readyz", timeout=60).status_code == 200)
        yield started.pid, url


def memory_bytes(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        pytest.skip("the memory of a process is told by Linux only")
    return int(re.findall(rf"{name}:\s+(\d+) kB", status.read_text())[0]) * 1000


_ROW = b"0.0123456789, " * 127 + b"0.0123456789"
BODIES: dict[str, tuple[str, bytes]] = {
    "ones": ("/v1/embeddings", b'{"input": [' + b"1," * 2_500_000 + b"1]}"),
    "nulls": ("/v1/refine", b'{"modality": "text", "vectors": [' + b"null," * 500_000 + b"null]}"),
    "nulls in one vector": ("/v1/refine", b'{"modality": "text", "vectors": [[' + b"null," * 500_000 + b"null]]}"),
    "objects": ("/v1/explain", b'{"input": [' + b'{"":0},' * 300_000 + b"{}]}"),
    "words": ("/v1/explain", b'{"input": [{}],' + b",".join(b'"k%d":0' % n for n in range(300_000)) + b"}"),
    "lists": ("/vectorize", b'{"texts": [' + b"[0]," * 300_000 + b"[]]}"),
    "vectors": ("/v1/refine", b'{"modality": "text", "vectors": [' + b",".join([b"[%s]" % _ROW] * 5_000) + b"]}"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_few_megabytes_never_take_hundreds(running, name):
    pid, url = running
    path, body = BODIES[name]
    before = memory_bytes(pid, "VmHWM")
    answer = httpx.post(url + path, content=body, headers=JSON, timeout=300)
    assert answer.status_code in (400, 413), answer.text
    assert memory_bytes(pid, "VmHWM") - before < 300_000_000
    assert httpx.get(f"{url}/livez", timeout=60).status_code == 200


# --- over sockets -----------------------------------------------------------------------------------------------------


@contextmanager
def connected(url: str, *parts: bytes) -> Iterator[socket.socket]:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as made:
        for part in parts:
            made.sendall(part)
        yield made


def head(path: str, length: int) -> bytes:
    lines = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}"
    return f"{lines}\r\n\r\n".encode()


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("path", "key"), [("/v1/embeddings", "error"), ("/v2/embed", "message"), ("/v1/multimodalembeddings", "detail")]
)
def test_a_body_that_does_not_end_is_504_in_the_words_of_the_dialect(filled, live, path, key):
    with live(filled, deadline_s=0.3) as (url, server):
        with connected(url, head(path, 100_000), b"{") as slow:
            answer = slow.recv(65536)
        assert answer.startswith(b"HTTP/1.1 504")
        assert key in json.loads(answer.partition(b"\r\n\r\n")[2])
        wait_until(lambda: not server.config.app.state.shared.bytes.used)


def test_large_bodies_wait_for_room_and_small_ones_pass(filled, live):
    good = json.dumps(ONE).encode()
    with live(filled, max_pending_bytes=1_000_000) as (url, server), ThreadPoolExecutor(1) as callers:
        budget = server.config.app.state.shared.bytes
        with connected(url, head("/v1/explain", 600_000 + len(good)), b" " * 400_000) as first:
            wait_until(lambda: budget.used == 800_000)
            second = callers.submit(httpx.post, f"{url}/v1/explain", content=b" " * 400_000 + good, timeout=60)
            wait_until(lambda: len(server.server_state.tasks) == 2)
            assert httpx.post(f"{url}/v1/explain", content=good, headers=JSON).status_code == 200
            assert not second.done()
            first.sendall(b" " * 200_000 + good)  # more than there is room for: the oldest goes on
            assert first.recv(100).startswith(b"HTTP/1.1 200")
        assert second.result(60).status_code == 200
        wait_until(lambda: not budget.used)


def test_who_finds_no_room_within_the_deadline_is_told_so(filled, live):
    with live(filled, max_pending_bytes=1_000_000, deadline_s=0.5) as (url, server):
        asyncio.run(server.config.app.state.shared.bytes.hold("an older request", 900_000))
        late = httpx.post(f"{url}/v1/explain", content=b" " * 400_000, timeout=60)
        assert (late.status_code, late.json()["error"]["code"]) == (429, "too_many_bytes")
        assert late.headers["retry-after"]


def test_a_body_of_a_client_that_left_is_let_go(filled, live):
    with live(filled) as (url, server):
        state = server.config.app.state.shared
        with connected(url, head("/v1/explain", 400_000), b" " * 100_000):
            wait_until(lambda: state.bytes.used)
        wait_until(lambda: not state.bytes.used and not server.server_state.tasks)


def test_bodies_of_unknown_length_take_only_what_has_come(filled, live):
    chunked = head("/v1/explain", 0).replace(b"content-length: 0", b"transfer-encoding: chunked")
    with live(filled, max_pending_bytes=1_000_000, deadline_s=600) as (url, server), ExitStack() as endless:
        for _ in range(5):
            endless.enter_context(connected(url, chunked, b"1\r\n{\r\n"))
        wait_until(lambda: len(server.server_state.tasks) == 5)
        body = b" " * 100_000 + json.dumps(ONE).encode()
        assert httpx.post(f"{url}/v1/explain", content=body, headers=JSON, timeout=20).status_code == 200


@pytest.mark.parametrize("begun", [b"GET /livez HTTP/1.1\r\nx: ", b"GET /", b"POST / HTTP/1.1\r\na: b\r\n"])
def test_a_head_that_does_not_end_is_400_and_one_that_does_not_come_is_closed(filled, live, monkeypatch, begun):
    with live(filled) as (url, _), connected(url, begun, b"x" * (64_001 - len(begun))) as long:
        assert all_of(long).startswith(b"HTTP/1.1 400")
    monkeypatch.setattr("reco_plugin.serve.server._IDLE_S", 0.3)
    with live(filled) as (url, server):
        whole = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
        with connected(url) as silent, connected(url, begun) as slow, connected(url, whole) as second:
            answer = second.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200")
            if not answer.endswith(b"}"):  # head and body may come apart
                assert second.recv(65536).endswith(b"}")
            second.sendall(begun)
            assert [all_of(one) for one in (silent, slow, second)] == [b""] * 3
        wait_until(lambda: not server.server_state.connections)
