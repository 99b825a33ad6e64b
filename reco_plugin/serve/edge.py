"""The async side: the embedder for one HTTP request, with its URL prefix, the queue and the response's headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Request

from .auth import credential
from .bodies import Bodies
from .embedder import Embedder
from .embedding import Embedded, EmbedRequest, Timings
from .pool import Pool
from .settings import ServeSettings

if TYPE_CHECKING:
    from .fetch import ImageFetcher

T = TypeVar("T")
NO_ROLE = "plain, since neither query nor document was said: name an alias for queries (clip-reco-query), or input_type"
"""Header ``x-reco-note``."""
TOLD = ("x-reco-refined", "x-reco-degraded", "x-reco-note", "server-timing", "x-request-id", "retry-after")
"""Headers of answers that callers read."""


_BATCHED = 64  # requests that wait for a batch, one and the next


class Edge:
    """Shared by all requests; calling it with a request makes its :class:`Caller`."""

    def __init__(self, embedder: Embedder, settings: ServeSettings) -> None:
        self.embedder = embedder
        self.settings = settings
        self.pool = Pool(
            "reco-embed",
            threads=settings.threads,
            queue=settings.queue,
            deadline_s=settings.deadline_s,
            batched=_BATCHED if embedder.reco.encoder.batches_callers else 0,
        )
        """Runs requests."""
        self.writing = Pool("reco-memory", threads=1, queue=settings.queue, deadline_s=settings.deadline_s)
        """Writes the memory: one change at a time, without blocking queries."""
        self.bodies = Bodies(settings)
        self.fetch = image_fetcher(settings)
        """Fetches images by URL; None if that is off."""

    def __call__(self, request: Request) -> Caller:
        """The view of one request."""
        return Caller(self, request)

    async def close(self) -> None:
        """Wait for running calls."""
        await self.pool.close()
        await self.writing.close()


class Caller:
    """One HTTP request as a dialect sees it; knows the URL's prefix, the queue and the deadline."""

    def __init__(self, edge: Edge, request: Request) -> None:
        self._edge, self._request = edge, request
        limits = edge.settings
        self.fetch = edge.fetch and edge.fetch.for_request(
            max_images=limits.max_images, max_bytes=limits.max_body_bytes
        )
        """Fetches the image of a URL, or raises Refused; None if URLs are not fetched."""

    @property
    def dimension(self) -> int:
        """D of all vectors."""
        return self._edge.embedder.dimension

    @property
    def max_image_bytes(self) -> int:
        """Largest encoded image."""
        return self._edge.settings.max_image_bytes

    @property
    def aliases(self) -> Mapping[str, str]:
        """Model alias -> plain, refined or query; a dialect without a model field shows the first."""
        return self._edge.embedder.aliases

    async def embed(self, request: EmbedRequest) -> Embedded:
        """Wait in the queue, embed B items to (B, D), and set the response's headers.

        Raises:
            Refused: unknown model, too many items, queue full (429), or the deadline passed (504).
            RecoError: the whole request failed.
        """
        prefix = getattr(self._request.state, "prefix", None)
        if request.explain:
            self.see_pairs()
        ran = await self._edge.pool.run(lambda: self._edge.embedder.embed(request, prefix), self._left)
        answer = replace(ran.value, timings=replace(ran.value.timings, queue_s=ran.queue_s))
        self._tell(answer)
        if self._edge.embedder.asked(request, prefix).lacks_role:
            self._request.state.headers["x-reco-note"] = NO_ROLE
            self._request.state.log["note"] = "no_role"
        return answer

    async def ask(self, call: Callable[[], T]) -> T:
        """Run another call that only reads, in the same queue."""
        return (await self._edge.pool.run(call, self._left)).value

    async def write(self, call: Callable[[], T]) -> T:
        """Run a call that changes the memory."""
        return (await self._edge.writing.run(call, self._left)).value

    def see_pairs(self) -> None:
        """Check that this caller may see pairs of the memory.

        Raises:
            Refused: 401 or 403.
        """
        self._request.app.state.guard.check_pairs(credential(self._request.headers))

    async def _left(self) -> None:
        """Return when the client disconnects."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass  # an empty body that was not read

    def _tell(self, answer: Embedded) -> None:
        """Note the response's headers and the fields of the log."""
        headers = {"server-timing": server_timing(answer.timings), "x-reco-refined": refined_word(answer)}
        log: dict[str, Any] = {"items": len(answer.failures), "refined": headers["x-reco-refined"]}
        if answer.degraded:
            headers["x-reco-degraded"] = log["degraded"] = answer.degraded
        if failed := sum(failure is not None for failure in answer.failures):
            log["failed_items"] = failed
        self._request.state.headers, self._request.state.log = headers, log


def image_fetcher(settings: ServeSettings) -> ImageFetcher | None:
    """The fetcher of images by URL, or None if that is off."""
    if not settings.image_urls:
        return None
    from .fetch import ImageFetcher

    return ImageFetcher(settings.max_image_bytes, settings.image_url_timeout_s, settings.image_url_hosts)


def refined_word(answer: Embedded) -> str:
    """``true``, ``false`` or ``partly``, of the items that have a vector."""
    words = {done for done, failure in zip(answer.refined, answer.failures, strict=True) if failure is None}
    return "partly" if len(words) > 1 else str(words == {True}).lower()


def server_timing(timings: Timings) -> str:
    """The header ``server-timing``, which browsers show.

    >>> server_timing(Timings(queue_s=0.001, encode_s=0.0125))
    'queue;dur=1.00, encode;dur=12.50'
    """
    steps = ((name.removesuffix("_s"), value) for name, value in asdict(timings).items() if value is not None)
    return ", ".join(f"{step};dur={1000 * seconds:.2f}" for step, seconds in steps)
