"""Threads for synchronous calls. Queries run before bulk work.

A call passes three gates: the limit of the queue (429 if it is full), a thread of its class (query or bulk), for which
callers take turns, and one of the slots for calls that compute. A query gets a slot before bulk does. Bulk gives its
slot to waiting queries at each :func:`checkpoint`, which is between two items or batches.

The queue counts inputs (texts, images, vectors), not calls. An engine that sends a hundred objects in a hundred
requests at once waits as long as one that sends them in one request, and none of them is refused.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, Generic, TypeVar

from anyio import CapacityLimiter, to_thread
from prometheus_client import Histogram

from ..counters import SECONDS
from .failures import STOPPING, Failure, Refused
from .wire import Answer, write_json

T = TypeVar("T")
_ABANDONED = Failure(503, "given_up", "no client waits for the answer any more")
_POLL_S = 0.02
_SMALL_PIXELS = 1_000_000
"""An image of at most so many pixels does not wait for memory: it takes 16 MB per thread."""


class QueuedCall(Generic[T]):
    """A call that waits, runs in a thread, or has ended."""

    result: T
    body: bytes  # the result as JSON
    waited_s: float  # for a thread and a slot

    def __init__(self, slots: Slots, inputs: int, caller: str, *, is_bulk: bool) -> None:
        self.slots, self.inputs, self.caller, self.is_bulk = slots, inputs, caller, is_bulk
        self.queued = time.perf_counter()
        self.started: float | None = None  # on the same clock
        self.turns: Turns | None = None  # of its class, once it has a thread
        self.is_abandoned = self.has_slot = self.is_done = False

    def start(self) -> None:
        """Record the start of the call. Refuse one that was abandoned."""
        if self.is_abandoned:
            raise Refused(_ABANDONED)
        self.started = time.perf_counter()

    def acquire_slot(self) -> None:
        """Wait for a slot, unless the call has one. Refuse a call that was abandoned meanwhile."""
        if not self.has_slot:
            self.has_slot = self.slots.acquire(self)
            if not self.has_slot:
                raise Refused(_ABANDONED)

    def release_slot(self) -> None:
        """Give the slot back, if the call has one."""
        if self.has_slot:
            self.has_slot = False
            self.slots.release()


_current: contextvars.ContextVar[QueuedCall[Any] | None] = contextvars.ContextVar("current", default=None)


def checkpoint() -> None:
    """Let waiting queries pass a bulk call, and stop a call whose client no longer waits.

    Long calls come here between two items or batches, before they change anything.

    Raises:
        Refused: the deadline of the call has passed, its client has left, or the service stops.
    """
    call = _current.get()
    if call is None:
        return
    if call.is_bulk and call.has_slot and call.slots.waiting_queries:
        call.release_slot()
        call.acquire_slot()
    if call.is_abandoned:
        raise Refused(_ABANDONED)


def release_slot() -> None:
    """Let another call compute while the current one waits for a batch that several callers share."""
    if (call := _current.get()) is not None:
        call.release_slot()


def acquire_slot() -> None:
    """Wait until the current call may compute; does nothing if it has a slot. Errors as of :func:`checkpoint`."""
    if (call := _current.get()) is not None:
        call.acquire_slot()


class Slots:
    """A fixed number of slots for calls that compute. Waiting queries get one before bulk does."""

    def __init__(self, number: int) -> None:
        lock = threading.Lock()
        self._free, self._queries, self._bulk = number, threading.Condition(lock), threading.Condition(lock)
        self.waiting_queries = 0
        """Number of queries that wait for a slot."""

    def acquire(self, call: QueuedCall[Any]) -> bool:
        """Block until there is a slot. Return False if the call was abandoned."""
        with (line := self._bulk if call.is_bulk else self._queries):
            self.waiting_queries += not call.is_bulk
            line.wait_for(lambda: call.is_abandoned or (self._free and not (call.is_bulk and self.waiting_queries)))
            self.waiting_queries -= not call.is_bulk
            self._free -= not call.is_abandoned
            self._notify_next()
            return not call.is_abandoned

    def release(self) -> None:
        """Free a slot."""
        with self._queries:
            self._free += 1
            self._notify_next()

    def abandon(self, call: QueuedCall[Any]) -> None:
        """Mark a call as abandoned, and wake it if it waits."""
        with (line := self._bulk if call.is_bulk else self._queries):
            call.is_abandoned = True
            line.notify_all()

    def _notify_next(self) -> None:
        if self._free:
            (self._queries if self.waiting_queries else self._bulk).notify()


class Turns:
    """A number of threads, for which callers take turns: none waits for all calls of another. Used from the loop."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by caller, whose turn is next first

    async def acquire(self, caller: str) -> None:
        """Wait for a thread."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came at the same moment
                self.release()
            raise

    def release(self) -> None:
        """Give a thread to the next caller."""
        while self._waiting:
            line = self._waiting.pop(caller := next(iter(self._waiting)))
            turn = line.popleft()
            if line:
                self._waiting[caller] = line  # behind the others
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class PixelBudget:
    """Memory for the images that all calls decode at the same time. A WebP of 34 bytes may have 50 million pixels."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait for memory for one image, without a slot, and hold it in the block. One image alone always has room."""
        if pixels <= _SMALL_PIXELS:
            yield
            return
        release_slot()
        with self._turn, self._changed:  # in turn, so that smaller images do not keep a large one waiting
            self._changed.wait_for(lambda: not self.used or self.used + pixels <= self.limit)
            self.used += pixels
        try:
            acquire_slot()
            yield
        finally:
            with self._changed:
                self.used -= pixels
                self._changed.notify()


class Executor:
    """Runs calls in threads."""

    def __init__(self, *, threads: int, queue: int, deadline_s: float, waiting: int = 0) -> None:
        """Start no thread yet.

        Args:
            threads: number of calls that compute at the same time.
            queue: limit of the inputs that wait. If nothing waits, one call may have more.
            deadline_s: seconds after which a client stops waiting, see :meth:`hangs`.
            waiting: number of further queries that may have released their slot, see :func:`release_slot`.
        """
        self.queue_s = Histogram("reco_queue_seconds", "seconds that requests waited", buckets=SECONDS, registry=None)
        """Seconds that calls waited."""
        self._threads, self._queue, self._deadline_s = threads, queue, deadline_s
        self._slots = Slots(threads)
        self._query_threads = Turns(threads + min(waiting, queue))
        self._bulk_threads = Turns(2 * threads)  # one decodes while the batch of the other is encoded
        self._unlimited = CapacityLimiter(math.inf)  # the two above are the limits; a call that hangs keeps its share
        self._calls: dict[QueuedCall[Any], None] = {}  # waiting and running, the oldest first
        self.inputs = 0
        """Number of inputs that wait or are computed."""
        self._inputs_of = Counter[str]()  # by caller
        self._is_closed = False
        self._lock = threading.Lock()

    async def run(
        self,
        call: Callable[[], T],
        to_answer: Callable[[T], Answer] | None = None,
        *,
        inputs: int = 1,
        is_bulk: bool = False,
        caller: str = "",
    ) -> QueuedCall[T]:
        """Run a call in a thread, and write its result as JSON there.

        If this is cancelled, a waiting call is dropped, and a running one ends at its next :func:`checkpoint`.

        Args:
            call: the work.
            to_answer: converts the result to what JSON holds; None: the result is written as it is.
            inputs: number of texts, images and vectors, for the limit of the queue.
            is_bulk: whether queries go first.
            caller: who shares the queue and the threads with others.
        """
        self.check_room(inputs, caller)
        job, loop = QueuedCall[T](self._slots, inputs, caller, is_bulk=is_bulk), asyncio.get_running_loop()
        with self._lock:
            self._calls[job] = None
            self.inputs += inputs
            self._inputs_of[caller] += inputs
        turns = self._bulk_threads if is_bulk else self._query_threads
        try:
            await turns.acquire(caller)
            job.turns = turns
            await to_thread.run_sync(
                self._compute, job, call, to_answer, loop, limiter=self._unlimited, abandon_on_cancel=True
            )
            return job
        finally:
            with self._lock:
                self._slots.abandon(job)
                is_running = job.started is not None and not job.is_done
            if not is_running:
                self._remove(job)

    def _compute(
        self,
        job: QueuedCall[T],
        call: Callable[[], T],
        to_answer: Callable[[T], Answer] | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """The half of :meth:`run` in the thread."""
        with self._lock:
            job.start()
        _current.set(job)
        try:
            job.acquire_slot()
            job.waited_s = time.perf_counter() - job.queued
            self.queue_s.observe(job.waited_s)
            job.result = call()
            job.body = write_json(job.result if to_answer is None else to_answer(job.result))
        finally:
            job.release_slot()
            with self._lock:
                job.is_done, is_abandoned = True, job.is_abandoned
            if is_abandoned:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._remove, job)

    def _remove(self, job: QueuedCall[Any]) -> None:
        with self._lock:
            del self._calls[job]
            self.inputs -= job.inputs
            self._inputs_of[job.caller] -= job.inputs
            self._inputs_of += Counter()  # without those at zero
        if job.turns is not None:
            job.turns.release()

    def check_room(self, inputs: int = 1, caller: str = "") -> None:
        """Refuse a call if the queue is full (429) or the service stops (503), before any work is done for it.

        In a full queue, each caller still has an equal share, whatever the others send.
        """
        if self._is_closed:
            raise Refused(STOPPING)
        if len(self._calls) < self._threads:
            return
        waiting = self.inputs - sum(job.inputs for job in islice(self._calls, self._threads))
        if waiting + inputs > self._queue and (waiting or not self._queue):
            callers = len({*self._inputs_of, caller})
            if self._inputs_of[caller] + inputs <= self._queue // callers:
                return
            shared = f", shared by {callers} keys" if callers > 1 else ""
            message = f"{waiting:,} inputs wait already, the limit is {self._queue:,} (queue){shared}: try again later"
            raise Refused(Failure(429, "queue_full", message))

    @property
    def pending(self) -> int:
        """Number of calls that wait or run."""
        return len(self._calls)

    def hangs(self, deadlines: float) -> bool:
        """Return whether every slot has been taken by one call for so many deadlines."""
        limit = time.perf_counter() - deadlines * self._deadline_s
        return sum(started < limit for started in self._start_times()) >= self._threads

    def has_started_before(self, moment: float) -> bool:
        """Return whether a call still runs that started before a moment of ``time.perf_counter``."""
        return any(started < moment for started in self._start_times())

    async def close(self, until: float) -> None:
        """Refuse new calls, and wait for the running ones, at most until a moment of ``time.monotonic``."""
        self._is_closed = True
        while self._calls and time.monotonic() < until:
            await asyncio.sleep(_POLL_S)

    def _start_times(self) -> list[float]:
        with self._lock:
            return [job.started for job in self._calls if job.started is not None]
