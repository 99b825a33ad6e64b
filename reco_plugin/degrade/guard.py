"""Call a part that may be down: within a deadline, behind a circuit breaker, and timed; memory and fusion behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ..calibration import Calibration
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
from ..fuse import Fused, Fuser
from ..memory import Header, Memory, Searches
from ..memory.checks import check_search
from ..refine import Trusted
from ..request import Search
from ..types import Degraded, Modality, Neighbours, Vectors
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
    """A part failed."""

    def __init__(self, reason: Degraded, error: RecoError, *, first: bool) -> None:
        super().__init__(str(error))
        self.reason = reason
        self.error = error  # the same as a public error, to raise instead of degrading
        self.first = first  # whether the part's previous call was answered


class Guard:
    """Calls one part. Errors of the input are raised as they are and do not count as failures."""

    def __init__(self, part: Component, breaker: Breaker, seconds: Histogram, deadline: Deadline | None = None) -> None:
        """Guard a part, with a breaker of its own.

        The deadline is for a part that could hang; without one, calls run in the caller's thread, which is faster.
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


class GuardedSearches:
    """The searches of a memory, guarded; of the version of it that is in use when they are asked."""

    def __init__(self, pairs: Trusted, guard: Guard) -> None:
        self._pairs, self._guard = pairs, guard

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        return self._pairs.searches.header

    def search(self, search: Search) -> Neighbours:
        """Search with queries (B, D), see :meth:`reco_plugin.memory.Searches.search`.

        Raises:
            InputError: also while the memory is down.
            Outage: the memory fails.
        """
        try:
            return self._guard.ask(partial(self._pairs.searches.search, search))
        except Outage:
            check_search(search, self.header.fingerprint.dimension)
            raise


@dataclass(frozen=True)
class GuardedPairs:
    """Pairs whose searches are guarded; their calibration is always the current one."""

    pairs: Trusted
    searches: Searches

    @property
    def store(self) -> Memory:
        """The pairs themselves, unguarded."""
        return self.pairs.store

    @property
    def calibration(self) -> Calibration | None:
        """What was learned about them."""
        return self.pairs.calibration


class GuardedFuser:
    """A fuser behind a guard."""

    def __init__(self, fuser: Fuser, guard: Guard) -> None:
        self.name = fuser.name
        self._fuser, self._guard = fuser, guard

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Fuse vectors (B, D) with neighbours (B, K, D) by trust (B, K), see :meth:`reco_plugin.fuse.Fuser.fuse`.

        Raises:
            Outage: the fusion fails.
        """
        return self._guard.ask(partial(self._fuser.fuse, modality, vectors, neighbours, trust))
