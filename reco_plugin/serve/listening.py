"""Takes the connections that wait at once: uvloop takes one a turn, so a probe waited behind all that came before it.

A turn of a busy loop takes tens of milliseconds, and 300 new connections a second were more than it took.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

_AT_ONCE = 8
"""Connections that are taken in one turn; where one comes alone, each of the others looks for 3 microseconds."""
_MOST_TURNS, _LAST_TURNS = 64, 4  # for what waits at the end; until a connection that was taken is made


async def take_in_bursts(
    make: Callable[[], asyncio.Protocol], servers: Sequence[asyncio.Server], backlog: int
) -> list[asyncio.Server]:
    """Listen at the sockets of servers several times, where the loop takes one connection a turn from each.

    Args:
        make: a protocol for a connection.
        servers: that listen already.
        backlog: connections that may wait.

    Returns:
        The servers besides those; empty with asyncio's own loop, which takes all that wait.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop):
        return []
    again = [socket.socket(fileno=os.dup(one.fileno())) for one in _sockets(servers) for _ in range(_AT_ONCE - 1)]
    return [await loop.create_server(make, sock=one, backlog=backlog) for one in again]


async def take_all(servers: Iterable[asyncio.Server]) -> None:
    """Take what is connected by now: it would be reset when its socket is closed."""
    sockets = _sockets(servers)
    for _ in range(_MOST_TURNS):
        await asyncio.sleep(0)
        if not _waits(sockets):
            break
    for _ in range(_LAST_TURNS):
        await asyncio.sleep(0)


def _sockets(servers: Iterable[asyncio.Server]) -> list[socket.socket]:
    return [one for server in servers for one in server.sockets]


def _waits(sockets: Sequence[socket.socket]) -> bool:
    """Whether a connection waits at one of them, as far as the system tells."""
    if not hasattr(select, "poll"):
        return False
    look = select.poll()
    with suppress(OSError, ValueError):  # of one that is closed
        for one in sockets:
            look.register(one.fileno(), select.POLLIN)
        return bool(look.poll(0))
    return False
