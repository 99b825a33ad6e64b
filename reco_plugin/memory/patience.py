"""How long a call to a server goes on: waits that the server asks for, one more try after a lost connection."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ..errors import RecoError
from .faults import Spent, read_fault, retry_after, translate
from .server import Server

T = TypeVar("T")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0


@dataclass(frozen=True)
class Patience:
    """Runs calls to one server; every call of a memory has the same effect when it is sent twice.

    Attributes:
        location: URL of the server, for messages.
        key_given: whether a key is sent.
        read_s: seconds that a read may take, waits included.
        write_s: the same for a write, which also outlives a server that restarts.
    """

    location: str
    key_given: bool
    read_s: int
    write_s: int

    def run(self, doing: str, action: Callable[[int | None], T], *, write: bool = False) -> T:
        """Run an action until it succeeds, fails for good, or its time is over.

        Args:
            doing: for messages, as in "search".
            action: takes the whole seconds that it may use; None at first, where the client's own limit holds.
            write: whether it writes.

        Raises:
            MemoryUnavailable: no answer, or refused for now and the wait is longer than the time left.
            MemoryTimeout: it answers too late.
            MemoryStoreError: anything else that the server says.
        """
        within = self.write_s if write else self.read_s
        end = time.monotonic() + within
        left: int | None = None
        for attempt in range(10_000):
            began = time.monotonic()
            try:
                return action(left)
            except RecoError:
                raise
            except Exception as error:
                pause = self._pause(error, attempt, write=write)
                if pause is None or time.monotonic() + pause >= end:
                    spent = Spent(time.monotonic() - began, self.read_s, left, within, write)
                    raise translate(error, self.location, doing, key_given=self.key_given, spent=spent) from error
                time.sleep(pause)
                left = max(1, min(self.read_s, math.ceil(end - time.monotonic())))
        raise AssertionError("unreachable: every pause brings the end nearer")

    def _pause(self, error: Exception, attempt: int, *, write: bool) -> float | None:
        """Seconds before another try; None where it would not help."""
        if (asked := retry_after(error)) is not None:
            return float(asked)
        if not read_fault(error).unanswered:
            return None
        if write:
            return float(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt, 10)))
        return 0.0 if attempt == 0 else None  # a pooled connection that the server closed meanwhile


def patience_with(server: Server) -> Patience:
    """How long calls to this server may take."""
    options = server.options
    return Patience(server.location, server.api_key is not None, options.timeout_s, options.write_timeout_s)
