"""Threads for the synchronous core, in two lanes: queries never wait for bulk, but for one batch of it.

A call is refused (429) where too many inputs wait; else it waits for a thread of its lane, and then for one of the
places of those that compute at the same time. A query is given a place before bulk is, and bulk gives its own to
queries that wait, between two items or batches (:func:`still_wanted`).

What waits is counted in inputs (texts, images, vectors), not in calls: engines that send one object a request, a
hundred at once, and lose those that are refused, wait for as long as one call with a hundred does.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TypeVar

from anyio import CapacityLimiter, WouldBlock, to_thread
from prometheus_client import Histogram

from ..counters import SECONDS
from .failures import STOPPING, Failure, Refused

T = TypeVar("T")
_GIVEN_UP = Failure(503, "given_up", "no client waits for the answer any more")
_LOOK_S = 0.02
_SMALL = 1_000_000
"""Pixels of an image that waits for no room: it takes 16 MB in each thread."""


class LaneCall:
    """A call that waits, or runs in a thread."""

    def __init__(self, places: Places, inputs: int, *, bulk: bool) -> None:
        self.places, self.inputs, self.bulk = places, inputs, bulk
        self.began: float | None = None  # a moment of time.perf_counter
        self.limiter: CapacityLimiter | None = None  # of its lane, once it was let in
        self.given_up = self.computes = self.done = False

    def take_place(self) -> None:
        """Wait for a place, unless it has one.

        Raises:
            Refused: it was given up meanwhile.
        """
        if not self.computes:
            self.computes = self.places.take(self)
            if not self.computes:
                raise Refused(_GIVEN_UP)

    def leave_place(self) -> None:
        """Let another one compute."""
        if self.computes:
            self.computes = False
            self.places.give()


_current: contextvars.ContextVar[LaneCall | None] = contextvars.ContextVar("current", default=None)


def still_wanted() -> None:
    """Stop a call that no client waits for, and let queries pass bulk.

    Called between the items or batches of a long call, before anything is changed.

    Raises:
        Refused: the deadline of the call passed, its client left, or the service stops.
    """
    ticket = _current.get()
    if ticket is None:
        return
    if ticket.bulk and ticket.computes and ticket.places.queries_wait:
        ticket.leave_place()
        ticket.take_place()
    if ticket.given_up:
        raise Refused(_GIVEN_UP)


def leave_place() -> None:
    """Let another call compute, while this one waits for a batch of several callers."""
    if (ticket := _current.get()) is not None:
        ticket.leave_place()


def take_place() -> None:
    """Wait for a place among the calls that compute; does nothing in a call that has one.

    Raises:
        Refused: nobody waits any more, see :func:`still_wanted`.
    """
    if (ticket := _current.get()) is not None:
        ticket.take_place()


class Places:
    """Places of the calls that compute at the same time; a query that waits is given one before bulk is."""

    def __init__(self, number: int) -> None:
        lock = threading.Lock()
        self._free, self._queries, self._bulk = number, threading.Condition(lock), threading.Condition(lock)
        self._waiting = 0  # queries

    @property
    def queries_wait(self) -> bool:
        """Whether a query waits for a place."""
        return self._waiting > 0

    def take(self, call: LaneCall) -> bool:
        """Wait for a place; blocks. False where the call was given up."""
        with (line := self._bulk if call.bulk else self._queries):
            self._waiting += not call.bulk
            line.wait_for(lambda: call.given_up or (self._free and not (call.bulk and self._waiting)))
            self._waiting -= not call.bulk
            self._free -= not call.given_up
            self._call_next()
            return not call.given_up

    def give(self) -> None:
        """Give a place back."""
        with self._queries:
            self._free += 1
            self._call_next()

    def drop(self, call: LaneCall) -> None:
        """Give a call up, and let it go if it waits."""
        with (line := self._bulk if call.bulk else self._queries):
            call.given_up = True
            line.notify_all()

    def _call_next(self) -> None:
        if self._free:
            (self._queries if self._waiting else self._bulk).notify()


class Pixels:
    """Room for the images that calls decode at the same time; a WebP of 34 bytes may have 50 million pixels."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Wait for room for an image of ``count`` pixels, and hold it meanwhile; one alone always has room.

        Others compute while a call waits here.

        Raises:
            Refused: nobody waits any more, see :func:`still_wanted`.
        """
        if count <= _SMALL:
            yield
            return
        leave_place()
        with self._turn, self._changed:  # in turn, so that smaller images do not keep a large one waiting
            self._changed.wait_for(lambda: not self.taken or self.taken + count <= self.most)
            self.taken += count
        try:
            take_place()
            yield
        finally:
            with self._changed:
                self.taken -= count
                self._changed.notify()


class Lanes:
    """Runs calls in threads."""

    def __init__(self, *, threads: int, queue: int, deadline_s: float, waiting: int = 0) -> None:
        """Start no thread yet.

        Args:
            threads: calls that compute at the same time.
            queue: inputs of calls that may wait; where none waits, one call may have more.
            deadline_s: after which nobody waits for a call, see :meth:`hangs`.
            waiting: queries that may have left their place besides, see :func:`leave_place`.
        """
        self.queue_s = Histogram("reco_queue_seconds", "seconds that requests waited", buckets=SECONDS, registry=None)
        """Seconds that calls waited."""
        self._threads, self._queue, self._deadline_s = threads, queue, deadline_s
        self._places = Places(threads)
        self._queries = CapacityLimiter(threads + min(waiting, queue))
        self._bulk = CapacityLimiter(2 * threads)  # one decodes while the other one's batch is encoded
        self._unbounded = CapacityLimiter(math.inf)  # what bounds a thread is above: a call that hangs keeps its share
        self._calls: dict[LaneCall, None] = {}  # that wait or run, the oldest first
        self.inputs = 0
        """Of the calls that wait or run."""
        self._closed = False
        self._lock = threading.Lock()

    async def run(self, call: Callable[[], T], inputs: int = 1, *, bulk: bool = False) -> tuple[T, float]:
        """Wait for a thread and for the call; return its result, and how many seconds it had waited.

        Where this is cancelled, a call that waits is dropped, and one that runs ends at its next :func:`still_wanted`.

        Raises:
            Refused: 429, the queue is full; 503, the service stops.
        """
        ticket, came, loop = self._enter(inputs, bulk=bulk), time.perf_counter(), asyncio.get_running_loop()

        def work() -> tuple[T, float]:
            self._begin(ticket)
            _current.set(ticket)
            try:
                ticket.take_place()
                waited = time.perf_counter() - came
                self.queue_s.observe(waited)
                return call(), waited
            finally:
                ticket.leave_place()
                with self._lock:
                    ticket.done, abandoned = True, ticket.given_up
                if abandoned:
                    with suppress(RuntimeError):  # the loop is closed
                        loop.call_soon_threadsafe(self._end, ticket)

        limiter = self._bulk if bulk else self._queries
        try:
            try:
                limiter.acquire_on_behalf_of_nowait(ticket)  # without a turn of the loop
            except WouldBlock:
                await limiter.acquire_on_behalf_of(ticket)
            ticket.limiter = limiter
            return await to_thread.run_sync(work, limiter=self._unbounded, abandon_on_cancel=True)
        finally:
            with self._lock:
                self._places.drop(ticket)
                runs = ticket.began is not None and not ticket.done
            if not runs:
                self._end(ticket)

    def check_room(self, inputs: int = 1) -> None:
        """Check whether a call would be accepted, before any work is done for it.

        Raises:
            Refused: 429, the queue is full; 503, the service stops.
        """
        if self._closed:
            raise Refused(STOPPING)
        if len(self._calls) < self._threads:
            return
        waiting = self.inputs - sum(ticket.inputs for ticket in islice(self._calls, self._threads))
        if waiting + inputs > self._queue and (waiting or not self._queue):
            message = f"{waiting:,} inputs wait already, the limit is {self._queue:,} (queue): try again later"
            raise Refused(Failure(429, "queue_full", message))

    @property
    def pending(self) -> int:
        """Calls that wait or run."""
        return len(self._calls)

    def hangs(self, deadlines: float) -> bool:
        """Whether as many calls as compute at the same time have taken so many deadlines."""
        late = time.perf_counter() - deadlines * self._deadline_s
        return sum(began < late for began in self._moments()) >= self._threads

    def has_begun_before(self, moment: float) -> bool:
        """Whether a call still runs that began before a moment of ``time.perf_counter``."""
        return any(began < moment for began in self._moments())

    async def close(self, until: float) -> None:
        """Start no call any more, and wait for those that run, until a moment of ``time.monotonic`` at most."""
        self._closed = True
        while self._calls and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)

    def _moments(self) -> list[float]:
        with self._lock:
            return [ticket.began for ticket in self._calls if ticket.began is not None]

    def _enter(self, inputs: int, *, bulk: bool) -> LaneCall:
        self.check_room(inputs)
        ticket = LaneCall(self._places, inputs, bulk=bulk)
        with self._lock:
            self._calls[ticket] = None
            self.inputs += inputs
        return ticket

    def _begin(self, ticket: LaneCall) -> None:
        with self._lock:
            if ticket.given_up:
                raise Refused(_GIVEN_UP)  # nobody reads it
            ticket.began = time.perf_counter()

    def _end(self, ticket: LaneCall) -> None:
        with self._lock:
            del self._calls[ticket]
            self.inputs -= ticket.inputs
        if ticket.limiter is not None:
            ticket.limiter.release_on_behalf_of(ticket)
