"""Connections that wait together are taken together, so that none waits for turns of a busy loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest

from reco_plugin.serve.listening import take_all, take_in_bursts

CLIENTS, BACKLOG = 40, 128


class Taken(asyncio.Protocol):
    """A connection that stays open, and is counted."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Taken.count += 1


def runs() -> list[Callable[[Coroutine[Any, Any, int]], int]]:
    """asyncio's own loop, and uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows
        return [asyncio.run]
    return [asyncio.run, uvloop.run]


async def turns(finish: Callable[[list[asyncio.Server]], Coroutine[Any, Any, None]] | None) -> int:
    """Turns of the loop until all that connected before are taken, at most one for each client."""
    Taken.count = 0
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening, ExitStack() as clients:
        listening.setblocking(False)
        servers = [await asyncio.get_running_loop().create_server(Taken, sock=listening, backlog=BACKLOG)]
        servers += await take_in_bursts(Taken, servers, BACKLOG)
        for _ in range(CLIENTS):
            clients.enter_context(socket.create_connection(listening.getsockname()))
        turn = 0
        if finish is not None:
            await finish(servers)
        while Taken.count < CLIENTS and turn < CLIENTS:
            turn += 1
            await asyncio.sleep(0)
        for server in servers:
            server.close()
    return turn


@pytest.mark.parametrize("run", runs())
def test_a_burst_of_connections_is_taken_in_a_few_turns(run):
    assert run(turns(None)) <= 8
    assert Taken.count == CLIENTS


@pytest.mark.parametrize("run", runs())
def test_what_is_connected_when_a_service_ends_is_taken(run):
    assert run(turns(take_all)) == 0
    assert Taken.count == CLIENTS
