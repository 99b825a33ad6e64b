"""The async side: the embedder for one HTTP request, with its URL prefix, the queue and the response's headers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from anyio import CapacityLimiter, to_thread
from fastapi import Request, Response

from ..counters import SECONDS, Histogram, Tally
from ..errors import InputError
from ..memory.time_limit import CallLimit, limited
from ..options import RefineOptions, check_options, read_caution
from ..score import Scores
from ..types import Arm, Coverage, Degraded
from .embedder import Embedded, Embedder, EmbedRequest, Item
from .failures import Failure, Refused
from .in_use import VersionInUse
from .lanes import Lanes, take_place
from .life import Budget, Life
from .routes import credential
from .scores import ScoreRequest, score
from .settings import Manner, ServeSettings
from .wire import Answer, answer_json, write_json

if TYPE_CHECKING:
    from .fetch import ImageFetcher

T = TypeVar("T")
Answered = TypeVar("Answered", Embedded, Embedded | None)
NO_ROLE = (
    "plain, since neither query nor document was said: for text queries to an index of images, name an alias for"
    " queries (clip-reco-query), or say input_type"
)
"""Header ``x-reco-note``."""
MANY_QUERIES = "refined as queries; if this is an index, it must be plain: say document (input_type), or name clip"
"""Likewise, of requests with many queries: some clients call an index so unless told (``@ai-sdk/cohere``)."""
UNIT = b"x-reco-unit"
"""Header of requests: whom it is for, as a user or a session; it decides the arm, and is neither kept nor logged."""
OPTION_HEADERS = {b"x-reco-caution": "caution", b"x-reco-target": "target"}
"""Header of requests, for dialects without a field for it."""
TOLD = (
    "x-reco-refined",
    "x-reco-arm",
    "x-reco-degraded",
    "x-reco-coverage",
    "x-reco-target",
    "x-reco-scale",
    "x-reco-presence",
    "x-reco-note",
    "server-timing",
    "x-request-id",
    "retry-after",
)
"""Headers of answers that callers read."""
_MANY = 16  # queries in a request
_BATCHED = 64  # requests that wait for a batch, one and the next
_LOOK_S = 0.01
_FETCH_S = 5.0  # until a picture of a URL is given up
_FEW = 16  # rows whose answer is written in a millisecond, beside calls that are computed


class ArmCounts:
    """What the queries of one arm got, and how long that took."""

    def __init__(self) -> None:
        self.answers = Tally()
        """Queries that were refined, or degraded, stayed plain, or failed."""
        self.seconds = Histogram(SECONDS)
        """Per request, in the queue and at work."""

    def count(self, found: Embedded, seconds: float) -> None:
        """Count a request."""
        self.seconds.observe(seconds)
        for row in found.rows:
            plain = "degraded" if found.degraded else "plain"
            self.answers.add("failed" if row.failure is not None else "refined" if row.refined else plain)

    def count_failed(self, queries: int) -> None:
        """Count a request that failed as a whole."""
        for _ in range(queries):
            self.answers.add("failed")


class Edge:
    """Shared by all requests; calling it with a request makes its :class:`Caller`."""

    def __init__(self, embedder: Embedder, settings: ServeSettings) -> None:
        """Start no thread yet."""
        self.embedder = embedder
        self.settings = settings
        self.lanes = Lanes(
            threads=settings.threads,
            queue=settings.queue,
            deadline_s=settings.deadline_s,
            batched=_BATCHED if embedder.reco.encoder.batches_callers else 0,
        )
        """Runs requests."""
        self.writing = Lanes(threads=1, queue=settings.queue, deadline_s=settings.deadline_s)
        """Writes the memory: one change at a time, without blocking queries."""
        self.reading = CapacityLimiter(1)
        """Of the threads that decode what was sent."""
        self.budget = Budget(settings.max_pending_bytes)
        """Memory that requests may take together."""
        self.arms: dict[Arm, ArmCounts] = {arm: ArmCounts() for arm in get_args(Arm)}
        """Counts of the requests about which ``refined_share`` decided."""
        reco = embedder.reco
        self.in_use = VersionInUse(reco.settings, reco.memory, self._wait_for_older)
        """The version of the memory that is in use, and how another one is put to use."""
        self.fetch: ImageFetcher | None = None
        """Fetches images by URL; None if that is off."""
        if settings.image_urls:
            from .fetch import ImageFetcher

            self.fetch = ImageFetcher(settings.max_image_bytes, _FETCH_S, settings.image_url_hosts)

    def __call__(self, request: Request) -> Caller:
        """The view of one request."""
        return Caller(self, request)

    async def close(self) -> None:
        """Wait for running calls, for ``shutdown_s`` at most."""
        await self.lanes.close(self.settings.shutdown_s)
        await self.writing.close(self.settings.shutdown_s)

    def _wait_for_older(self) -> None:
        """Wait until what began before now is answered, or nobody waits for it any more."""
        moment = time.perf_counter()
        while self.lanes.has_begun_before(moment) and time.perf_counter() < moment + self.settings.deadline_s:
            time.sleep(_LOOK_S)


class Caller:
    """One HTTP request as a dialect sees it: what it asks of the service, and what the answer's headers say."""

    def __init__(self, edge: Edge, request: Request) -> None:
        self._edge, self._request = edge, request
        self._life: Life = request.state.life
        self.embedder, self.settings = edge.embedder, edge.settings
        self.fetch = edge.fetch and edge.fetch.for_request(
            max_images=self.settings.max_images, max_bytes=self.settings.max_body_bytes, hold=self._life.hold
        )
        """Fetches the image of a URL, or raises Refused; None if URLs are not fetched."""

    async def make(self, call: Callable[[], T]) -> T:
        """Run a call that reads what was sent, in a thread where that is much: decoding holds up what others ask."""
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
        if (options := self._with_headers(request.options)) != request.options:
            request = replace(request, options=options)

        def make(found: Embedded) -> bytes | Failure:
            try:
                return write_json(write(found))
            except Refused as refused:  # the headers of what was done go with it
                return refused.failure

        def work() -> tuple[Embedded, bytes | Failure]:
            found = self._embed_in_arm(request, prefix, self.embedder.embed)
            if len(found.rows) > _FEW:
                take_place()
            return found, make(found)

        known = None
        if len(request.items) <= _FEW and not self._life.bytes:  # which takes less than a thread's turn
            known = self._embed_in_arm(request, prefix, self.embedder.recall)
        if known is None:
            inputs, lanes = len(request.items), self._edge.lanes
            (found, made), waited_s = await self._life.work(lanes, work, inputs, bulk=is_bulk(request))
        else:
            found, made, waited_s = known, make(known), 0.0
            self._edge.lanes.queue_s.observe(waited_s)
        self._tell(request, prefix, found, {"queue": waited_s, **found.seconds})
        if isinstance(made, Failure):
            raise Refused(made)
        return answer_json(made)

    def _tell(
        self, request: EmbedRequest, prefix: Manner | None, answer: Embedded, seconds: Mapping[str, float]
    ) -> None:
        """Note in headers, log and counts what was done."""
        life = self._life
        self._say(seconds, len(answer.rows), refined_word(answer), answer.degraded, answer.coverage.get("text"))
        if answer.target is not None:
            life.headers["x-reco-target"] = answer.target
        if request.cut is None and len(answer.rows) == 1 and (scale := answer.rows[0].scale) is not None:
            life.headers["x-reco-scale"] = f"{scale[0]:.6g} {scale[1]:.6g}"
        if len(answer.rows) == 1 and (presence := answer.rows[0].presence) is not None:
            life.headers["x-reco-presence"] = f"{presence:.3f}"
        if answer.arm is not None:
            life.headers["x-reco-arm"] = life.log["arm"] = answer.arm
            self._edge.arms[answer.arm].count(answer, sum(seconds.values()))
        if failed := sum(row.failure is not None for row in answer.rows):
            life.log["failed_items"] = failed
        asked = self.embedder.interpret(request, prefix)
        if asked.lacks_role:
            self._note("no_role", NO_ROLE)
        elif (
            request.side == "query"
            and answer.arm != "plain"
            and sum(row.refined or bool(row.plain) for row in answer.rows) >= _MANY
        ):
            self._note("many_queries", MANY_QUERIES)

    def _embed_in_arm(
        self, request: EmbedRequest, prefix: Manner | None, embed: Callable[[EmbedRequest, Manner | None], Answered]
    ) -> Answered:
        """Embed, refined or not by the arm that the request is in; errors as in :meth:`.Embedder.embed`."""
        unit = self._life.sent.get(UNIT, b"").strip(b" \t")
        arm = self.embedder.choose_arm(request, prefix, unit)
        try:
            return embed(request if arm is None else replace(request, arm=arm), prefix)
        except Exception:
            if arm is not None:
                self._edge.arms[arm].count_failed(len(request.items))
            raise

    def _note(self, word: str, note: str) -> None:
        self._life.headers["x-reco-note"] = note
        self._life.log["note"] = word

    async def score(self, request: ScoreRequest, write: Callable[[Scores], Answer]) -> Response:
        """Wait in the queue, score B images against C texts, write the answer, and set its headers.

        Raises:
            Refused: a bad or too large item, too many, or the queue is full (429).
            RecoError: the whole request failed.
        """
        asked = replace(request, options=self._with_headers(request.options))

        def work() -> tuple[Scores, dict[str, float], bytes]:
            found, steps = score(self.embedder, asked)
            return found, steps, write_json(write(found))

        items = len(request.images) + len(request.texts)
        (found, steps, made), waited_s = await self._life.work(self._edge.lanes, work, items, bulk=items > _FEW)
        refined = found.scores is not found.frozen
        self._say({"queue": waited_s, **steps}, items, str(refined).lower(), found.degraded, found.coverage)
        return answer_json(made)

    async def reply(self, call: Callable[[], Answer]) -> Response:
        """Run another call that only reads, in the same queue, and write what it returns.

        Raises:
            Refused: see :meth:`.Lanes.run`.
        """
        return await self._made(self._edge.lanes, call)

    async def write(self, call: Callable[[], Answer]) -> Response:
        """Run a call that changes the memory, and write what it returns.

        A server that is away is tried until the deadline: then its caller learns that it is down, and no call is left.
        """
        left_s = self._life.until - asyncio.get_running_loop().time()
        limit = CallLimit(time.monotonic() + left_s, self.settings.deadline_s, "deadline_s")

        def within() -> Answer:
            with limited(limit):
                return call()

        return await self._made(self._edge.writing, within)

    async def _made(self, lanes: Lanes, call: Callable[[], Answer]) -> Response:
        made, _ = await self._life.work(lanes, lambda: write_json(call()))
        return answer_json(made)

    def see_pairs(self) -> None:
        """Check that this caller may see pairs of the memory.

        Raises:
            Refused: 401 or 403.
        """
        self._request.app.state.guard.check_pairs(credential(self._life.sent))

    def _with_headers(self, options: RefineOptions) -> RefineOptions:
        """The options with those of the headers, where the request has none.

        Raises:
            Refused: 400, a bad value.
        """
        said: RefineOptions = {**options}
        for header, name in OPTION_HEADERS.items():
            if header not in self._life.sent or options.get(name) is not None:
                continue
            value: Any = self._life.sent[header].decode("latin-1")
            try:
                value = read_caution(value) if name == "caution" else value
                said = {**said, **check_options({name: value})}
            except InputError as error:
                shown = header.decode("ascii")
                message = f"{shown} is {value!r:.60}: {error}"
                raise Refused(Failure(400, f"unknown_{name}", message, shown)) from None
        return said

    def _say(
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
    pictures = sum(isinstance(item, Item) and isinstance(item.content, bytes) for item in items)
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
