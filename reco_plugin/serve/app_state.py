"""What all requests share: the embedder, the keys, the threads, and the memory for bodies."""

from __future__ import annotations

import asyncio
import time

from .auth import Keys
from .embedder import Embedder
from .executor import Executor
from .service_settings import ServeSettings
from .version_routes import LiveVersion

_WAITING = 64  # requests without a slot: in a batch, in the next one, or waiting for memory to decode an image
_POLL_S = 0.01


class ByteBudget:
    """Memory for the bodies of all requests. Used from the event loop."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._held: dict[object, int] = {}  # bytes by request, the oldest first
        self._changed = asyncio.Condition()

    async def hold(self, request: object, size: int) -> None:
        """Wait until a request may hold so many bytes. The oldest request always may, so that it ends."""
        more = size - self._held.setdefault(request, 0)
        async with self._changed:
            await self._changed.wait_for(lambda: self.used + more <= self.limit or request is next(iter(self._held)))
            self._held[request] = size
            self.used += more

    async def release(self, request: object) -> None:
        """Release what a request holds."""
        if request in self._held:
            self.used -= self._held.pop(request)  # before the first await, which may be cancelled
            async with self._changed:
                self._changed.notify_all()


class AppState:
    """State of one service, shared by all requests."""

    def __init__(self, embedder: Embedder, settings: ServeSettings, token: str | None = None) -> None:
        """Start no thread yet; errors as of :class:`.Keys`."""
        self.embedder = embedder
        self.settings = settings
        self.keys = Keys(settings, token)
        self.executor = Executor(
            threads=settings.threads, queue=settings.queue, deadline_s=settings.deadline_s, waiting=_WAITING
        )
        """Runs calls that read."""
        self.writer = Executor(threads=1, queue=settings.queue, deadline_s=settings.deadline_s)
        """Changes the memory, one call at a time, while queries go on."""
        self.last_write = 0.0
        """When this service last changed the memory, by ``time.time``; 0: never."""
        self.bytes = ByteBudget(settings.max_pending_bytes)
        """Memory for the bodies of all requests."""
        self.live_version = LiveVersion(embedder.reco, self._wait_for_running_calls)
        """The version of the memory that is served."""
        self.is_stopping = False
        """Whether the service stops: each answer then closes its connection."""

    @property
    def is_busy(self) -> bool:
        """Whether a call waits or runs."""
        return bool(self.executor.pending or self.writer.pending)

    async def close(self) -> None:
        """Wait for running calls, at most for ``shutdown_s``."""
        until = time.monotonic() + self.settings.shutdown_s
        await self.executor.close(until)
        await self.writer.close(until)

    def _wait_for_running_calls(self) -> None:
        """Block until every call that runs now has ended, at most for ``deadline_s``."""
        now = time.perf_counter()
        while self.executor.has_started_before(now) and time.perf_counter() < now + self.settings.deadline_s:
            time.sleep(_POLL_S)
