"""What is answered at the door is what the application answers: probes, and refusals while the queue is full."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import socket
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from live_service import wait_until
from starlette.types import Scope
from uvicorn.server import ServerState

from reco_plugin.serve.app import create_app
from reco_plugin.serve.connections import make_protocol
from reco_plugin.serve.door import Door, DoorAnswer
from reco_plugin.serve.life import Life
from reco_plugin.serve.logs import LOGGER
from reco_plugin.serve.settings import ServeSettings

REFUSED = ("/v1/explain", "/v1/embeddings", "/refined/v1/embeddings", "//v1/v1/embeddings/", "/v2/embed", "/titan")
ONE = {"input": [{"text": "a"}]}
PAST = {"origin": "http://elsewhere"}  # a header that no door looks through; nothing answers it otherwise here


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The statuses that the door answers, None where it lets a request pass."""
    seen, answer = list[int | None](), Door.answer

    def note(door: Door, scope: Scope) -> DoorAnswer | None:
        found = answer(door, scope)
        seen.append(found and found.status)
        return found

    monkeypatch.setattr(Door, "answer", note)
    return seen


def told(answer: httpx.Response) -> tuple[object, ...]:
    """An answer, but for what differs between any two."""
    fields = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    return answer.status_code, fields, answer.content


def request(path: str, field: str = "authorization: Bearer key", body: bytes = json.dumps(ONE).encode()) -> bytes:
    fields = f"host: localhost\r\n{field}\r\ncontent-type: application/json\r\nconnection: close"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def post_at_once(url: str, path: str) -> httpx.Response:
    """A request of one piece, as no client promises: a body that comes later is none that the door can answer."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as line:
        line.sendall(request(path))
        got = b""
        while part := line.recv(1 << 16):
            got += part
    return read(got)


def read(got: bytes) -> httpx.Response:
    """An answer as it came, but that it closes the connection."""
    head, _, content = got.partition(b"\r\n\r\n")
    status, *rows = head.split(b"\r\n")
    named = [(name, value) for name, _, value in (row.partition(b": ") for row in rows)]
    return httpx.Response(
        int(status.split()[1]), headers=[one for one in named if one[0] != b"connection"], content=content
    )


def before_a_connection(server: uvicorn.Server, begun: bytes, waiting: int = 1) -> bytes | None:
    """What a request is answered before a connection is made for it."""
    protocol: Any = server.config.http_protocol_class
    found = protocol.answer_at_once(begun, waiting, server.server_state)
    assert found is None or isinstance(found, bytes)
    return found


def counted(url: str) -> dict[str, float]:
    rows = re.findall(r"^reco_http_requests_total\{(.*)\} (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return {labels: float(count) for labels, count in rows}


def test_a_probe_is_answered_and_counted_as_the_application_does(filled, live, said):
    with live(filled) as (url, server):
        for path in ("/livez", "/readyz", "/health", "/ping", "/v1/health/live", "/v1/health/ready"):
            at_door = httpx.get(url + path)
            before = counted(url)
            said[1:] = []  # without asking for metrics
            assert told(at_door) == told(httpx.get(url + path, headers=PAST))
            assert said == [200, None]
            assert at_door.status_code == 200
            at_once = before_a_connection(server, f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            assert at_once is not None and told(read(at_once)) == told(at_door)
            row = f'route="{path}",status="200"'
            assert (before[row], counted(url)[row]) == (1.0, 3.0)
            said.clear()
        path = "/livez"
        assert httpx.get(url + path, headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
        assert httpx.get(url + path, headers={"connection": "close"}).headers["connection"] == "close"


def test_a_full_queue_refuses_at_the_door_as_the_application_does(blocked, live, said):
    with live(blocked.reco, threads=1, queue=1, api_keys=["key"]) as (url, server), ThreadPoolExecutor(8) as callers:
        key = {"authorization": "Bearer key"}
        blocked.armed.set()
        pool = server.config.app.state.edge.pool
        waiting = [callers.submit(httpx.post, f"{url}/v1/explain", json=ONE, headers=key) for _ in range(2)]
        assert blocked.reached.acquire(timeout=60)
        wait_until(lambda: pool.pending == 2 or waiting[0].done())
        for path in REFUSED:
            said.clear()
            at_door = post_at_once(url, path)
            assert (at_door.status_code, said) == (429, [429])
            assert told(at_door) == told(httpx.post(url + path, json=ONE, headers=key | PAST))
            at_once = before_a_connection(server, request(path))
            assert at_once is not None and told(read(at_once)) == told(at_door)
            assert httpx.post(url + path, json=ONE).status_code == 401  # who has no key is not told how it is here
            assert before_a_connection(server, request(path, "x-nothing: 1")) is None
        assert sum(count for row, count in counted(url).items() if row.endswith('status="429"')) == 3 * len(REFUSED)
        assert httpx.post(f"{url}/nothing", json=ONE, headers=key).status_code == 404
        blocked.go.set()
        assert {one.result(60).status_code for one in waiting} == {200}


UNCLEAR = {
    "two hosts": request("/v1/explain", "host: elsewhere"),
    "chunks": request("/v1/explain", "transfer-encoding: chunked", b"0\r\n\r\n").replace(b"content-length: 5\r\n", b""),
    "a client that asks first": request("/v1/explain", "expect: 100-continue"),
    "another protocol": request("/v1/explain", "upgrade: h2c").replace(b"connection: close", b"connection: upgrade"),
    "two lengths": request("/v1/explain", "content-length: 3"),
    "half of a body": request("/v1/explain")[:-1],
    "half of a head": request("/v1/explain")[:30],
    "another one behind it": request("/v1/explain").replace(b"connection: close", b"a: b") * 2,
    "half of a head behind it": request("/v1/explain?", body=b"").replace(b"connection: close", b"a: b")
    + b"POST /v1/refine HTTP/1.1\r\nauthorization: Bearer key\r\n",
    "a method behind it": b"POST /livez HTTP/1.1\r\nhost: localhost\r\n\r\nGET ",
    "a URL without a path": request("http://localhost"),
    "a path in other words": request("/v1/expl%61in"),
    "what asks a memory": request("/v1/memory/pairs"),
    "another site": request("/v1/explain", "origin: http://elsewhere"),
    "no HTTP": b"\x16\x03\x01" * 9,
}
"""Requests that get no answer before a connection is made for them."""


def test_what_is_unclear_gets_a_connection_and_so_does_a_probe_where_there_are_too_many(blocked, live):
    with live(blocked.reco, threads=1, queue=1, max_connections=3) as (url, server), ThreadPoolExecutor(2) as callers:
        assert before_a_connection(server, request("/v1/explain")) is None  # it would be answered
        blocked.armed.set()
        pool = server.config.app.state.edge.pool
        waiting = [callers.submit(httpx.post, f"{url}/v1/explain", json=ONE) for _ in range(2)]
        wait_until(lambda: pool.pending == 2 or waiting[0].done())
        assert before_a_connection(server, request("/v1/explain")) is not None
        for name, begun in UNCLEAR.items():
            assert before_a_connection(server, begun) is None, name
            beyond = before_a_connection(server, begun, waiting=9)
            assert beyond is not None and read(beyond).status_code == 503, name
        for begun in (
            b"G",
            b"GET /liv",
            b"GET /livez HTTP/1.1\r\n",
            b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ):
            assert before_a_connection(server, begun, waiting=9) is None
        blocked.go.set()
        assert {one.result(60).status_code for one in waiting} == {200}


def test_a_probe_behind_a_proxy_is_one(filled, live, caplog):
    """Its root_path made a request of it: logged, waited for at the end, and not answered at the door."""
    caplog.set_level(logging.DEBUG, LOGGER)
    with live(filled, root_path="/clip", cors_origins=["https://shop.example"]) as (url, server):
        for path in ("/livez", "/readyz"):
            at_door, usual = httpx.get(url + path), httpx.head(url + path)  # which the application answers
            assert told(at_door)[:2] == told(usual)[:2]
            assert at_door.headers["vary"] == "Origin"
        scope = {"method": "GET", "path": "/clip/livez", "root_path": "/clip", "headers": []}
        assert server.config.app.state.door.answer(scope).status == 200
        assert server.config.http_protocol_class.service.asked_at < 0
    seen = [one.levelname for one in caplog.records if getattr(one, "path", "").startswith("/clip/")]
    assert seen == ["DEBUG"] * 5


def test_an_answer_that_may_be_compressed_goes_the_usual_way(filled):
    app = create_app(ServeSettings(page=False, gzip_bytes=40), filled)
    scope = {"method": "GET", "headers": [(b"accept-encoding", b"gzip")]}
    assert app.state.door.answer(scope | {"path": "/readyz"}) is None
    assert app.state.door.answer(scope | {"path": "/livez"}).status == 200  # of 17 bytes


def test_an_unknown_host_is_refused_at_probes_too(filled):
    app = create_app(ServeSettings(page=False), filled, ["shop.example"])
    scope = {"method": "GET", "path": "/livez", "headers": [(b"host", b"evil.example")]}
    assert app.state.door.answer(scope) is None
    assert app.state.door.answer(scope | {"headers": [(b"host", b"shop.example")]}).status == 200


def test_requests_that_are_sent_ahead_are_answered_in_their_order(filled, live):
    with live(filled) as (url, _):
        ask, last = b"GET %s HTTP/1.1\r\nhost: localhost\r\n\r\n", b"GET /livez HTTP/1.0\r\n\r\n"
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as line:
            line.sendall(b"".join(ask % path for path in (b"/livez", b"/v1/models", b"/readyz", b"/livez")) + last)
            got = b""
            while part := line.recv(1 << 16):
                got += part
    assert re.findall(rb'"status": ?"(\w+)"|"object": ?"(list)"', got) == [
        (b"live", b""),
        (b"", b"list"),
        (b"ready", b""),
        (b"live", b""),
        (b"live", b""),
    ]
    assert got.count(b"HTTP/1.1 200 OK") == 5
    assert got.count(b"connection: close") == 1


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"socket": None})
        self.written, self.closed = b"", False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def connected(app: FastAPI, settings: ServeSettings) -> tuple[Any, Wire]:
    config, wire = uvicorn.Config(app, http=make_protocol(settings, app.state.door), log_config=None), Wire()
    config.load()
    connection: Any = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})
    connection.connection_made(wire)
    return connection, wire


def test_a_probe_waits_for_no_other_turn_of_the_loop(filled):
    async def ask() -> bytes:
        connection, wire = await connected(create_app(settings, filled), settings)
        connection.data_received(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert wire.closed
        connection.connection_lost(None)
        return wire.written

    settings = ServeSettings(page=False)
    assert asyncio.run(ask()).endswith(b'\r\n\r\n{"status":"live"}')


def test_a_client_that_takes_no_answers_gets_no_more_of_them(filled):
    """Else they would fill the memory for as long as it asks."""

    async def ask() -> tuple[int, int]:
        connection, wire = await connected(create_app(settings, filled), settings)
        connection.pause_writing()
        for _ in range(3):
            connection.data_received(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            await asyncio.sleep(0)
        before = wire.written.count(b"HTTP/1.1 200")
        connection.resume_writing()
        for _ in range(100):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        return before, wire.written.count(b"HTTP/1.1 200")

    settings = ServeSettings(page=False)
    assert asyncio.run(ask()) == (0, 3)


def test_a_kept_connection_keeps_no_body_that_was_refused(filled):
    """Up to 256 KB each, that nobody counted, until its next request."""

    async def ask() -> tuple[bytes, bytes]:
        app = create_app(settings, filled)
        await app.state.edge.pool.close()
        connection, wire = await connected(app, settings)
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50000\r\n\r\n"
        connection.data_received(head + b"x" * 50_000)
        kept = bytes(connection.cycle.body)
        connection.connection_lost(None)
        return wire.written[:12], kept

    settings = ServeSettings(page=False)
    assert asyncio.run(ask()) == (b"HTTP/1.1 503", b"")


def test_nothing_of_a_request_or_a_connection_is_left_to_the_collector(filled, live, monkeypatch):
    """It looks rarely; what it frees late of connections that were kept long adds up."""
    made, seen, begin = weakref.WeakSet[Life](), list[str](), Life.__init__

    def note(life: Life, *given: Any) -> None:
        begin(life, *given)
        made.add(life)
        seen.append(life.id)

    monkeypatch.setattr(Life, "__init__", note)
    with live(filled) as (url, server):
        gc.disable()
        try:
            with httpx.Client(base_url=url) as client:
                assert client.post("/v1/embeddings", json={"model": "clip", "input": ["a"]}).status_code == 200
                assert client.get("/nothing").status_code == 404
                assert client.get("/livez").status_code == 200
                connections = weakref.WeakSet[Any](server.server_state.connections)
                assert len(connections) == 1
            assert len(seen) == 2
            wait_until(lambda: not made and not connections, patience_s=5)
        finally:
            gc.enable()
