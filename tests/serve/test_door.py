"""What is answered at the door is what the application answers: probes, and refusals while the queue is full."""

from __future__ import annotations

import asyncio
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import uvicorn
from live_service import wait_until
from uvicorn.server import ServerState

from reco_plugin.serve.app import create_app
from reco_plugin.serve.connections import make_protocol
from reco_plugin.serve.settings import ServeSettings

REFUSED = ("/v1/explain", "/v1/embeddings", "/refined/v1/embeddings", "//v1/v1/embeddings/", "/v2/embed", "/titan")
ONE = {"input": [{"text": "a"}]}
PAST = {"origin": "http://elsewhere"}  # a header that no door looks through; nothing answers it otherwise here


def told(answer: httpx.Response) -> tuple[object, ...]:
    """An answer, but for what differs between any two."""
    fields = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    return answer.status_code, fields, answer.content


def counted(url: str) -> dict[str, float]:
    rows = re.findall(r"^reco_http_requests_total\{(.*)\} (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return {labels: float(count) for labels, count in rows}


def test_a_probe_is_answered_and_counted_as_the_application_does(filled, live):
    with live(filled) as (url, _):
        for path in ("/livez", "/readyz", "/health", "/ping", "/v1/health/live", "/v1/health/ready"):
            at_door = httpx.get(url + path)
            before = counted(url)
            assert told(at_door) == told(httpx.get(url + path, headers=PAST))
            assert at_door.status_code == 200
            row = f'route="{path}",status="200"'
            assert (before[row], counted(url)[row]) == (1.0, 2.0)
        path = "/livez"
        assert httpx.get(url + path, headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
        assert httpx.get(url + path, headers={"connection": "close"}).headers["connection"] == "close"


def test_a_full_queue_refuses_at_the_door_as_the_application_does(blocked, live):
    with live(blocked.reco, threads=1, queue=1, api_keys=["key"]) as (url, server), ThreadPoolExecutor(8) as callers:
        key = {"authorization": "Bearer key"}
        blocked.armed.set()
        pool = server.config.app.state.edge.pool
        waiting = [callers.submit(httpx.post, f"{url}/v1/explain", json=ONE, headers=key) for _ in range(2)]
        assert blocked.reached.acquire(timeout=60)
        wait_until(lambda: pool.pending == 2 or waiting[0].done())
        for path in REFUSED:
            at_door = httpx.post(url + path, json=ONE, headers=key)
            assert told(at_door) == told(httpx.post(url + path, json=ONE, headers=key | PAST))
            assert at_door.status_code == 429
            assert httpx.post(url + path, json=ONE).status_code == 401  # who has no key is not told how it is here
        assert sum(count for row, count in counted(url).items() if row.endswith('status="429"')) == 2 * len(REFUSED)
        assert httpx.post(f"{url}/nothing", json=ONE, headers=key).status_code == 404
        blocked.go.set()
        assert {one.result(60).status_code for one in waiting} == {200}


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

    def resume_reading(self) -> None:
        pass


def test_a_probe_waits_for_no_other_turn_of_the_loop(filled):
    async def ask() -> bytes:
        settings, wire = ServeSettings(page=False), Wire()
        app = create_app(settings, filled)
        config = uvicorn.Config(app, http=make_protocol(settings, app.state.door), log_config=None)
        config.load()
        connection = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})
        connection.connection_made(wire)
        connection.data_received(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert wire.closed
        connection.connection_lost(None)
        return wire.written

    assert asyncio.run(ask()).endswith(b'\r\n\r\n{"status":"live"}')
