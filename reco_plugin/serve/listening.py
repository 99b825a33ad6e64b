"""Takes connections as they come: what can be answered at once is, and of the others a few are made in each turn.

uvloop takes one connection a turn of its loop. Where more come than can be answered, a turn takes tens of milliseconds,
since each of its steps waits for Python's lock and for a core, so a probe waited behind all that came before it. To
take a connection, to read its request and to refuse it here gives Python's lock to nobody meanwhile.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import select
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any

from .logs import LOGGER

log = logging.getLogger(LOGGER)
_MADE = 4
"""Connections that the servers make in one turn, and as many that are made of those that they leave. Where none are
taken here, the servers make both."""
_TAKEN = 64
"""Connections that are taken here in one turn, and of those that sent nothing yet, how many are looked at; at most."""
MOST_WAITING = 512
"""Connections that were taken and wait; others wait in the system's queue."""
_BYTES = 16_384
"""Of a request that may be answered at once."""
_UNREAD = 16
"""Times as many are read of one that is refused by its beginning."""
_LOOKS_S = 0.02
"""That looking may take of a turn: a head of thousands of fields takes 2 ms, and all others wait."""
_LOG_EVERY_S = 10.0
_MOST_TURNS, _LAST_TURNS = 64, 4  # for what waits at the end; until a connection that was taken is made
# keeps Python's lock during a call, and none of those made here waits
_SYSTEM: Any = ctypes.PyDLL(None) if sys.platform == "linux" else None


class Arrivals:
    """Connections that were taken, and are neither answered nor made; used from one event loop."""

    def __init__(self, make: Callable[[], asyncio.Protocol], answer: Callable[[bytes, int], bytes | None]) -> None:
        """Begin with none.

        Args:
            make: a protocol for a connection.
            answer: the whole answer to the first bytes of a request, where so many wait; None: a connection is made.
        """
        self._make, self._answer = make, answer
        self._waiting: dict[socket.socket, None] = {}  # the oldest first
        self._silent: dict[socket.socket, None] = {}  # of those, nothing has been read
        self._making: set[asyncio.Task[None]] = set()
        self._listening: list[socket.socket] = []
        self._logged_at = -_LOG_EVERY_S
        self._turns = False  # whether a turn is to come
        self._read = ctypes.create_string_buffer(_BYTES)

    async def take_from(self, servers: Sequence[asyncio.Server], backlog: int) -> list[asyncio.Server]:
        """Listen at the sockets of servers several times, where the loop takes one connection a turn from each.

        Args:
            servers: that listen already.
            backlog: connections that may wait in the system's queue.

        Returns:
            The servers besides those: they make the first connections of a turn, which costs less where few come. Empty
            with asyncio's own loop, which takes all that wait.
        """
        loop = asyncio.get_running_loop()
        if isinstance(loop, asyncio.BaseEventLoop):
            return []
        sockets = [one for server in servers for one in server.sockets]
        if _SYSTEM is not None:
            self._listening = [_again(one) for one in sockets]
        for one in self._listening:
            loop.add_reader(one, partial(loop.call_soon, self._take, one))  # when the servers have taken theirs
        by_servers = _MADE if self._listening else 2 * _MADE
        again = [_again(one) for one in sockets for _ in range(by_servers - 1)]
        return [await loop.create_server(self._make, sock=one, backlog=backlog) for one in again]

    async def end(self, servers: Iterable[asyncio.Server]) -> None:
        """Take what is connected by now, which would be reset when the servers' sockets are closed, and no more.

        Where connections are taken here, the sockets are closed, and then it is answered: clients that have an answer
        connect again, and would be reset, too.
        """
        servers = [*servers]
        sockets = [one for server in servers for one in server.sockets]
        for _ in range(_MOST_TURNS):
            await asyncio.sleep(0)
            if not _waits(sockets):
                break
        for server in servers if self._listening else ():
            server.close()
        while self._listening:
            one = self._listening.pop()
            asyncio.get_running_loop().remove_reader(one)
            self._take(one, MOST_WAITING)
            one.close()
        while self._waiting or self._making:
            await asyncio.sleep(0)
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)

    def _take(self, listening: socket.socket, most: int = _TAKEN) -> None:
        for _ in range(min(most, MOST_WAITING - len(self._waiting))):
            taken = _SYSTEM.accept4(listening.fileno(), None, None, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            if taken < 0:  # none waits; or no file can be opened, and the servers close what comes
                break
            one = socket.socket(listening.family, listening.type, listening.proto, taken)
            self._waiting[one] = self._silent[one] = None
        if not self._turns:
            self._turn()

    def _turn(self) -> None:
        loop, made = asyncio.get_running_loop(), 0
        many, until = len(self._waiting) > _MADE, monotonic() + _LOOKS_S
        for one in [*islice(reversed(self._silent), _TAKEN)] if many else ():
            if monotonic() >= until:
                break
            self._look(one)
        for one in [*islice(self._waiting, _TAKEN)]:
            # what could not be answered when it came may be refused by now
            if many and monotonic() < until and self._look(one):
                continue
            del self._waiting[one]
            self._silent.pop(one, None)
            task = loop.create_task(self._begin(one))
            self._making.add(task)
            task.add_done_callback(self._making.discard)
            made += 1
            if made == _MADE:
                break
        self._turns = bool(self._waiting)
        if self._turns:
            loop.call_soon(self._turn)

    def _look(self, one: socket.socket) -> bool:
        """Answer what came and close it, if that can be done at once."""
        size = _SYSTEM.recv(one.fileno(), self._read, _BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        if size < 0:  # nothing came yet, or the connection broke, which its protocol is told
            return False
        self._silent.pop(one, None)
        answer: bytes | None = b""  # of a client that left
        if size:
            try:
                answer = self._answer(ctypes.string_at(self._read, size), len(self._waiting))
            except Exception:  # of one must not keep all others waiting
                if (now := monotonic()) >= self._logged_at + _LOG_EVERY_S:  # it is looked at in each turn
                    self._logged_at = now
                    log.exception("a request is not answered at once")
                return False
        if answer is None:
            return False
        del self._waiting[one]
        if size:
            for _ in range(_UNREAD):  # unread, it would reset the answer
                if _SYSTEM.recv(one.fileno(), self._read, _BYTES, socket.MSG_DONTWAIT) < _BYTES:
                    break
            _SYSTEM.send(one.fileno(), answer, len(answer), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        _SYSTEM.close(one.detach())
        return True

    async def _begin(self, one: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(self._make, one)


def _again(listening: socket.socket) -> socket.socket:
    """A socket beside another one, that can be closed by itself."""
    return socket.socket(fileno=os.dup(listening.fileno()))


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
