"""Bodies that are small and cost much, that never end, or that are too many at once."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from live_service import wait_until
from PIL import Image
from pydantic import BaseModel, ValidationError
from uvicorn.server import ServerState

from benchmarks.torture.costly import BODIES
from reco_plugin.serve.connections import make_protocol
from reco_plugin.serve.dialects.clip import VectorizeRequest
from reco_plugin.serve.dialects.cohere import CohereRequest
from reco_plugin.serve.dialects.openai import EmbeddingsRequest
from reco_plugin.serve.dialects.voyage import VoyageRequest
from reco_plugin.serve.failures import Refused
from reco_plugin.serve.life import Life, Lives
from reco_plugin.serve.memory import AddPairs
from reco_plugin.serve.refine import ExplainRequest, RefineRequest
from reco_plugin.serve.settings import ServeSettings
from reco_plugin.serve.wire import BodyRefused, look_at, parse

from .conftest import encoded, lead
from .test_core_run import process

JSON = {"content-type": "application/json"}
ONE = {"input": [{"text": "a red circle"}]}
LISTS: list[tuple[str, str, type[BaseModel]]] = [
    ("/v1/embeddings", "input", EmbeddingsRequest),
    ("/v1/multimodalembeddings", "inputs", VoyageRequest),
    ("/v2/embed", "texts", CohereRequest),
    ("/v2/embed", "images", CohereRequest),
    ("/v2/embed", "inputs", CohereRequest),
    ("/vectorize", "texts", VectorizeRequest),
    ("/vectorize", "images", VectorizeRequest),
    ("/v1/refine", "vectors", RefineRequest),
    ("/v1/explain", "input", ExplainRequest),
    ("/v1/memory/pairs", "pairs", AddPairs),
]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "clip", "input": ["data:image/png;base64,aGVsbG8="]}),
        ("/v1/multimodalembeddings", {"model": "clip", "inputs": [{"content": [{"type": "text", "text": " "}]}]}),
        ("/v2/embed", {"model": "clip", "input_type": "search_query", "images": ["aGVsbG8="]}),
        ("/v1/refine", {"modality": "image", "vectors": [[0.1, 0.2]]}),
        ("/v1/explain", {"input": [{"image": "aGVsbG8="}]}),
        ("/v1/scores", {"images": ["aGVsbG8="], "texts": ["a red circle"]}),
        ("/v1/memory/pairs", {"pairs": [{"id": "a", "image": "aGVsbG8=", "text": "a red circle"}]}),
        ("/v1/memory/search", {"input": {"image": "aGVsbG8="}}),
    ],
)
def test_what_was_sent_is_let_go_with_the_refusal_whether_or_not_python_looks_for_circles(reading, admin, path, body):
    gc.freeze()  # what was there before is not looked through: a million objects
    gc.disable()
    try:
        answer = reading.post(path, json=body, headers=admin)
        kept = [str(one) for one in gc.get_objects() if isinstance(one, Refused)]
    finally:
        gc.enable()
    assert answer.is_client_error
    assert not kept


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


@pytest.mark.parametrize("body", [b"[" + b"0," * 999 + b"0]", b'{"a": [{}, [], {"b": "c,d"}]}', b"3", b'"a, b: [c"'])
def test_values_are_never_counted_too_few(body):
    def count(value: Any) -> int:
        parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        return 1 + sum(map(count, parts))

    assert look_at(body)[0] >= count(json.loads(body))


def test_a_body_of_too_many_values_is_413_before_it_is_parsed(filled, served):
    with served(filled, max_body_values=50_000) as client:
        for item in (b"0", b"{}", b"[", b'"":0'):  # the last two are no JSON at all, which nobody has looked at yet
            body = b'{"input": [' + b",".join([item] * 60_000) + b"]}"
            answer = client.post("/v1/explain", content=body, headers=JSON)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
            assert "max_body_values" in answer.json()["error"]["message"]


def test_a_request_that_is_alone_always_fits_and_two_may_not():
    async def take() -> Lives:
        lives = Lives(ServeSettings(max_pending_bytes=100))

        async def first(life: Life) -> None:
            life.take(1000)
            with pytest.raises(BodyRefused, match="max_pending_bytes"):
                await lead(lives, second)

        async def second(life: Life) -> None:
            life.take(1)

        await lead(lives, first)
        return lives

    assert asyncio.run(take()).pending == 0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[tuple[int, str]]:
    """A service in a process of its own: its id and its URL."""
    with process(tmp_path_factory.mktemp("running"), model, "--memory", ":memory:") as (started, url):
        wait_until(lambda: started.poll() is not None or httpx.get(f"{url}/readyz", timeout=60).status_code == 200)
        yield started.pid, url


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        pytest.skip("the peak memory of a process is told by Linux only")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1000


@pytest.mark.parametrize("name", BODIES)
def test_a_few_megabytes_never_take_hundreds(running, name):
    pid, url = running
    path, body = BODIES[name]
    before = peak_bytes(pid)
    answer = httpx.post(url + path, content=body, headers=JSON, timeout=300)
    assert answer.status_code in (400, 413), answer.text
    assert peak_bytes(pid) - before < 300_000_000
    assert httpx.get(f"{url}/livez", timeout=60).status_code == 200


# --- clients that leave, over sockets ---------------------------------------------------------------------------------


def pending(url: str, what: str) -> float:
    return float(re.findall(rf"^reco_pending_{what} (\S+)", httpx.get(f"{url}/metrics", timeout=60).text, re.M)[0])


@pytest.mark.slow
def test_what_clients_that_left_had_sent_is_not_kept(tmp_path, model):
    budget = 64_000_000
    large = json.dumps({"input": [{"image": "QUJD" * 4_600_000}]}).encode()  # 18.4 MB
    slow = json.dumps({"input": [{"image": encoded(Image.new("1", (5000, 5000)))}] * 250}).encode()
    flags = ("--memory", ":memory:", "--threads", "1", "--max-pending-bytes", str(budget), "--deadline-s", "600")
    with process(tmp_path, model, *flags) as (started, url):
        wait_until(lambda: httpx.get(f"{url}/readyz", timeout=60).status_code == 200)
        with connected(url, head("/v1/explain", len(slow)) + slow):
            wait_until(lambda: pending(url, "embed") == 1)
            for client in range(13):
                if client == 1:
                    before = peak_bytes(started.pid)
                with connected(url, head("/v1/explain", len(large)) + large):
                    wait_until(lambda: pending(url, "embed") == 2)
                wait_until(lambda: pending(url, "embed") == 1)
            grown = peak_bytes(started.pid) - before
            assert grown < 2 * budget  # they sent 3.5 times as much


def test_what_a_call_still_works_on_stays_counted_when_its_client_has_left(blocked, live):
    body = json.dumps(ONE).encode() + b" " * 900_000
    with live(blocked.reco, threads=1, deadline_s=600) as (url, server):
        lives = server.config.app.state.edge.lives
        blocked.armed.set()
        with connected(url, head("/v1/explain", len(body)) + body):
            assert blocked.reached.acquire(timeout=60)
        wait_until(lambda: not server.server_state.connections)
        assert lives.pending >= 900_000
        blocked.go.set()
        wait_until(lambda: lives.pending == 0)


# --- slow clients, over sockets --------------------------------------------------------------------------------------


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


def test_past_the_time_to_stop_a_body_that_does_not_end_is_503(filled, live):
    """It was 500 with a trace in the log: the rest was waited for, and the server does not wait for that."""
    with live(filled, shutdown_s=1) as (url, server), connected(url, head("/v1/explain", 9), b"{") as begun:
        wait_until(lambda: server.server_state.tasks)
        server.should_exit = True
        answer = all_of(begun)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"stopping" in answer


def test_a_head_that_does_not_end_closes_the_connection(filled, live):
    with (
        live(filled, head_timeout_s=0.3) as (url, _),
        connected(url) as silent,
        connected(url, b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ") as begun,
        connected(url, head("/v1/explain", 2) + b"{}", b"GET /livez HT") as second,
    ):
        assert all_of(silent) == b""
        assert all_of(begun) == b""
        assert all_of(second).count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("path", "key"), [("/v1/embeddings", "error"), ("/v2/embed", "message"), ("/v1/multimodalembeddings", "detail")]
)
def test_a_body_that_does_not_end_is_408_in_the_words_of_the_dialect(filled, live, path, key):
    with live(filled, body_timeout_s=0.3) as (url, server):
        with connected(url, head(path, 1000), b"{") as slow:
            answer = all_of(slow)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer
        assert key in json.loads(answer.partition(b"\r\n\r\n")[2])
        assert server.config.app.state.edge.lives.pending == 0


def test_a_body_that_nobody_reads_is_not_waited_for_either(filled, live):
    with live(filled, body_timeout_s=0.3) as (url, _), connected(url, head("/nowhere", 1000), b"{") as slow:
        assert all_of(slow).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    ("path", "length", "status"), [("/nowhere", 20_000_000, 404), ("/v1/explain", 40_000_000, 413)]
)
def test_a_refusal_arrives_though_the_body_was_not_wanted(filled, live, path, length, status):
    closing = head(path, length).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    with live(filled) as (url, _), connected(url, closing + b" " * length) as whole:
        assert all_of(whole).startswith(b"HTTP/1.1 %d" % status)


def test_a_head_may_come_in_parts_and_may_not_be_endless(filled, live):
    live_ = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    with live(filled) as (url, _):
        for parts in ([live_, b"\r\n"], [live_ + b"\r", b"\n"], [live_[:5], live_[5:] + b"\r\n"]):
            with connected(url, *parts) as slow:
                assert all_of(slow).startswith(b"HTTP/1.1 200")
        for long in (b"x: " + b"y" * 20_000, b"x: y\r\n" * 4_000):
            for end in (b"", b"\r\n\r\n"):
                with connected(url, live_ + long + end) as large:
                    assert all_of(large).startswith(b"HTTP/1.1 400")
            with connected(url, b"\r\n\r\n" + live_ + long + b"\r\n\r\n") as hidden:
                assert all_of(hidden).startswith(b"HTTP/1.1 400")
        assert httpx.get(f"{url}/livez").status_code == 200


def test_a_trailer_may_not_be_endless_either(filled, live):
    with live(filled, body_timeout_s=0.3) as (url, _):
        trailer = b"2\r\n{}\r\n0\r\nx: " + b"y" * 20_000
        with connected(
            url, head("/nowhere", 0).replace(b"content-length: 0", b"transfer-encoding: chunked")
        ) as endless:
            endless.sendall(trailer)
            assert b"HTTP/1.1 " in all_of(endless)
        assert httpx.get(f"{url}/livez").status_code == 200


def test_an_offer_of_http_2_in_a_head_of_parts_loses_no_body(filled, live):
    body = json.dumps(ONE).encode()
    offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nHTTP2-Settings: AAEA\r\n"
    whole = head("/v1/explain", len(body)).replace(b"\r\n\r\n", b"\r\n" + offer + b"\r\n") + body
    with live(filled) as (url, _):
        for cut in (30, len(whole) - len(body) - 30, len(whole) - len(body) - 1, len(whole) - 3):
            with connected(url) as client:
                client.sendall(whole[:cut])
                time.sleep(0.02)
                client.sendall(whole[cut:])
                assert client.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("length", [5, 10_000])
def test_a_body_with_two_lengths_is_the_last_of_its_connection(filled, live, length):
    """Where its end is, a proxy before may see otherwise: what follows would be answered to the wrong caller."""
    body = b"2\r\n{}\r\n0\r\n\r\n"
    both = head("/v1/explain", length).replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n")
    second = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with live(filled) as (url, _), connected(url, both + body + second) as sent:
        answer = all_of(sent)
    assert answer.count(b"HTTP/1.1") == 1 and b"connection: close" in answer


def test_empty_lines_after_an_answer_do_not_hold_a_connection(filled, live):
    live_ = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with live(filled, head_timeout_s=0.3) as (url, _), connected(url, live_) as kept:
        assert kept.recv(12) == b"HTTP/1.1 200"
        kept.sendall(b"\r\n\r\n")
        all_of(kept)  # in vain, if it were never closed


def test_requests_that_are_sent_far_ahead_are_not_all_kept(filled, live):
    with (
        live(filled) as (url, _),
        connected(url, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2000) as ahead,
    ):
        with suppress(ConnectionError):  # it closes while more is on its way
            assert 1 <= all_of(ahead).count(b"HTTP/1.1 200") <= 65
        assert httpx.get(f"{url}/livez").status_code == 200


def test_heads_that_two_programs_may_read_in_two_ways_are_refused_and_trailers_are_no_headers(filled, live):
    plain = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"
    chunked = b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    with live(filled) as (url, _):
        for odd in (b"transfer-encoding: identity", b"transfer-encoding: gzip, chunked", b"host: elsewhere"):
            with connected(url, plain + odd + b"\r\n\r\n") as refused:
                assert all_of(refused).startswith(b"HTTP/1.1 400")
        with connected(url, b"CONNECT /livez HTTP/1.1\r\nhost: localhost\r\n\r\n" + plain + b"\r\n") as other:
            assert all_of(other).count(b"HTTP/1.1 405") == 1
        with connected(url, chunked, b"x-request-id: late\r\n\r\n" + plain + b"connection: close\r\n\r\n") as sent:
            answers = all_of(sent)
    assert answers.count(b"HTTP/1.1") == 2 and b"late" not in answers


def test_a_client_that_asks_first_is_refused_before_it_sends(filled, live):
    asking = head("/nowhere", 20_000_000).replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n")
    with live(filled) as (url, _), connected(url, asking) as client:
        assert all_of(client).startswith(b"HTTP/1.1 404")


def test_an_answer_that_is_not_taken_is_dropped(filled, live):
    vectors = filled.embed_texts(["a red circle"], refine=False).tolist() * 256
    body = json.dumps({"modality": "text", "vectors": vectors, "explain": True}).encode()
    with live(filled, body_timeout_s=0.5) as (url, server):
        with connected(url) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                for _ in range(50):  # answers of 2 MB each, until all buffers are full
                    deaf.sendall(head("/v1/refine", len(body)) + body)
            except ConnectionError:
                pass
            wait_until(lambda: not server.server_state.connections)
        assert httpx.get(f"{url}/livez").status_code == 200


def test_an_answer_that_is_taken_too_slowly_is_dropped(filled, live):
    vectors = filled.embed_texts(["a red circle"], refine=False).tolist() * 2000
    body = json.dumps({"modality": "text", "vectors": vectors, "explain": True}).encode()
    with live(filled, body_timeout_s=1.5) as (url, server), connected(url) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
        slow.sendall(head("/v1/refine", len(body)) + body)
        taken = len(slow.recv(1))
        with suppress(ConnectionError):
            while server.server_state.connections and taken < 15_000_000:  # of 17 MB
                taken += len(slow.recv(40_000))
                time.sleep(0.01)
        assert taken < 15_000_000


@pytest.mark.parametrize("close", [b"", b"connection: close\r\n"])
def test_the_rest_of_an_answer_that_is_not_taken_holds_no_connection(close):
    """It was closed, which waited for ever, where so little was left that nothing had to wait to write it."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"50000")]})
        await send({"type": "http.response.body", "body": b"x" * 50_000})

    async def run() -> None:
        settings, state, gone = ServeSettings(head_timeout_s=0.1, body_timeout_s=0.1), ServerState(), asyncio.Event()
        kind = make_protocol(settings)

        class Ending(kind):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                gone.set()

        config = uvicorn.Config(application, http=Ending, timeout_keep_alive=0, log_config=None, access_log=False)
        with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            make = partial(Ending, config=config, server_state=state, app_state={})
            async with await asyncio.get_running_loop().create_server(make, sock=listening):
                client.connect(listening.getsockname())
                client.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n" + close + b"\r\n")
                await asyncio.wait_for(gone.wait(), 30)
        assert not state.connections

    asyncio.run(run())


def test_connections_are_bounded_and_probes_are_answered(filled, live, monkeypatch):
    with live(filled, max_connections=2, head_timeout_s=60) as (url, server):
        with connected(url), connected(url):
            wait_until(lambda: len(server.server_state.connections) >= 2)
            refused = httpx.post(f"{url}/v1/explain", json=ONE)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_connections")
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["x-amzn-errortype"] == "ThrottlingException"
            assert httpx.get(f"{url}/livez").status_code == 200
            monkeypatch.setattr("reco_plugin.serve.connections.PROBE_CONNECTIONS", 0)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{url}/livez")
        wait_until(lambda: not server.server_state.connections)
        assert httpx.get(f"{url}/livez").status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n",
    ],
    ids=["nothing", "half a head", "one probe", "half a body"],
)
def test_probes_are_answered_however_many_connections_stay_open(filled, live, monkeypatch, sent):
    """Those beyond the limit that said nothing, or half of a head, kept the places of probes for `head_timeout_s`."""
    monkeypatch.setattr("reco_plugin.serve.connections.PROBE_CONNECTIONS", 2)
    limits = {"max_connections": 2, "head_timeout_s": 60, "body_timeout_s": 60}
    with live(filled, **limits) as (url, server), ExitStack() as held:
        state = server.server_state
        first, _ = [held.enter_context(connected(url)) for _ in range(2)]
        wait_until(lambda: len(state.connections) == 2)
        for _ in range(3):
            held.enter_context(connected(url, sent))
            assert httpx.get(f"{url}/livez").status_code == 200
        first.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")  # within the limit, it keeps its place
        assert first.recv(100).startswith(b"HTTP/1.1 200")


def test_a_probe_beyond_the_limit_may_come_in_pieces_and_its_connection_closes(filled, live):
    with live(filled, max_connections=1) as (url, server), connected(url):
        wait_until(lambda: server.server_state.connections)
        with connected(url, b"GE") as probe, connected(url, b"GET /v1/mod") as other:
            wait_until(lambda: len(server.server_state.connections) == 2)  # the other is refused
            assert all_of(other).startswith(b"HTTP/1.1 503")
            probe.sendall(b"T /livez HTTP/1.1\r\nhost: loc")
            wait_until(lambda: any(one._begun.endswith(b"loc") for one in server.server_state.connections))
            probe.sendall(b"alhost\r\n\r\n")
            answer = all_of(probe)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close\r\n" in answer


def test_an_idle_connection_is_kept_longer_than_pools_keep_theirs_while_there_is_room(filled, live):
    with live(filled, max_connections=4) as (url, server), ExitStack() as stack:
        for kept_s in ([75], [75, 75], [5, 75, 75]):
            stack.enter_context(httpx.Client()).get(f"{url}/livez")
            wait_until(lambda wanted=kept_s: _kept(server) == wanted)


def _kept(server: uvicorn.Server) -> list[float]:
    """How long each connection without a request is kept."""
    idle = [one for one in server.server_state.connections if one.timeout_keep_alive_task]
    return sorted(one.timeout_keep_alive for one in idle)


def test_what_bodies_take_together_is_bounded_and_given_back(filled, live):
    """Large ones wait, unread, until there is room: who sends nothing twice loses nothing."""
    good = json.dumps(ONE).encode()
    spaced = b" " * 200_000 + good
    with live(filled, max_pending_bytes=1_000_000) as (url, server), ThreadPoolExecutor(3) as callers:
        lives = server.config.app.state.edge.lives
        with connected(url, head("/v1/explain", 900_000 + len(good)), b" " * 900_000) as first:
            wait_until(lambda: lives.pending >= 700_000)
            waiting = [callers.submit(httpx.post, f"{url}/v1/explain", content=spaced, headers=JSON) for _ in range(3)]
            small = httpx.post(f"{url}/v1/explain", content=good, headers=JSON)
            assert small.status_code == 200  # which waits for no large one
            assert lives.pending < 1_000_000
            assert not any(one.done() for one in waiting)
            first.sendall(good)
            assert first.recv(100).startswith(b"HTTP/1.1 200")
        assert [one.result(60).status_code for one in waiting] == [200] * 3
        wait_until(lambda: not lives.pending)


def test_a_large_body_that_finds_no_room_within_the_deadline_is_429(filled, live):
    spaced = b" " * 200_000 + json.dumps(ONE).encode()
    with live(filled, max_pending_bytes=1_000_000, deadline_s=0.3) as (url, server):
        lives = server.config.app.state.edge.lives
        with connected(url, head("/v1/explain", 900_000), b" " * 100_000):
            wait_until(lambda: lives.pending >= 700_000)
            refused = httpx.post(f"{url}/v1/explain", content=spaced, headers=JSON)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_bytes")
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["x-amzn-errortype"] == "ThrottlingException"
        wait_until(lambda: not lives.pending)
        assert httpx.post(f"{url}/v1/explain", content=spaced, headers=JSON).status_code == 200


def test_a_client_that_leaves_while_its_body_waits_is_let_go(filled, live):
    good = json.dumps(ONE).encode()
    with live(filled, max_pending_bytes=1_000_000) as (url, server):
        lives = server.config.app.state.edge.lives
        with connected(url, head("/v1/explain", 900_000 + len(good)), b" " * 900_000) as first:
            wait_until(lambda: lives.pending >= 700_000)
            for sent in (100_000, 10_000):  # of the first, nothing more is read
                with connected(url, head("/v1/explain", 300_000), b" " * sent):
                    wait_until(lambda: len(server.server_state.tasks) == 2)
                wait_until(lambda: len(server.server_state.tasks) == 1)  # at once, and not at its turn
            first.sendall(good)
            assert first.recv(100).startswith(b"HTTP/1.1 200")
        wait_until(lambda: not lives.pending and not server.server_state.tasks)


def test_a_large_body_whose_length_is_not_told_waits_too(filled, live):
    good = json.dumps(ONE).encode()
    with live(filled, max_pending_bytes=1_000_000, max_body_bytes=1_000_000) as (url, server), ExitStack() as held:
        lives, port = server.config.app.state.edge.lives, int(url.rpartition(":")[2])
        first = held.enter_context(connected(url, head("/v1/explain", 300_000 + len(good)), b" " * 300_000))
        wait_until(lambda: lives.pending >= 600_000)
        second = held.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)))
        second.request("POST", "/v1/explain", iter([b" " * 50_000] * 8 + [good]), encode_chunked=True)
        wait_until(lambda: len(server.server_state.tasks) == 2 and lives.pending > 650_000)
        assert lives.pending < 750_000  # not all of it is read
        first.sendall(good)
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        assert second.getresponse().status == 200
        wait_until(lambda: not lives.pending)


def test_a_body_that_is_refused_holds_nothing_while_its_rest_is_dropped(filled, live, monkeypatch):
    """A chunked one kept the room of two of the largest, until its client had sent all or was given up."""
    monkeypatch.setattr("reco_plugin.serve.life._LINGER_S", 60.0)
    chunked = b"POST /v1/explain HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    with live(filled, max_pending_bytes=1_000_000, max_body_bytes=200_000) as (url, server):
        lives = server.config.app.state.edge.lives
        with connected(url, chunked, b"186a0\r\n%b\r\n" % (b" " * 100_000)) as refused:
            wait_until(lambda: lives.pending >= 400_000)
            refused.sendall(b"30d40\r\n%b\r\n" % (b" " * 200_000))
            wait_until(lambda: not lives.pending)
            assert len(server.server_state.tasks) == 1  # which drops
            refused.sendall(b"0\r\n\r\n")
            assert refused.recv(100).startswith(b"HTTP/1.1 413")
        wait_until(lambda: not server.server_state.tasks)
        assert lives.pending == 0


def test_a_title_in_another_script_does_not_count_its_picture_four_times():
    body = json.dumps({"input": [{"text": "grün 狐", "image": "QUJD" * 100_000}]}, ensure_ascii=False).encode()

    taken = []

    async def read(life: Life) -> None:
        assert await parse(body, life) == json.loads(body)
        taken.append(life.bytes)

    async def alone() -> None:
        await lead(Lives(ServeSettings()), read)

    asyncio.run(alone())
    assert len(body) < taken[0] < 1.2 * len(body)


def test_a_large_body_of_a_client_that_left_is_not_parsed():
    async def read(life: Life) -> None:
        with pytest.raises(Refused, match="closed the connection"):  # and not that this is no JSON
            await parse(b"[" + b"0," * 100_000, life)

    async def left() -> None:
        return None

    async def alone() -> None:
        await lead(Lives(ServeSettings()), read, left)

    asyncio.run(alone())


def test_a_client_that_leaves_before_its_body_is_parsed_holds_nothing():
    body = b"[" + b"0.5," * 200_000 + b"0]"

    async def read(life: Life) -> None:
        life.take(len(body))
        with pytest.raises(Refused, match="closed the connection"):
            await parse(body, life)

    async def left() -> None:
        await asyncio.sleep(0.01)

    async def behind_another() -> None:
        lives = Lives(ServeSettings())
        async with lives.turn:
            await lead(lives, read, left)
            assert not lives.pending
        async with asyncio.timeout(60), lives.turn:  # nobody has it
            pass

    asyncio.run(behind_another())


def test_bodies_are_read_one_at_a_time_and_the_loop_goes_on():
    async def read() -> list[str]:
        lives, order = Lives(ServeSettings()), list[str]()

        async def read(life: Life) -> None:
            assert len(await parse(b"[" + b"0.5," * 200_000 + b"0]", life)) == 200_001

        async def one(name: str) -> None:
            await lead(lives, read)
            order.append(name)

        async def other() -> None:
            await asyncio.sleep(0)
            order.append("other")

        await asyncio.gather(one("a"), one("b"), other())
        return order

    assert asyncio.run(read()) == ["other", "a", "b"]
