"""The async side: the embedder for one HTTP request, with its queue and the headers of its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request, Response

from ..memory.time_limit import CallLimit, limited
from ..types import Coverage, Degraded
from .embedder import Embedded, Embedder, EmbedRequest, Item
from .failures import Failure, Refused
from .keys import Keys
from .lanes import Lanes, take_place
from .life import Budget, Life
from .settings import ServeSettings
from .versions import VersionInUse
from .wire import Answer, answer_json, write_json

T = TypeVar("T")
NO_ROLE = (
    "plain, since the request has no role: for text queries to an index of images, name an alias for queries"
    " (clip-reco-query), or send input_type"
)
"""Header ``x-reco-note``."""
MANY_QUERIES = (
    "refined as queries; if this is an index, it must be plain: send the role document (input_type), or name clip"
)
"""Likewise, of requests with many queries: some clients index so by default (``@ai-sdk/cohere``)."""
_MANY = 16  # queries in a request
_BATCHED = 64  # requests that wait for a batch, one and the next
_LOOK_S = 0.01
_FEW = 16  # rows whose answer is written in a millisecond, beside calls that are computed


class Edge:
    """Shared by all requests; calling it with a request makes its :class:`Caller`."""

    def __init__(self, embedder: Embedder, settings: ServeSettings, token: str | None = None) -> None:
        """Start no thread yet; errors as of :class:`.Keys`."""
        self.embedder = embedder
        self.settings = settings
        self.keys = Keys(settings, token)
        self.lanes = Lanes(
            threads=settings.threads,
            queue=settings.queue,
            deadline_s=settings.deadline_s,
            batched=_BATCHED if embedder.reco.encoder.batches_callers else 0,
        )
        """Runs requests."""
        self.writing = Lanes(threads=1, queue=settings.queue, deadline_s=settings.deadline_s)
        """Writes the memory: one change at a time, without blocking queries."""
        self.last_write = 0.0
        """When the memory was last written through this service, by ``time.time``; 0: never."""
        self.reading = CapacityLimiter(1)
        """Of the threads that decode what was sent."""
        self.budget = Budget(settings.max_pending_bytes)
        """Memory that requests may take together."""
        self.in_use = VersionInUse(embedder.reco, self._wait_for_older)
        """The version of the memory that is in use, and how another one is put to use."""

    def __call__(self, request: Request) -> Caller:
        """The view of one request."""
        return Caller(self, request)

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


class Caller:
    """One HTTP request as a dialect sees it: what it wants of the service, and the headers of its answer."""

    def __init__(self, edge: Edge, request: Request) -> None:
        self._edge, self._request = edge, request
        self._life: Life = request.state.life
        self.id = self._life.id
        self.embedder, self.settings = edge.embedder, edge.settings

    async def make(self, call: Callable[[], T]) -> T:
        """Run a call that reads what was sent, in a thread where that is much: decoding holds up other requests."""
        return await to_thread.run_sync(call, limiter=self._edge.reading) if self._life.bytes else call()

    async def answer(self, request: EmbedRequest, write: Callable[[Embedded], Answer]) -> Response:
        """Wait in the queue, embed B items to (B, D), write the answer in the same thread, and set its headers.

        Args:
            request: what to embed.
            write: makes the answer of it.

        Raises:
            Refused: unknown model, too many items, or the queue is full (429).
            RecoError: the whole request failed.
        """
        prefix = getattr(self._request.state, "prefix", None)
        if request.explain:
            self.see_pairs()

        def work() -> tuple[Embedded, bytes | Failure]:
            found = self.embedder.embed(request, prefix)
            if len(found.rows) > _FEW:
                take_place()
            try:
                return found, write_json(write(found))
            except Refused as refused:  # the headers of what was done go with it
                return found, refused.failure

        (found, made), waited_s = await self._life.work(
            self._edge.lanes, work, len(request.items), bulk=is_bulk(request)
        )
        self._describe(request, found, {"queue": waited_s, **found.seconds})
        if self.embedder.interpret(request, prefix).lacks_role:
            self._note("no_role", NO_ROLE)
        elif request.side == "query" and sum(row.refined or bool(row.plain) for row in found.rows) >= _MANY:
            self._note("many_queries", MANY_QUERIES)
        if isinstance(made, Failure):
            raise Refused(made)
        return answer_json(made)

    async def reply(self, call: Callable[[], Answer]) -> Response:
        """Run another call that only reads, in the same queue, and write what it returns.

        Raises:
            Refused: see :meth:`.Lanes.run`.
        """
        made, _ = await self._life.work(self._edge.lanes, lambda: write_json(call()))
        return answer_json(made)

    async def write(self, call: Callable[[], Answer]) -> Response:
        """Run a call that changes the memory, and write what it returns.

        A server that is away is tried until the deadline: then its caller learns that it is down, and no call is left.
        """
        left_s = self._life.until - asyncio.get_running_loop().time()
        limit = CallLimit(time.monotonic() + left_s, self.settings.deadline_s, "deadline_s")

        def within() -> bytes:
            with limited(limit):
                made = write_json(call())
            self._edge.last_write = time.time()
            return made

        made, _ = await self._life.work(self._edge.writing, within)
        return answer_json(made)

    def see_pairs(self) -> None:
        """Check that this caller may see pairs of the memory.

        Raises:
            Refused: 401 or 403.
        """
        self._life.key = self._edge.keys.check("read", self._life.sent)

    def _describe(self, request: EmbedRequest, answer: Embedded, seconds: Mapping[str, float]) -> None:
        """Note in headers and log what was done."""
        life, rows = self._life, answer.rows
        self._set_headers(seconds, len(rows), refined_word(answer), answer.degraded, answer.coverage.get("text"))
        if answer.target is not None:
            life.headers["x-reco-target"] = answer.target
        if len(rows) == 1 and (presence := rows[0].presence) is not None:
            life.headers["x-reco-presence"] = f"{presence:.3f}"
        if len(rows) == 1 and request.cut is None and (scale := rows[0].scale) is not None:
            life.headers["x-reco-scale"] = f"{scale[0]:.6g} {scale[1]:.6g}"
        if failed := sum(row.failure is not None for row in rows):
            life.log["failed_items"] = failed

    def _note(self, word: str, note: str) -> None:
        self._life.headers["x-reco-note"] = note
        self._life.log["note"] = word

    def _set_headers(
        self,
        seconds: Mapping[str, float],
        items: int,
        refined: str,
        degraded: Degraded | None,
        coverage: Coverage | None,
    ) -> None:
        """Note the response's headers and the fields of the log."""
        headers = {"server-timing": server_timing(seconds), "x-reco-refined": refined}
        log: dict[str, Any] = {"items": items, "refined": refined}
        if degraded:
            headers["x-reco-degraded"] = log["degraded"] = degraded
        if coverage is not None and coverage.answered is not None:
            headers["x-reco-coverage"] = f"{coverage.answered:.2f}"
        self._life.headers |= headers
        self._life.log |= log


def is_bulk(request: EmbedRequest) -> bool:
    """Whether queries go before a request: one for an index, or of many items, or of several pictures."""
    items = request.items
    pictures = sum(isinstance(item, Item) and item.is_picture for item in items)
    return request.side == "document" or len(items) > _FEW or pictures > 1


def refined_word(answer: Embedded) -> str:
    """``true``, ``false`` or ``partly``, of the items that have a vector."""
    words = {row.refined for row in answer.rows if row.failure is None}
    return "partly" if len(words) > 1 else str(words == {True}).lower()


def server_timing(seconds: Mapping[str, float]) -> str:
    """The header ``server-timing``, which browsers show: milliseconds of each step.

    >>> server_timing({"queue": 0.001, "encode": 0.0125})
    'queue;dur=1.00, encode;dur=12.50'
    """
    return ", ".join(f"{step};dur={1000 * value:.2f}" for step, value in seconds.items())
