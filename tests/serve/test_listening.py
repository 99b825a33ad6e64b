"""Connections that wait together are taken together, and what can be answered at once waits for no other."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest

from reco_plugin.serve import listening
from reco_plugin.serve.listening import MOST_WAITING, Arrivals

from .test_core_run import process
from .test_stopping import ready

CLIENTS, BACKLOG = 40, 2 * MOST_WAITING
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="takes connections with the loop alone")


class Made(asyncio.Protocol):
    """A connection that stays open, and is counted; it answers nothing."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Made.count += 1


def runs() -> list[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """asyncio's own loop, and uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows
        return [asyncio.run]
    return [asyncio.run, uvloop.run]


def nothing(begun: bytes, waiting: int) -> None:
    return None


async def listen(
    then: Callable[[list[asyncio.Server], Arrivals, Callable[[], socket.socket]], Awaitable[Any]],
    answer: Callable[[bytes, int], bytes | None] = nothing,
) -> Any:
    """What a function returns of servers that listen, of what takes their connections, and of how a client connects."""
    Made.count = 0
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening, ExitStack() as clients:
        listening.setblocking(False)
        address = listening.getsockname()
        servers = [await asyncio.get_running_loop().create_server(Made, sock=listening, backlog=BACKLOG)]
        arrivals = Arrivals(Made, answer)
        servers += await arrivals.take_from(servers, BACKLOG)
        try:
            return await then(servers, arrivals, lambda: clients.enter_context(socket.create_connection(address)))
        finally:
            await arrivals.end(servers)
            for server in servers:
                server.close()


async def turns_until(done: Callable[[], bool], most: int = 1_000) -> int:
    """Turns of the loop until something is true."""
    for turn in range(most):
        if done():
            return turn
        await asyncio.sleep(0)
    raise AssertionError


@pytest.mark.parametrize("run", runs())
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_burst_of_connections_is_taken_in_a_few_turns(run, elsewhere, monkeypatch):
    """Elsewhere than on Linux, by the servers alone."""
    if elsewhere:
        monkeypatch.setattr(listening, "_SYSTEM", None)

    async def burst(_: object, arrivals: Arrivals, connect: Callable[[], socket.socket]) -> int:
        for _ in range(CLIENTS):
            connect()
        return await turns_until(lambda: Made.count == CLIENTS)

    assert run(listen(burst)) <= 15


@pytest.mark.parametrize("run", runs())
def test_what_is_connected_when_a_service_ends_is_taken(run):
    async def end(servers: list[asyncio.Server], arrivals: Arrivals, connect: Callable[[], socket.socket]) -> None:
        for _ in range(CLIENTS):
            connect()
        await arrivals.end(servers)
        assert Made.count == CLIENTS

    run(listen(end))


@LINUX
def test_who_connects_again_while_a_service_ends_is_taken_or_refused(monkeypatch):
    """Those that connected while the others were answered were reset."""
    uvloop = pytest.importorskip("uvloop")
    monkeypatch.setattr(listening, "_MOST_TURNS", 4)  # there is no end of them
    connected = refused = 0

    async def end(servers: list[asyncio.Server], arrivals: Arrivals, connect: Callable[[], socket.socket]) -> None:
        def again(_: asyncio.Protocol, transport: object) -> None:
            nonlocal connected, refused
            Made.count += 1
            try:
                connect()
                connected += 1
            except ConnectionRefusedError:
                refused += 1

        monkeypatch.setattr(Made, "connection_made", again)
        for _ in range(CLIENTS):
            connect()
        await arrivals.end(servers)

    uvloop.run(listen(end))
    assert Made.count == CLIENTS + connected and refused


def answering(begun: bytes, waiting: int) -> bytes | None:
    """A probe and what is full are answered; one fails."""
    if begun.startswith(b"fail"):
        raise RuntimeError
    return begun[:5].upper() if begun.startswith((b"probe", b"full!")) else None


@LINUX
def test_a_probe_overtakes_all_that_came_before_it():
    uvloop = pytest.importorskip("uvloop")

    async def probe(_: object, arrivals: Arrivals, connect: Callable[[], socket.socket]) -> list[int]:
        for _ in range(CLIENTS - 1):
            connect().sendall(b"other")
        found = [connect(), connect()]
        found[0].sendall(b"full!" + b"." * 60_000)  # what is closed while something is unread would be reset
        found[1].sendall(b"probe")
        made = list[int]()
        for one, said in zip(found, (b"FULL!", b"PROBE"), strict=True):
            one.setblocking(False)
            await turns_until(lambda one=one: _has(one))
            made.append(Made.count)
            assert (one.recv(9), one.recv(9)) == (said, b"")  # and it is closed
        await turns_until(lambda: Made.count == CLIENTS - 1)
        return made

    assert max(uvloop.run(listen(probe, answering))) < CLIENTS // 2


@LINUX
def test_who_says_nothing_fails_or_leaves_keeps_no_other_waiting(caplog):
    uvloop = pytest.importorskip("uvloop")

    async def among(_: object, arrivals: Arrivals, connect: Callable[[], socket.socket]) -> None:
        for _ in range(CLIENTS):
            connect()  # nothing
        for _ in range(CLIENTS):
            connect().sendall(b"fail")
        gone = [connect() for _ in range(CLIENTS)]
        for one in gone:
            one.close()
        late = connect()
        await asyncio.sleep(0)
        late.sendall(b"probe")
        late.setblocking(False)
        await turns_until(lambda: _has(late))
        assert late.recv(9) == b"PROBE"
        await turns_until(lambda: Made.count >= 2 * CLIENTS and not arrivals._waiting)
        assert Made.count < 3 * CLIENTS  # of those that left, few were made

    uvloop.run(listen(among, answering))
    assert [one.message for one in caplog.records if one.exc_info] == ["a request is not answered at once"]


@LINUX
def test_heads_that_take_long_to_read_make_no_turn_long(monkeypatch):
    uvloop = pytest.importorskip("uvloop")
    looks, most, now = 0, 0, 0.0

    def slowly(begun: bytes, waiting: int) -> None:
        nonlocal looks, now
        looks += 1
        now += listening._LOOKS_S / 2

    async def slow(_: object, arrivals: Arrivals, connect: Callable[[], socket.socket]) -> None:
        def done() -> bool:
            nonlocal looks, most
            most, looks = max(most, looks), 0
            return Made.count == CLIENTS

        for _ in range(CLIENTS):
            connect().sendall(b"other")
        await turns_until(done)

    monkeypatch.setattr(listening, "monotonic", lambda: now)
    uvloop.run(listen(slow, slowly))
    assert 1 <= most <= 2 * 2  # of a turn, and of one that begins with what is taken


@LINUX
def test_more_than_may_wait_are_made_all_the_same(monkeypatch):
    uvloop = pytest.importorskip("uvloop")
    monkeypatch.setattr(listening, "MOST_WAITING", 16)

    async def flood(_: object, arrivals: Arrivals, connect: Callable[[], socket.socket]) -> int:
        for _ in range(100):
            connect()
        waited = 0

        def done() -> bool:
            nonlocal waited
            waited = max(waited, len(arrivals._waiting))
            return Made.count == 100

        await turns_until(done)
        return waited

    assert uvloop.run(listen(flood)) <= 16


def _has(one: socket.socket) -> bool:
    """Whether something came."""
    try:
        return bool(one.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no signal stops a process here")
def test_a_service_that_was_held_up_answers_all_that_came_meanwhile(tmp_path, model):
    """A probe, requests beyond its queue, and one whose body is still to come."""
    body = b'{"input": "a red fox"}'
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )
    with process(tmp_path, model, "--memory", ":memory:", "--threads", "1", "--queue", "1") as (running, url):
        ready(running, url)
        running.send_signal(signal.SIGSTOP)
        with ExitStack() as opened:
            address = ("127.0.0.1", int(url.rpartition(":")[2]))
            clients = [opened.enter_context(socket.create_connection(address, timeout=60)) for _ in range(CLIENTS)]
            for one in clients[:-2]:
                one.sendall(head + body)
            clients[-2].sendall(head + body[:5])
            clients[-1].sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            running.send_signal(signal.SIGCONT)
            answers = [_all(one) for one in clients[:-2]]
            assert _all(clients[-1]).startswith(b"HTTP/1.1 200 ")
            clients[-2].sendall(body[5:])
            answers.append(_all(clients[-2]))
    statuses = [int(one.split(b" ", 2)[1]) for one in answers]
    assert set(statuses) <= {200, 429} and 200 in statuses
    assert all(b"\r\nconnection: close\r\n" in one and b"\r\nx-request-id: " in one for one in answers)


def _all(one: socket.socket) -> bytes:
    got = b""
    while part := one.recv(1 << 16):
        got += part
    return got
