"""Calls between processes of one user on one machine: over a Unix socket, in Python's own format."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from ...errors import MemoryUnavailable, as_sent
from ..logs import LOGGER

log = logging.getLogger(LOGGER)
_BACKLOG = 128  # connections that wait to be accepted
_AGAIN_S = 0.1


class OwnerLine:
    """Calls the functions of another process; safe to use from several threads, each call on a connection alone."""

    def __init__(self, address: str) -> None:
        """Keep the path of the socket; the first call connects."""
        self._address, self._lock = address, threading.Lock()
        self._free: list[Connection] = []

    def ask(self, what: str, *given: Any) -> Any:
        """Call a function by its name; returns or raises what it does.

        Raises:
            MemoryUnavailable: the other process does not answer.
        """
        try:
            connection = self._take()
            try:
                connection.send((what, given))
                done, told = connection.recv()
            except BaseException:  # whose answer may still come: no other call may read it
                connection.close()
                raise
        except (OSError, EOFError) as error:
            raise MemoryUnavailable(f"the process that has the memory does not answer: {error!r}") from error
        with self._lock:
            self._free.append(connection)
        if done:
            return told
        raise told

    def close(self) -> None:
        """Close the connections that no call uses."""
        with self._lock:
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def _take(self) -> Connection:
        with self._lock:
            if self._free:
                return self._free.pop()
        made: Connection = Client(self._address, "AF_UNIX")
        return made


class Answering:
    """Answers calls, each connection in a thread of its own, until it is closed."""

    def __init__(self, address: str, functions: Mapping[str, Callable[..., Any]]) -> None:
        """Listen at a path that no other user can reach: whoever can, can run any code here."""
        self._functions, self._closed = functions, False
        self._listener = Listener(address, "AF_UNIX", backlog=_BACKLOG)
        threading.Thread(target=self._accept, name="reco-accept", daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._closed = True
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), name="reco-answer", daemon=True).start()
            except (OSError, RuntimeError) as error:  # as too many open files or threads: without it, none could call
                if not self._closed:
                    log.warning("a call of a worker could not be accepted, and is tried again: %s", error)
                    time.sleep(_AGAIN_S)

    def _answer(self, connection: Connection) -> None:
        with connection, suppress(OSError, EOFError):  # its worker ended
            while True:
                what, given = connection.recv()
                try:
                    done, told = True, self._functions[what](*given)
                except Exception as error:
                    done, told = False, as_sent(error)
                    if told is not error:
                        log.exception("an error of the memory cannot be told to a worker as it is")
                connection.send((done, told))
                del given, told  # not while it waits for the next call
