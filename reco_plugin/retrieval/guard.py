"""The one guarded search: of callers together, within a deadline, behind a circuit breaker.

::

    closed --N failures in a row--> open --T seconds--> half-open --the probe succeeds--> closed
                                      ^------------------the probe fails--'

A call that fails, is late or is not made raises :class:`Outage`, which :class:`~reco_plugin.reco.Reco` turns into
frozen vectors with a reason, or into an error. Why no library breaks the circuit: pybreaker 1.4 holds its lock while
the call runs, so every call waits behind one that hangs; purgatory 3.0 has no lock, lets every caller probe at once,
and uses a clock that can be set back.
"""

from __future__ import annotations

import contextvars
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, NewType, TypeAlias, TypeVar

from ..batching import Batcher, Columns
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
from ..fusion.base import Learned
from ..learning import Calibration
from ..memory import Header, Memory, memory_of
from ..memory.checks import check_search
from ..memory.scope import current_scope
from ..settings import Settings
from ..types import Degraded, Fingerprint, Modality, Neighbours, Search

T = TypeVar("T")
Component: TypeAlias = Literal["memory", "service"]
"""What may fail: the memory of a Reco, and the service as a client sees it."""
CircuitState: TypeAlias = Literal["closed", "open", "half-open"]
Ticket = NewType("Ticket", int)
"""Permission for one call; its outcome counts only while the circuit is in the state that gave it."""
_MOST_NEIGHBOURS = 100  # per query: the vectors of a batch stay small
_AT_ONCE = 2  # batches on their way to a server: one is searched while the next is written or read


class DegradedWarning(UserWarning):
    """Frozen vectors are answered in place of refined ones; shown once per outage."""


class Outage(Exception):
    """A part failed."""

    def __init__(
        self, reason: Degraded, error: RecoError, *, first: bool = True, instead: str = "on_memory_failure='fail'"
    ) -> None:
        super().__init__(str(error))
        self.reason = reason
        self.instead = instead  # the option by which the error is raised
        self.error = error  # the same as a public error, to raise instead of degrading
        self.first = first  # whether the part's previous call was answered

    def tell(self) -> None:
        """Warn, once for all callers of its batch, that frozen vectors are answered."""
        if self.first:
            self.first = False
            warnings.warn(
                f"answering with frozen CLIP vectors until it recovers ({self.reason}): {self.error} "
                f"(to have errors instead: {self.instead})",
                DegradedWarning,
                stacklevel=4,
            )


class Late(Exception):
    """The call timed out."""


class Deadline:
    """Runs each call in its own thread and waits for it up to a time limit.

    A late call goes on, since nothing can stop it, and its answer is dropped. The threads are daemons: a call that
    hangs forever does not keep the process from exiting, as a ``ThreadPoolExecutor`` would. There are few of them: the
    circuit opens after some, and a client ends its calls by itself later.
    """

    def __init__(self, seconds: float, setting: str) -> None:
        """Set the time limit; messages name its setting."""
        self.seconds, self._setting = seconds, setting

    def run(self, call: Callable[[], T]) -> T:
        """Run the call in a thread, and return or raise what it does.

        Raises:
            Late: it has not returned within the limit.
        """
        answers: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                answers.append(call())
            except BaseException as error:
                errors.append(error)

        context = contextvars.copy_context()  # traces continue in the other thread
        thread = threading.Thread(target=context.run, args=(work,), name="reco-deadline", daemon=True)
        thread.start()
        thread.join(self.seconds)
        if not answers and not errors:
            raise Late(f"no answer within {self.seconds:g} s. Raise {self._setting}, or see what keeps it busy")
        if errors:
            raise errors[0]
        return answers[0]


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


class _Errors(NamedTuple):
    """Errors of a part."""

    failed: tuple[type[RecoError], ...]  # all that count as failures
    late: type[RecoError]
    gone: type[RecoError]
    instead: str  # the option by which they are raised


_ERRORS: dict[Component, _Errors] = {
    "memory": _Errors((MemoryStoreError,), MemoryTimeout, MemoryUnavailable, "on_memory_failure='fail'"),
    "service": _Errors((SessionError, MemoryStoreError), SessionTimeout, SessionUnavailable, "degrade_after_s=None"),
}


class Guard:
    """Guards the calls of one part. Errors of the input are raised as they are and do not count as failures."""

    def __init__(
        self, part: Component, breaker: Breaker, timed: Callable[[float], object] = lambda seconds: None
    ) -> None:
        self.breaker = breaker
        self._part, self._errors, self._timed = part, _ERRORS[part], timed
        self._lock = threading.Lock()
        self._out = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one call, timed.

        Raises:
            Outage: it failed, was late, or must not be made because the part failed too often.
            FingerprintMismatch: the memory is now of another encoder; frozen vectors would hide that.
        """
        ticket = self.breaker.admit()
        if ticket is None:
            raise self._outage("circuit_open", self._make_error())
        started = time.perf_counter()
        try:
            yield
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
        else:
            self.breaker.succeeded(ticket)
            self._out = False
        finally:
            self._timed(time.perf_counter() - started)

    def kept_waiting(self) -> Outage:
        """What a call gets that other calls kept waiting for too long; the part itself did not fail."""
        return self._outage("timeout", self._errors.late(f"other searches of the {self._part} kept this one waiting"))

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
        return Outage(reason, error, first=first, instead=self._errors.instead)


_Key: TypeAlias = tuple[Modality, Modality, int, bool, bool, bool, bool]
"""What is equal in all searches of a batch: all but the rows."""


class GuardedMemory:
    """A memory as refinements search it: the version that is in use when they ask, and what it has learned."""

    def __init__(self, memory: Learned, guard: Guard, deadline: Deadline | None = None, most: int = 0) -> None:
        """Guard a memory.

        Args:
            memory: the pairs.
            guard: of its searches.
            deadline: for a memory that could hang; without one, calls run in the caller's thread, which is faster.
            most: queries of several threads that are searched together, at most; 0: each call on its own.
        """
        self._memory, self._guard, self._deadline, self._most = memory, guard, deadline, most
        waits_s = None if deadline is None else deadline.seconds
        self._batchers = [Batcher(self._run, most, (Outage,), waits_s) for _ in range(_AT_ONCE if deadline else 1)]

    @property
    def searches(self) -> GuardedMemory:
        """What is searched: itself."""
        return self

    @property
    def store(self) -> Memory:
        """The pairs themselves, unguarded."""
        return self._memory.store

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        return self._memory.searches.header

    @property
    def calibration(self) -> Calibration | None:
        """What the memory has learned; it is read anew where its header is another one."""
        return self._memory.calibration

    def search(self, search: Search) -> Neighbours:
        """Search with queries (B, D), see :meth:`reco_plugin.memory.Searches.search`.

        Large searches, and those with exclusions or conditions, are run alone. A server's time limit begins when the
        search is sent. A call that waits as long for its turn is late, too, which is no failure of the server.

        Raises:
            InputError: also while the memory is down.
            Outage: the memory fails, or other searches kept this one waiting.
        """
        size = len(search.vectors)
        alone = search.exclude is not None or search.where is not None or search.k > _MOST_NEIGHBOURS
        if current_scope() or alone or not 0 < size <= self._most:
            return self._ask(search)
        how = (search.by, search.read, search.k, search.payloads, search.ids, search.checked, search.own)
        rows = (search.vectors, search.words or [None] * size)
        batcher = min(self._batchers, key=lambda each: each.load)
        try:
            columns = batcher(how, rows)
        except TimeoutError:
            raise self._guard.kept_waiting() from None
        ids, similarity, vectors, found, cosine, payloads, asked, words, word_ids, own, confirmed = columns
        return Neighbours(
            ids,
            similarity,
            vectors,
            found,
            cosine,
            payloads if search.payloads else None,
            asked if search.words else None,
            words if search.words else (),
            word_ids if search.words else (),
            own,
            confirmed,
        )

    def _run(self, key: _Key, rows: Columns) -> Columns:
        """Search for several callers."""
        (by, read, k, payloads, ids, checked, own), (vectors, words) = key, rows
        said = words if any(words) else None
        search = Search(vectors, by, read, k, None, None, payloads, ids, checked, said, own)
        if checked and self._deadline is None:
            with self._guard.attempt():
                found = self._memory.searches.search(search)
        else:
            found = self._ask(search)
        nothing = [None] * len(vectors)
        by_words = found.words or [""] * len(vectors), found.word_ids or [()] * len(vectors)
        asked = vectors if found.asked is None else found.asked
        here = found.ids, found.similarity, found.vectors, found.found, found.cosine
        return *here, found.payloads or nothing, asked, *by_words, found.own, found.is_confirmed

    def _ask(self, search: Search) -> Neighbours:
        try:
            with self._guard.attempt():
                call = partial(self._memory.searches.search, search)
                return call() if self._deadline is None else self._deadline.run(call)
        except Outage:
            check_search(search, self.header.fingerprint.dimension)
            raise


def guard_memory(memory: Learned, guard: Guard, settings: Settings) -> GuardedMemory:
    """The memory, guarded.

    One at a URL has a time limit, since it could hang. A memory in this process is slow only when it computes, and a
    limit would add to that.
    """
    most = settings.batch_size if settings.batch_callers else 0
    deadline = Deadline(settings.memory_timeout_s, "memory_timeout_s") if "://" in settings.memory else None
    return GuardedMemory(memory, guard, deadline, most)


def open_or_await(settings: Settings, fingerprint: Fingerprint) -> Memory:
    """The memory of the settings; with ``on_memory_failure=degrade``, also one whose server is down now.

    Raises:
        MemoryUnavailable: its server is down, and ``on_memory_failure`` is ``fail``.
        MemoryTimeout: likewise, it does not answer in time.
        MemoryStoreError: any other error, see :func:`reco_plugin.memory.open_memory`.
    """
    try:
        return memory_of(settings, fingerprint)
    except (MemoryUnavailable, MemoryTimeout) as error:
        if settings.on_memory_failure == "fail":
            raise
        warnings.warn(
            f"beginning without the memory: {error}. Until it is reached, answers are frozen CLIP vectors "
            "(to have an error instead: on_memory_failure='fail')",
            DegradedWarning,
            stacklevel=4,
        )
    return memory_of(settings, fingerprint, later=True)
