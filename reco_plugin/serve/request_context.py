"""One request: its id, its body within limits, its work in the queue, the headers of its answer, its line in the log.

:class:`Requests` is the outermost layer of the application. It makes a :class:`Life` of each request, which routes find
by :func:`.life_of`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope
from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..memory import part_of_a_write
from .app_state import Edge
from .embedder import Embedded, EmbedRequest
from .executor import Lanes, take_place
from .failures import Failure, Refused
from .hosts import unknown_host
from .logs import LOGGER, request_id
from .routing import PROBES, BodyRefused, routed, shape_for_all, to_response
from .schemas import Threshold, most_items
from .wire import Answer, answer_json, write_json

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")
log = logging.getLogger(LOGGER)
SMALL = 64_000
"""Bytes of a body that waits for no room."""
_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_WATCHED_AFTER_S = 0.05  # a shorter call ends before its client can be seen to leave
_FEW = 16  # rows whose answer is written in a millisecond, beside calls that are computed
_LEFT = Failure(499, "client_left", "the client closed the connection")


class Life:
    """One request; used from the event loop."""

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin: nothing is read, and nothing is held."""
        self.edge = edge
        self.sent: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        """Headers of the request by their names in small letters; of several of one name, the first."""
        given = self.sent.get(b"x-request-id", b"")
        self.id = given.decode("ascii") if _ID.fullmatch(given) else uuid.uuid4().hex
        """The caller's, if it is valid."""
        self.headers: dict[str, str] = {}
        """That its answer gets, besides those of its route."""
        self.key: str | None = None
        """Name of the key that was sent; None without one."""
        self.code = ""
        """Why it was refused; empty if it was not."""
        self.log: dict[str, Any] = {}
        """What its line in the log says of it, besides."""
        self.status, self.began = 500, time.perf_counter()
        seconds = edge.settings.deadline_s
        self.until = asyncio.get_running_loop().time() + seconds
        """The deadline, by the loop's clock."""
        message = f"no answer within {seconds:g} s (deadline_s): send less at once, or try again later"
        self.late = Failure(504, "deadline_exceeded", message)
        """What is answered when it has passed."""
        self._prefix = scope["state"].get("prefix")
        self._receive, self._send = receive, send
        self._seen = 0

    async def receive(self) -> Message:
        """The next chunk of the body, once there is room for it.

        Raises:
            BodyRefused: 413, too large.
        """
        declared = self.sent.get(b"content-length", b"")
        self._check_size(int(declared) if declared.isdigit() else 0)
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        self._check_size(self._seen)
        if self._seen > SMALL:
            late, self.late = self.late, self.edge.budget.refusal
            await self.edge.budget.hold(self, 2 * self._seen)  # the body, and what is parsed from it
            self.late = late
        return message

    def _check_size(self, size: int) -> None:
        if size > (most := self.edge.settings.max_body_bytes):
            message = f"the body has at least {size:,} bytes, the limit is {most:,} (max_body_bytes): send less at once"
            raise BodyRefused(Failure(413, "body_too_large", message))

    async def answer(self, request: EmbedRequest, write: Callable[[Embedded], Answer]) -> Response:
        """Wait in the queue, embed B items to (B, D), write the answer in the same thread, and set its headers.

        Args:
            request: what to embed.
            write: makes the answer of it.

        Raises:
            Refused: unknown model, too many items, or the queue is full (429).
            RecoError: the whole request failed.
        """
        if request.explain:
            self.see_pairs()

        def work() -> tuple[Embedded, bytes]:
            found = self.edge.embedder.embed(request, self._prefix)
            if len(found.rows) > _FEW:
                take_place()
            return found, write_json(write(found))

        (found, made), waited_s = await self._work(self.edge.lanes, work, len(request.items), bulk=request.is_bulk)
        self._describe(request, found, {"queue": waited_s, **found.seconds})
        return answer_json(made)

    async def reply(self, call: Callable[[], Answer]) -> Response:
        """Run another call that only reads, in the same queue, and write what it returns.

        Raises:
            Refused: see :meth:`.Lanes.run`.
        """
        made, _ = await self._work(self.edge.lanes, lambda: write_json(call()))
        return answer_json(made)

    async def write(self, call: Callable[[], Answer]) -> Response:
        """Run a call that changes the memory, and write what it returns.

        A server that is away is tried until the deadline: then its caller learns that it is down, and no call is left.
        """
        until = time.monotonic() + self.until - asyncio.get_running_loop().time()

        def within() -> bytes:
            with part_of_a_write(until):
                made = write_json(call())
            self.edge.last_write = time.time()
            return made

        made, _ = await self._work(self.edge.writing, within)
        return answer_json(made)

    def see_pairs(self) -> None:
        """Check that this caller may see pairs of the memory.

        Raises:
            Refused: 401 or 403.
        """
        self.key = self.edge.keys.check("read", self.sent)

    async def _work(
        self, lanes: Lanes, call: Callable[[], T], inputs: int = 1, *, bulk: bool = False
    ) -> tuple[T, float]:
        """Run a call, as :meth:`.Lanes.run`; it is given up when the client leaves.

        Raises:
            Refused: also 499, the client left.
        """
        leaving = list[asyncio.Task[None]]()

        def watch() -> None:
            leaving.append(asyncio.ensure_future(self._leave()))
            leaving[0].add_done_callback(lambda left: None if left.cancelled() else scope.cancel())

        with CancelScope() as scope:
            watching = asyncio.get_running_loop().call_later(_WATCHED_AFTER_S, watch)
            try:
                return await lanes.run(call, inputs, bulk=bulk)
            finally:
                watching.cancel()
                for task in leaving:
                    task.cancel()
        raise Refused(_LEFT)

    async def _leave(self) -> None:
        """Return when the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass  # an empty body that was not read

    def _describe(self, request: EmbedRequest, answer: Embedded, seconds: Mapping[str, float]) -> None:
        """Note in headers and log what was done."""
        rows, coverage = answer.rows, answer.coverage.get("text")
        headers = {"server-timing": server_timing(seconds), "x-reco-refined": (refined := refined_word(answer))}
        self.log |= {"items": len(rows), "refined": refined}
        if answer.degraded:
            headers["x-reco-degraded"] = self.log["degraded"] = answer.degraded
        if coverage is not None and coverage.answered is not None:
            headers["x-reco-coverage"] = f"{coverage.answered:.2f}"
        if answer.target is not None:
            headers["x-reco-target"] = answer.target
        if len(rows) == 1 and (presence := rows[0].presence) is not None:
            headers["x-reco-presence"] = f"{presence:.3f}"
        if len(rows) == 1 and rows[0].found_by is not None:
            headers["x-reco-found-by"] = rows[0].found_by
            if rows[0].word_ids:
                headers["x-reco-word-ids"] = json.dumps(list(rows[0].word_ids))
        if len(rows) == 1 and request.cut is None and (least := rows[0].least) is not None:
            on_scales = vars(Threshold.of(least)).items()
            headers["x-reco-threshold"] = ", ".join(f"{name}={value:.6g}" for name, value in on_scales)
        if len(rows) == 1 and request.cut is None and (scale := rows[0].scale) is not None:
            headers["x-reco-scale"] = f"{scale[0]:.6g} {scale[1]:.6g}"
        self.headers |= headers

    async def send(self, message: Message) -> None:
        """Send a part of the answer, as the application has it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.setdefault("headers", [])
            headers += [(name.encode("ascii"), value.encode("latin-1")) for name, value in self.headers.items()]
            headers.append((b"x-request-id", self.id.encode("ascii")))
            if self.edge.stopping:
                headers.append((b"connection", b"close"))
        await self._send(message)

    async def end(self) -> None:
        """Give back all that it holds."""
        await self.edge.budget.give(self)


class Requests:
    """The outermost layer: makes the life of each request, checks its host, and counts and logs it at its end."""

    def __init__(self, app: ASGIApp, edge: Edge, metrics: Metrics, knows: Callable[[bytes], bool]) -> None:
        self._app, self._edge, self._metrics, self._knows = app, edge, metrics, knows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        inner = routed(scope)
        life = inner["state"]["life"] = Life(self._edge, inner, receive, send)
        token = request_id.set(life.id)
        most_items.set(self._edge.settings.max_items)
        try:
            if self._knows(host := life.sent.get(b"host", b"")):
                await self._app(inner, life.receive, life.send)
            else:
                failure = unknown_host(host)
                life.code = failure.code
                await to_response(failure, shape_for_all)(inner, receive, life.send)
        finally:
            await life.end()
            self._note(scope, getattr(inner.get("route"), "path_format", "other"), life)
            request_id.reset(token)

    def _note(self, scope: Scope, route: str, life: Life) -> None:
        """Count and log a request; ``route`` is the template, so that metrics have few labels."""
        seconds = time.perf_counter() - life.began
        self._metrics.count(route, life.status, seconds, life.code)
        if not log.isEnabledFor(level := logging.DEBUG if route in PROBES else logging.INFO):
            return
        line = {"method": scope["method"], "path": scope["path"], "status": life.status, "seconds": round(seconds, 6)}
        client = scope.get("client") or ("",)
        line |= {"client": client[0], "key": life.key, "code": life.code}
        log.log(level, "request", extra={name: value for name, value in {**line, **life.log}.items() if value != ""})


def refined_word(answer: Embedded) -> str:
    """``true``, ``false`` or ``partly``."""
    words = {row.refined for row in answer.rows}
    return "partly" if len(words) > 1 else str(words == {True}).lower()


def server_timing(seconds: Mapping[str, float]) -> str:
    """The header ``server-timing``, which browsers show: milliseconds of each step.

    >>> server_timing({"queue": 0.001, "encode": 0.0125})
    'queue;dur=1.00, encode;dur=12.50'
    """
    return ", ".join(f"{step};dur={1000 * value:.2f}" for step, value in seconds.items())
