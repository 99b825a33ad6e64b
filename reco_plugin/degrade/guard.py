"""Call a part that may be down: within a deadline, behind a circuit breaker, and timed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from ..counters import Histogram
from ..errors import (
    FingerprintMismatch,
    MemoryStoreError,
    MemoryTimeout,
    MemoryUnavailable,
    RecoError,
    SessionError,
    SessionTimeout,
    SessionUnavailable,
)
from ..types import Degraded
from .breaker import Breaker
from .deadline import Deadline, Late

T = TypeVar("T")
Component: TypeAlias = Literal["memory", "fusion"]


class _Errors(NamedTuple):
    """Errors of a part: any failure, late, unavailable."""

    failed: type[RecoError]
    late: type[RecoError]
    gone: type[RecoError]


_ERRORS: dict[Component, _Errors] = {
    "memory": _Errors(MemoryStoreError, MemoryTimeout, MemoryUnavailable),
    "fusion": _Errors(SessionError, SessionTimeout, SessionUnavailable),
}


class Outage(Exception):
    """A part failed.

    Attributes:
        reason: why, as a keyword.
        error: the same as a public error, to raise instead of degrading.
        first: whether the part's previous call was answered.
    """

    def __init__(self, reason: Degraded, error: RecoError, *, first: bool) -> None:
        super().__init__(str(error))
        self.reason, self.error, self.first = reason, error, first


class Guard:
    """Calls one part. Errors of the input are raised as they are and do not count as failures."""

    def __init__(self, part: Component, breaker: Breaker, seconds: Histogram, deadline: Deadline | None = None) -> None:
        """Guard a part.

        Args:
            part: decides which errors are failures; named in reasons and messages.
            breaker: of this part alone.
            seconds: counts the time of each call.
            deadline: for a part that could hang; None runs calls in the caller's thread, which is faster.
        """
        self.breaker = breaker
        self._part, self._errors, self._seconds, self._deadline = part, _ERRORS[part], seconds, deadline
        self._lock = threading.Lock()
        self._out = False

    def ask(self, call: Callable[[], T]) -> T:
        """Return what the call returns.

        Raises:
            Outage: it failed, was late, or was not made because the part failed too often.
            FingerprintMismatch: the memory is now of another encoder; frozen vectors would hide that.
        """
        ticket = self.breaker.admit()
        if ticket is None:
            raise self._outage("circuit_open", self._make_error())
        try:
            with self._seconds.timed():
                answer = call() if self._deadline is None else self._deadline.run(call)
        except Late as late:
            error = self._errors.late(f"the {self._part} is late: {late}")
            self.breaker.failed(ticket, error)
            raise self._outage("timeout", error) from late
        except FingerprintMismatch:
            self.breaker.succeeded(ticket)  # the memory answered: every caller gets this error
            raise
        except self._errors.failed as error:
            self.breaker.failed(ticket, error)
            raise self._outage("timeout" if isinstance(error, self._errors.late) else "error", error) from error
        except BaseException:
            self.breaker.abandoned(ticket)
            raise
        self.breaker.succeeded(ticket)
        self._out = False
        return answer

    def _make_error(self) -> RecoError:
        circuit = self.breaker.circuit
        when = f"in {circuit.retry_in_s:.1f} s" if circuit.retry_in_s else "as soon as one call is answered"
        return self._errors.gone(
            f"the {self._part} failed {circuit.failures} times in a row and is asked again {when}. "
            f"The latest failure: {circuit.last_error}"
        )

    def _outage(self, how: Literal["error", "timeout", "circuit_open"], error: RecoError) -> Outage:
        with self._lock:
            first, self._out = not self._out, True
        reason: Degraded = f"{self._part}_{how}"  # type: ignore[assignment]  # all combinations are Degraded
        return Outage(reason, error, first=first)
