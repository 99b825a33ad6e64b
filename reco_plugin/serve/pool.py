"""Threads for the synchronous core behind a bounded queue: a full queue refuses calls, late calls are given up.

What waits is counted in inputs (texts, images, vectors), not in calls: engines that send one object a request, a
hundred at once, and lose those that are refused, wait for as long as one call with a hundred does.

Answers are written in them, too (:mod:`reco_plugin.serve.wire`). Triton uses this where there is no FastAPI.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar, cast

import numpy.typing as npt
from pydantic import BaseModel

from ..counters import SECONDS, Histogram
from .failures import STOPPING, Failure, Refused
from .logs import LOGGER

T = TypeVar("T")
Answer: TypeAlias = BaseModel | Mapping[str, Any] | Sequence[Any]
"""What a route answers; a list of it may be made :func:`while_written`."""
log = logging.getLogger(LOGGER)
_RETRY_S = 1.0
_NO_THREAD = Failure(
    503,
    "no_thread",
    "the system starts no thread for this, by a limit of the container or the user",
    retry_after_s=_RETRY_S,
)


class _Worker(threading.Thread):
    """Runs what is put into its queue, until None."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def run(self) -> None:
        while (work := self.work.get()) is not None:
            work()
            del work  # which holds its answer


class Work(Future[T]):
    """A call that waits for a thread, or runs; its result is that of the call, and how many seconds it had waited."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.begin: Callable[[], None] | None = None  # while it waits: the one way to what its caller sent
        self.worker: _Worker | None = None  # from when it runs
        self.given_up = threading.Event()
        self.computes = True  # whether it has one of the pool's places, or waits for one

    def give_up(self) -> None:
        """Nobody waits for it any more: drop it with all that it holds if it has not begun; else it ends soon."""
        if not self.done():
            self.given_up.set()
            self.pool.drop(self)


_current: contextvars.ContextVar[Work[Any] | None] = contextvars.ContextVar("current", default=None)


def still_wanted() -> None:
    """Stop a call that no client waits for; called between the items of a long call, before anything is changed.

    Raises:
        Refused: the deadline of the call passed, its client left, or the service stops.
    """
    call = _current.get()
    if call is not None and call.given_up.is_set():
        raise Refused(Failure(503, "given_up", "no client waits for the answer any more"))


def leave_place() -> None:
    """Let another call begin, while this one waits for a batch of several callers."""
    call = _current.get()
    if call is not None and call.computes:
        call.computes = False
        call.pool.leave_place()


def take_place() -> None:
    """Wait for a place among the calls that are computed at the same time; does nothing in a call that has one.

    Raises:
        Refused: nobody waits any more, see :func:`still_wanted`.
    """
    call = _current.get()
    if call is not None and not call.computes:
        call.computes = True
        call.pool.take_place()
        still_wanted()


class Pool:
    """Runs calls in threads; who waits for one, and how long, is :mod:`reco_plugin.serve.life`."""

    def __init__(self, name: str, *, threads: int, queue: int, deadline_s: float, batched: int = 0) -> None:
        """Start no thread yet.

        Args:
            name: of the threads.
            threads: calls that are computed at the same time.
            queue: inputs of calls that may wait; where none waits, one call may have more.
            deadline_s: after which nobody waits for a call, see :meth:`hangs`.
            batched: of those that may wait, how many may have left their place, see :func:`leave_place`.
        """
        self.queue_s = Histogram(SECONDS)
        """Seconds that calls waited."""
        self._threads, self._queue, self._deadline_s = threads, queue, deadline_s
        self._most = threads + min(batched, queue)  # calls that are begun
        self._name = name
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []  # the last one is taken, whose caches are warm
        self._lock = threading.Lock()
        self._place_is_free = threading.Condition(self._lock)
        self._waiting: dict[Work[Any], None] = {}  # not begun, oldest first
        self._places, self._returning = threads, 0  # free; calls that left theirs and want one again
        self._inputs: dict[Work[Any], int] = {}  # of calls that wait or run, oldest first
        self._all_inputs, self._closed = 0, False
        self._running: dict[Work[Any], float] = {}  # since when

    def submit(self, call: Callable[[], T], inputs: int = 1) -> Work[tuple[T, float]]:
        """Queue a call; its result comes with the seconds that it had waited. It may be given up at any time.

        Raises:
            Refused: 429, the queue is full; 503, the pool is closed, or the system starts no thread.
        """
        with self._lock:
            self._check_room(inputs)
            work = Work[tuple[T, float]](self)
            self._inputs[work] = inputs
            self._all_inputs += inputs
            context = contextvars.copy_context()  # the request's id, for the log
            context.run(_current.set, work)
            work.begin = partial(context.run, self._work, work, call, time.perf_counter())
            self._waiting[work] = None
            self._begin()
            if not self._workers:
                del self._waiting[work]
                self._all_inputs -= self._inputs.pop(work)
                raise Refused(_NO_THREAD)
        work.add_done_callback(self._done)
        return work

    def drop(self, work: Work[Any]) -> None:
        """Take a call out of the queue, if it is there."""
        with self._lock:
            work.begin = None
            waits = work in self._waiting
            self._waiting.pop(work, None)
        if waits:
            work.cancel()

    def check_room(self) -> None:
        """Check whether a call would be accepted, before any work is done for it.

        Raises:
            Refused: 429, the queue is full; 503, the pool is closed.
        """
        with self._lock:
            self._check_room()

    @property
    def refusal(self) -> Failure | None:
        """Why a call would be refused now; None: it would be accepted."""
        if self._all_inputs < self._queue and not self._closed:  # without waiting for a thread that holds the lock
            return None
        try:
            self.check_room()
        except Refused as refused:
            return refused.failure
        return None

    def begin_threads(self) -> None:
        """Start all threads, or those that the system allows; blocks, since whoever starts one waits until it runs."""
        for _ in range(self._most):
            with self._lock:
                if self._closed or len(self._workers) >= self._most:
                    return
                try:
                    self._idle.insert(0, self._start_worker())
                except RuntimeError as error:  # a limit of the container or the user: fewer calls are begun at once
                    self._most = max(1, len(self._workers))
                    log.warning("calls get %d threads, not all that they may take: %s", self._most, error)
                    return

    @property
    def pending(self) -> int:
        """Calls that wait or run."""
        with self._lock:
            return len(self._inputs)

    def hangs(self, deadlines: float) -> bool:
        """Whether as many calls as are computed at the same time have taken so many deadlines."""
        late = time.perf_counter() - deadlines * self._deadline_s
        with self._lock:
            return sum(since < late for since in self._running.values()) >= self._threads

    def has_begun_before(self, moment: float) -> bool:
        """Whether a call still runs that began before a moment of ``time.perf_counter``."""
        with self._lock:
            return any(since < moment for since in self._running.values())

    def leave_place(self) -> None:
        """Let another call be computed; see the function of this name."""
        with self._lock:
            self._places += 1
            self._begin()

    def take_place(self) -> None:
        """Wait until a call ends or leaves its place; before those that have not begun."""
        with self._lock:
            self._returning += 1
            self._place_is_free.wait_for(lambda: self._places)
            self._returning -= 1
            self._places -= 1

    async def close(self) -> None:
        """Wait for running calls, and start no more."""
        with self._lock:
            self._closed = True
            dropped = [*self._waiting]
            self._waiting.clear()
        for work in dropped:
            work.cancel()
        for worker in self._workers:
            worker.work.put(None)
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for worker in self._workers:
            worker.join()

    def _check_room(self, inputs: int = 1) -> None:
        if self._closed:
            raise Refused(STOPPING)
        if len(self._inputs) < self._threads:
            return
        waiting = self._all_inputs - sum(islice(self._inputs.values(), self._threads))
        if waiting + inputs > self._queue and (waiting or not self._queue):
            message = f"{waiting:,} inputs wait already, the limit is {self._queue:,} (queue): try again later"
            raise Refused(Failure(429, "queue_full", message, retry_after_s=_RETRY_S))

    def _begin(self) -> None:
        """Fill free places; the lock is held."""
        self._place_is_free.notify(self._places)
        while self._waiting and self._places > self._returning and len(self._running) < self._most:
            if not self._idle:
                try:
                    self._idle.append(self._start_worker())
                except RuntimeError as error:  # as in begin_threads; those that wait are begun when another one ends
                    log.warning("a call waits, since it gets no thread: %s", error)
                    return
            work = next(iter(self._waiting))
            del self._waiting[work]
            begin, work.begin = work.begin, None
            if begin is not None and work.set_running_or_notify_cancel():
                self._places -= 1
                self._running[work] = time.perf_counter()
                work.worker = self._idle.pop()
                work.worker.work.put(begin)

    def _start_worker(self) -> _Worker:
        worker = _Worker(name=f"{self._name}_{len(self._workers)}", daemon=True)
        worker.start()
        self._workers.append(worker)
        return worker

    def _work(self, work: Work[tuple[T, float]], call: Callable[[], T], submitted: float) -> None:
        waited = time.perf_counter() - submitted
        self.queue_s.observe(waited)
        try:
            answer = call(), waited
        except BaseException as error:
            self._end(work)
            work.set_exception(error)
        else:
            self._end(work)
            work.set_result(answer)
        finally:
            del call, work  # an error holds this frame, and is held by the work

    def _end(self, work: Work[Any]) -> None:
        with self._lock:
            del self._running[work]
            self._places += work.computes
            if work.worker is not None:
                self._idle.append(work.worker)
            self._begin()

    def _done(self, work: Future[Any]) -> None:
        with self._lock:
            self._all_inputs -= self._inputs.pop(cast("Work[Any]", work))


def as_written(vectors: npt.NDArray[Any]) -> Any:
    """Vectors (D,) or (B, D) for a model's field that says lists: they are written from their array."""
    return vectors


def while_written(items: Iterator[T]) -> list[T]:
    """Items of a list that are made one at a time, when they are written."""
    return cast("list[T]", items)
