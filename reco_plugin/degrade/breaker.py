"""A circuit breaker: stop calling a part that keeps failing, and probe with single calls until it is back.

::

    closed --N failures in a row--> open --T seconds--> half-open --the probe succeeds--> closed
                                      ^------------------the probe fails--'

Why not a library: pybreaker 1.4 holds its lock while the call runs, so every call waits behind one that hangs;
purgatory 3.0 has no lock, lets every caller probe at once, and uses a clock that can be set back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NewType, TypeAlias

CircuitState: TypeAlias = Literal["closed", "open", "half-open"]
Ticket = NewType("Ticket", int)
"""Permission for one call; its outcome counts only while the circuit is in the state that gave it."""


@dataclass(frozen=True)
class Circuit:
    """A snapshot of a breaker."""

    state: CircuitState  # closed: calls pass. open: none passes. half-open: one probes
    failures: int  # in a row, until now
    opened: int  # how often it opened
    retry_in_s: float | None  # until the next probe; None unless open
    last_error: str | None  # None before the first failure


class Breaker:
    """Counts failures in a row; safe to use from several threads, and never locked while a call runs."""

    def __init__(self, failures: int, retry_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed; that many failures in a row open it, for ``retry_s`` seconds. The clock must never go back."""
        self._limit, self._retry_s, self._clock = failures, retry_s, clock
        self._lock = threading.Lock()
        self._epoch = 0  # grows when the outcomes of running calls no longer count
        self._failures = self._opened = 0
        self._retry_at: float | None = None  # None while closed
        self._probing = False
        self._last_error: str | None = None

    def admit(self) -> Ticket | None:
        """Get a ticket for a call, or None: make no call. Every ticket must be returned."""
        with self._lock:
            if self._retry_at is not None:
                if self._probing or self._clock() < self._retry_at:
                    return None
                self._probing = True
                self._epoch += 1
            return Ticket(self._epoch)

    def succeeded(self, ticket: Ticket) -> None:
        """Return the ticket of a call that was answered."""
        with self._lock:
            if ticket == self._epoch:
                self._failures, self._probing, self._retry_at = 0, False, None

    def failed(self, ticket: Ticket, error: Exception) -> None:
        """Return the ticket of a call that failed or timed out."""
        with self._lock:
            if ticket != self._epoch:
                return
            self._failures += 1
            self._last_error = str(error)
            if self._probing or self._failures >= self._limit:
                self._probing = False
                self._opened += 1
                self._epoch += 1
                self._retry_at = self._clock() + self._retry_s

    def abandoned(self, ticket: Ticket) -> None:
        """Return the ticket of a call that says nothing about the part; the next caller may probe."""
        with self._lock:
            if ticket == self._epoch and self._probing:
                self._probing = False
                self._epoch += 1

    @property
    def circuit(self) -> Circuit:
        """The state now."""
        with self._lock:
            left = None
            if self._retry_at is not None and not self._probing:
                left = max(0.0, self._retry_at - self._clock())
            state: CircuitState = "closed" if self._retry_at is None else "half-open" if self._probing else "open"
            return Circuit(state, self._failures, self._opened, left, self._last_error)
