"""Where async begins: the embedder as one HTTP request sees it, with prefix, queue and the headers of the response."""

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


class Edge:
    """Holds what all requests share; called with one, it gives the :class:`Caller` of that one."""

    def __init__(self, embedder: Embedder, settings: ServeSettings) -> None:
        self.embedder = embedder
        """The core."""
        self.settings = settings
        """Limits."""
        self.pool = Pool("reco-embed", threads=settings.threads, queue=settings.queue, deadline_s=settings.deadline_s)
        """Where requests are computed."""
        self.writing = Pool("reco-memory", threads=1, queue=settings.queue, deadline_s=settings.deadline_s)
        """Where the memory is written: one change at a time, and never in the way of a query."""
        self.bodies = Bodies(settings)
        """Where bodies of requests are read."""
        self.fetch = image_fetcher(settings)
        """Gets images by URL; None where that is off."""

    def __call__(self, request: Request) -> Caller:
        """The view of one request."""
        return Caller(self, request)

    async def close(self) -> None:
        """Let what runs end."""
        await self.pool.close()
        await self.writing.close()


class Caller:
    """What a dialect holds while it answers one HTTP request; it knows the URL's prefix, the queue and the deadline."""

    def __init__(self, edge: Edge, request: Request) -> None:
        self._edge, self._request = edge, request
        limits = edge.settings
        self.fetch = edge.fetch and edge.fetch.for_request(
            max_images=limits.max_images, max_bytes=limits.max_body_bytes
        )
        """Gets the image of a URL, or raises Refused; None where URLs are not fetched."""

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
        """Model alias -> plain or refined; the first is what a dialect without a model field may show."""
        return self._edge.embedder.aliases

    async def embed(self, request: EmbedRequest) -> Embedded:
        """Wait in the queue, embed, and put what is to be said of it into the response's headers.

        Raises:
            Refused: unknown model, too many items, queue full (429), or the deadline passed (504).
            RecoError: nothing could be embedded at all; the route's dialect says so.
        """
        prefix = getattr(self._request.state, "prefix", None)
        if request.explain:
            self.see_pairs()
        ran = await self._edge.pool.run(lambda: self._edge.embedder.embed(request, prefix), self._left)
        answer = replace(ran.value, timings=replace(ran.value.timings, queue_s=ran.queue_s))
        self._tell(answer)
        if self._edge.embedder.asked(request, prefix).lacks_role:
            self._request.state.told["x-reco-note"] = NO_ROLE
            self._request.state.log["note"] = "no_role"
        return answer

    async def ask(self, call: Callable[[], T]) -> T:
        """Run something else that only reads, in the same queue."""
        return (await self._edge.pool.run(call, self._left)).value

    async def write(self, call: Callable[[], T]) -> T:
        """Run something that changes the memory."""
        return (await self._edge.writing.run(call, self._left)).value

    def see_pairs(self) -> None:
        """Go on only if this caller may see pairs of the memory.

        Raises:
            Refused: 401 or 403.
        """
        self._request.app.state.guard.check_pairs(credential(self._request.headers))

    async def _left(self) -> None:
        """Return when the client is gone."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass  # an empty body that nobody has read

    def _tell(self, answer: Embedded) -> None:
        """Note what goes into the response's headers and into the log."""
        told = {"server-timing": server_timing(answer.timings), "x-reco-refined": refined_word(answer)}
        log: dict[str, Any] = {"items": len(answer.failures), "refined": told["x-reco-refined"]}
        if answer.degraded:
            told["x-reco-degraded"] = log["degraded"] = answer.degraded
        if failed := sum(failure is not None for failure in answer.failures):
            log["failed_items"] = failed
        self._request.state.told, self._request.state.log = told, log


def image_fetcher(settings: ServeSettings) -> ImageFetcher | None:
    """What fetches images by URL, if anything may."""
    if not settings.image_urls:
        return None
    from .fetch import ImageFetcher

    return ImageFetcher(settings.max_image_bytes, settings.image_url_timeout_s, settings.image_url_hosts)


def refined_word(answer: Embedded) -> str:
    """``true``, ``false``, or ``partly``: of the items that have a vector."""
    words = {done for done, failure in zip(answer.refined, answer.failures, strict=True) if failure is None}
    return "partly" if len(words) > 1 else str(words == {True}).lower()


def server_timing(timings: Timings) -> str:
    """The header of that name; browsers show it.

    >>> server_timing(Timings(queue_s=0.001, encode_s=0.0125))
    'queue;dur=1.00, encode;dur=12.50'
    """
    steps = ((name.removesuffix("_s"), value) for name, value in asdict(timings).items() if value is not None)
    return ", ".join(f"{step};dur={1000 * seconds:.2f}" for step, seconds in steps)
