"""Threads for the synchronous core behind a bounded queue: what does not fit is refused, what is late is left alone."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..counters import SECONDS, Histogram
from .failures import Failure, Refused

T = TypeVar("T")
_RETRY_S = 1.0


@dataclass(frozen=True)
class Ran(Generic[T]):
    """What a call returned, and how long it had waited."""

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
            deadline_s: waiting and working together.
        """
        self.queue_s = Histogram(SECONDS)
        """Seconds that calls waited."""
        self._threads, self._queue, self._deadline_s = threads, queue, deadline_s
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._pending, self._closed = 0, False
        self._running: dict[int, float] = {}  # ident of a thread -> since when

    async def run(self, call: Callable[[], T]) -> Ran[T]:
        """Wait for a thread and for the call.

        A call that is late goes on, since nothing can stop it, and keeps its place until then; its answer is dropped.

        Raises:
            Refused: 429, the queue is full; 504, the deadline passed; 503, the pool is closed.
        """
        with self._lock:
            if self._closed:
                raise Refused(Failure(503, "stopping", "the service is stopping: ask another one"))
            if self._pending >= self._threads + self._queue:
                message = f"{self._pending} requests are being answered or wait already: try again later"
                raise Refused(Failure(429, "queue_full", message, retry_after_s=_RETRY_S))
            self._pending += 1
            context = contextvars.copy_context()  # the request's id, for the log
            future: Future[Ran[T]] = self._executor.submit(context.run, self._work, call, time.perf_counter())
        future.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._deadline_s) as limit:
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if not limit.expired():
                raise  # the call's own
            message = f"no answer within {self._deadline_s:g} s (deadline_s): send less at once, or try again later"
            raise Refused(Failure(504, "deadline_exceeded", message)) from None

    @property
    def pending(self) -> int:
        """Calls that wait or run."""
        with self._lock:
            return self._pending

    @property
    def hangs(self) -> bool:
        """Whether every thread has been busy with one call for twice the deadline."""
        with self._lock:
            since = list(self._running.values())
        late = time.perf_counter() - 2 * self._deadline_s
        return len(since) >= self._threads and max(since) < late

    async def close(self) -> None:
        """Let what runs end, and start nothing more."""
        with self._lock:
            self._closed = True
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

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
