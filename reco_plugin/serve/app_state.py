"""What all requests of a service share: its embedder, keys, threads, and the memory that bodies may take."""

from __future__ import annotations

import asyncio
import time

from .auth import Keys
from .embedder import Embedder
from .executor import Lanes
from .failures import Failure
from .service_settings import ServeSettings
from .version_routes import VersionInUse

_WAITING = 64  # requests that wait for a batch, one and the next, or for room to decode an image
_LOOK_S = 0.01


class Budget:
    """Memory that requests may take together; used from the event loop."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0
        self._held: dict[object, int] = {}  # by request, the oldest first
        self._room = asyncio.Condition()

    async def hold(self, request: object, count: int) -> None:
        """Wait for room until a request holds so many bytes; the oldest one always has room, so that it ends."""
        more = count - self._held.setdefault(request, 0)
        async with self._room:
            await self._room.wait_for(lambda: self.taken + more <= self.most or request is next(iter(self._held)))
            self._held[request] = count
            self.taken += more

    async def give(self, request: object) -> None:
        """Give back what a request holds."""
        if request in self._held:
            self.taken -= self._held.pop(request)  # also where this is cancelled
            async with self._room:
                self._room.notify_all()

    @property
    def refusal(self) -> Failure:
        """What is answered where there is no room."""
        message = f"requests take {self.taken:,} of {self.most:,} bytes (max_pending_bytes): try again later"
        return Failure(429, "too_many_bytes", message)


class Edge:
    """Shared by all requests."""

    def __init__(self, embedder: Embedder, settings: ServeSettings, token: str | None = None) -> None:
        """Start no thread yet; errors as of :class:`.Keys`."""
        self.embedder = embedder
        self.settings = settings
        self.keys = Keys(settings, token)
        self.lanes = Lanes(
            threads=settings.threads,
            queue=settings.queue,
            deadline_s=settings.deadline_s,
            waiting=_WAITING,
        )
        """Runs requests."""
        self.writing = Lanes(threads=1, queue=settings.queue, deadline_s=settings.deadline_s)
        """Writes the memory: one change at a time, without blocking queries."""
        self.last_write = 0.0
        """When the memory was last written through this service, by ``time.time``; 0: never."""
        self.budget = Budget(settings.max_pending_bytes)
        """Memory that requests may take together."""
        self.in_use = VersionInUse(embedder.reco, self._wait_for_older)
        """The version of the memory that is in use, and how another one is put to use."""
        self.stopping = False
        """Whether the service stops: each answer closes its connection."""

    @property
    def busy(self) -> bool:
        """Whether a call waits or runs."""
        return bool(self.lanes.pending or self.writing.pending)

    async def close(self) -> None:
        """Wait for running calls, for ``shutdown_s`` at most."""
        until = time.monotonic() + self.settings.shutdown_s
        await self.lanes.close(until)
        await self.writing.close(until)

    def _wait_for_older(self) -> None:
        """Wait until what began before now is answered, or nobody waits for it any more."""
        moment = time.perf_counter()
        while self.lanes.has_begun_before(moment) and time.perf_counter() < moment + self.settings.deadline_s:
            time.sleep(_LOOK_S)
