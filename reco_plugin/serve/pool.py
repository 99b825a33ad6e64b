"""Threads for the synchronous core behind a bounded queue: a full queue refuses calls, late calls are given up."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..counters import SECONDS, Histogram
from .failures import STOPPING, Failure, Refused

T = TypeVar("T")
_RETRY_S = 1.0
_given_up: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("given_up", default=None)


def still_wanted() -> None:
    """Stop a call that no client waits for; called between the items of a long call, before anything is changed.

    Raises:
        Refused: the deadline of the call passed, its client left, or the service stops.
    """
    event = _given_up.get()
    if event is not None and event.is_set():
        raise Refused(Failure(503, "given_up", "no client waits for the answer any more"))


async def _never() -> None:
    """Never return: a client that cannot leave."""
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Ran(Generic[T]):
    """The result of a call, and how long it had waited."""

    value: T
    queue_s: float


class Pool:
    """Runs calls in threads; used from one event loop."""

    def __init__(self, name: str, *, threads: int, queue: int, deadline_s: float) -> None:
        """Start no thread yet.

        Args:
            name: of the threads.
            threads: calls at the same time.
            queue: calls that may wait.
            deadline_s: for waiting and running together.
        """
        self.queue_s = Histogram(SECONDS)
        """Seconds that calls waited."""
        self._threads, self._queue, self._deadline_s = threads, queue, deadline_s
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._pending, self._closed = 0, False
        self._running: dict[int, float] = {}  # ident of a thread -> since when

    async def run(self, call: Callable[[], T], left: Callable[[], Coroutine[Any, Any, None]] = _never) -> Ran[T]:
        """Wait for a thread and for the call.

        A call whose deadline passed or whose client left is dropped if it still waits; a running one keeps its thread
        and ends with the current item, see :func:`still_wanted`.

        Args:
            call: what to run.
            left: returns when the client is gone.

        Raises:
            Refused: 429, the queue is full; 504, the deadline passed; 499, the client left; 503, the pool is closed.
        """
        event = threading.Event()
        with self._lock:
            self._check_room()
            self._pending += 1
            context = contextvars.copy_context()  # the request's id, for the log
            context.run(_given_up.set, event)
            future: Future[Ran[T]] = self._executor.submit(context.run, self._work, call, time.perf_counter())
        future.add_done_callback(self._done)
        answer, leaving = asyncio.wrap_future(future), asyncio.ensure_future(left())
        either: set[asyncio.Future[Any]] = {answer, leaving}
        try:
            await asyncio.wait(either, timeout=self._deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if leaving.done():
                leaving.result()  # raises an error of the rest of the request
                raise Refused(Failure(499, "client_left", "the client closed the connection"))
            message = f"no answer within {self._deadline_s:g} s (deadline_s): send less at once, or try again later"
            raise Refused(Failure(504, "deadline_exceeded", message))
        finally:
            event.set()
            answer.cancel()
            leaving.cancel()

    def check_room(self) -> None:
        """Check whether a call would be accepted, before any work is done for it.

        Raises:
            Refused: 429, the queue is full; 503, the pool is closed.
        """
        with self._lock:
            self._check_room()

    @property
    def pending(self) -> int:
        """Calls that wait or run."""
        with self._lock:
            return self._pending

    def hangs(self, deadlines: float) -> bool:
        """Whether every thread has been busy with one call for so many deadlines."""
        with self._lock:
            since = list(self._running.values())
        late = time.perf_counter() - deadlines * self._deadline_s
        return len(since) >= self._threads and max(since) < late

    async def close(self) -> None:
        """Wait for running calls, and start no more."""
        with self._lock:
            self._closed = True
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def _check_room(self) -> None:
        if self._closed:
            raise Refused(STOPPING)
        if self._pending >= self._threads + self._queue:
            message = f"{self._pending} requests run or wait already: try again later"
            raise Refused(Failure(429, "queue_full", message, retry_after_s=_RETRY_S))

    def _work(self, call: Callable[[], T], submitted: float) -> Ran[T]:
        me, started = threading.get_ident(), time.perf_counter()
        with self._lock:
            self._running[me] = started
        waited = started - submitted
        self.queue_s.observe(waited)
        try:
            return Ran(call(), waited)
        finally:
            with self._lock:
                del self._running[me]

    def _done(self, _: Future[Any]) -> None:
        with self._lock:
            self._pending -= 1
