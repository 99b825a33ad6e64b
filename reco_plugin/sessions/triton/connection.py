"""One connection per server, shared by all sessions of the process that use it."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ...config import SharedMemoryMode
from ...errors import SessionError, SessionTimeout
from ..base import Arrays
from .address import Address
from .regions import Regions
from .wire import Inference, NotReached, RegionLost, Wire, make_timeout, open_wire

T = TypeVar("T")
_PAUSES_S = (0.05, 0.2)
"""Before the second and the third attempt; only a request that was never sent is retried."""


@dataclass(frozen=True)
class TimeLimit:
    """A point in time, and how long it was until then."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> TimeLimit:
        """Counted from now."""
        return cls(time.monotonic() + seconds, seconds)

    def left(self) -> float:
        """Seconds left; never zero, so that an expired limit fails as a timeout."""
        return max(self.at - time.monotonic(), 1e-3)


class Connection:
    """A connection to a server; closed when no session holds it, and at the end of the process."""

    def __init__(self, address: Address, mode: SharedMemoryMode) -> None:
        self.address = address
        self._wire = open_wire(address)
        asked = mode == "on" or (mode == "auto" and address.on_this_host)
        self._regions = Regions(self._wire, mode if asked else "off")
        weakref.finalize(self, _shut, self._wire, self._regions)

    def infer(self, call: Inference, deadline: TimeLimit) -> Arrays:
        """Run a graph on arrays (B, ...); retries requests that were never sent, until the deadline."""
        return self._patiently(lambda: self._infer(call, deadline), deadline)

    def config(self, graph: str, version: str, deadline: TimeLimit) -> dict[str, Any]:
        """The configuration of a graph."""
        return self._patiently(lambda: self._wire.config(graph, version, deadline.left()), deadline)

    def _infer(self, call: Inference, deadline: TimeLimit) -> Arrays:
        try:
            return self._place(call, deadline)
        except RegionLost:  # nothing ran: the server was restarted, so regions must be registered again
            self._regions.forget()
        try:
            return self._place(call, deadline)
        except RegionLost as error:  # or there are several servers behind this address
            self._regions.give_up(error)
            return self._place(call, deadline)

    def _place(self, call: Inference, deadline: TimeLimit) -> Arrays:
        with self._regions.placed(call.inputs, deadline.left()) as placed:
            return self._wire.infer(replace(call, placed=placed), deadline.left())

    def _patiently(self, ask: Callable[[], T], deadline: TimeLimit) -> T:
        try:
            for pause in _PAUSES_S:
                try:
                    return ask()
                except NotReached:
                    if deadline.left() <= pause:
                        raise
                    time.sleep(pause)
            return ask()
        except SessionTimeout as error:  # of what was left of the time
            raise make_timeout(self.address, deadline.seconds) from error


_open: weakref.WeakValueDictionary[tuple[Address, SharedMemoryMode], Connection] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def connect(address: Address, mode: SharedMemoryMode) -> Connection:
    """The connection to a server, opened if there is none yet.

    Raises:
        MissingExtra: the Triton client is not installed.
    """
    with _lock:
        connection = _open.get((address, mode))
        if connection is None:
            connection = _open[address, mode] = Connection(address, mode)
        return connection


def _shut(wire: Wire, regions: Regions) -> None:
    with suppress(SessionError):
        regions.close()
    wire.close()
