"""One request: its id, the limits of its body, its work in a thread, the headers of its answer, and its log line.

:class:`RequestMiddleware` is the outermost layer of the application. It makes a :class:`RequestContext` for each
request, which routes get by :func:`.context_of`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio import CancelScope
from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..memory import part_of_a_write
from .app_state import AppState
from .auth import NO_KEY, unknown_host
from .embedder import Embedded, EmbedRequest
from .failures import Failure, Refused
from .logs import LOGGER, request_id
from .routing import PROBES, BodyRefused, normalized, shape_for_all, to_response
from .schemas import max_items
from .wire import Answer, json_response

if TYPE_CHECKING:
    from .metrics import Metrics

log = logging.getLogger(LOGGER)
SMALL_BODY = 64_000
"""A body of at most so many bytes does not wait for memory."""
_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_WATCH_AFTER_S = 0.05  # a shorter call ends before the service could notice that its client has left
_CLIENT_LEFT = Failure(499, "client_left", "the client closed the connection")


class RequestContext:
    """State of one request. Used from the event loop."""

    def __init__(self, state: AppState, scope: Scope, receive: Receive, send: Send) -> None:
        """Read nothing yet."""
        self.state = state
        self.headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        """Headers of the request by name in lower case. If a name occurs twice, the first header counts."""
        given = self.headers.get(b"x-request-id", b"")
        self.id = given.decode("ascii") if _ID.fullmatch(given) else uuid.uuid4().hex
        """The client's id, if it is valid; else a new one."""
        self.answer_headers: dict[str, str] = {}
        """Headers that the answer gets besides those of its route."""
        self.key = NO_KEY
        """The key that was sent."""
        self.code = ""
        """Code of the failure; empty without one."""
        self.log_fields: dict[str, Any] = {}
        """Further fields of the log line."""
        self.status, self.started = 500, time.perf_counter()
        seconds = state.settings.deadline_s
        self.deadline = asyncio.get_running_loop().time() + seconds
        """By the clock of the loop."""
        message = f"no answer within {seconds:g} s (deadline_s): send less at once, or try again later"
        self.timeout = Failure(504, "deadline_exceeded", message)
        """The failure if the deadline passes now."""
        self._prefix = scope["state"].get("prefix")
        self._receive, self._send = receive, send
        self._received_bytes = 0

    async def receive(self) -> Message:
        """Return the next chunk of the body, once there is memory for it. Refuse a body that is too large (413)."""
        declared = self.headers.get(b"content-length", b"")
        self._check_size(int(declared) if declared.isdigit() else 0)
        message = await self._receive()
        self._received_bytes += len(message.get("body", b""))
        self._check_size(self._received_bytes)
        if self._received_bytes > SMALL_BODY:
            timeout, budget = self.timeout, self.state.bytes
            why = f"requests take {budget.used:,} of {budget.limit:,} bytes (max_pending_bytes): try again later"
            self.timeout = Failure(429, "too_many_bytes", why)
            await budget.hold(self, 2 * self._received_bytes)  # the body, and what is parsed from it
            self.timeout = timeout
        return message

    def _check_size(self, size: int) -> None:
        if size > (limit := self.state.settings.max_body_bytes):
            message = (
                f"the body has at least {size:,} bytes, the limit is {limit:,} (max_body_bytes): send less at once"
            )
            raise BodyRefused(Failure(413, "body_too_large", message))

    async def embed(self, request: EmbedRequest, to_answer: Callable[[Embedded], Answer]) -> Response:
        """Embed B inputs, write the answer in the same thread, and set its headers.

        Args:
            request: what to embed.
            to_answer: converts the result to the JSON of a dialect.
        """
        if request.explain:
            self.check_read()
        with self._while_connected():
            done = await self.state.executor.run(
                partial(self.state.embedder.embed, request, self._prefix),
                to_answer,
                inputs=len(request.items),
                is_bulk=request.is_bulk,
                caller=self.key.name,
            )
        self._describe(done.result, {"queue": done.waited_s, **done.result.seconds})
        return json_response(done.body)

    async def read(self, call: Callable[[], Answer]) -> Response:
        """Run another call that changes nothing, in the same queue, and write its result as JSON."""
        with self._while_connected():
            return json_response((await self.state.executor.run(call, caller=self.key.name)).body)

    async def write(self, call: Callable[[], Answer]) -> Response:
        """Run a call that changes the memory, and write its result as JSON.

        While the memory's server is down, the call tries again until the deadline, and then fails.
        """
        until = time.monotonic() + self.deadline - asyncio.get_running_loop().time()
        with self._while_connected():
            done = await self.state.writer.run(partial(self._write, until, call), caller=self.key.name)
        return json_response(done.body)

    def _write(self, until: float, call: Callable[[], Answer]) -> Answer:
        """The half of :meth:`write` in the thread: one write, tried again until a moment of ``time.monotonic``."""
        with part_of_a_write(until):
            answer = call()
        self.state.last_write = time.time()
        return answer

    def check_read(self) -> None:
        """Refuse a caller who may not see pairs of the memory (401, 403)."""
        self.key = self.state.keys.check("read", self.headers)

    def check_whole(self) -> None:
        """Refuse a key that sees a part of the memory only (403)."""
        if self.key.scope:
            message = f"this is of the whole memory, and the key {self.key.name!r} has `where`: use one without it"
            raise Refused(Failure(403, "key_scoped", message))

    @contextmanager
    def _while_connected(self) -> Iterator[None]:
        """Cancel what the block awaits when the client leaves, and end the request (499)."""
        tasks = list[asyncio.Task[None]]()

        def watch() -> None:
            tasks.append(asyncio.ensure_future(self._disconnected()))
            tasks[0].add_done_callback(lambda task: None if task.cancelled() else scope.cancel())

        with CancelScope() as scope:
            timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, watch)
            try:
                yield
            finally:
                timer.cancel()
                for task in tasks:
                    task.cancel()
        if scope.cancelled_caught:
            raise Refused(_CLIENT_LEFT)

    async def _disconnected(self) -> None:
        """Return when the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass  # an empty body that no route has read

    def _describe(self, answer: Embedded, seconds: Mapping[str, float]) -> None:
        """Describe the answer in headers and log."""
        rows, coverage = answer.rows, answer.coverage.get("text")
        states = {str(row.refined).lower() for row in rows}
        refined = "partly" if len(states) > 1 else states.pop()
        timing = ", ".join(f"{step};dur={1000 * value:.2f}" for step, value in seconds.items())
        headers = {"server-timing": timing, "x-reco-refined": refined}  # browsers show the former
        self.log_fields |= {"items": len(rows), "refined": refined}
        if answer.degraded:
            headers["x-reco-degraded"] = self.log_fields["degraded"] = answer.degraded
        if coverage is not None and coverage.answered is not None:
            headers["x-reco-coverage"] = f"{coverage.answered:.2f}"
        if answer.target is not None:
            headers["x-reco-target"] = answer.target
        if len(rows) == 1:
            [row] = rows
            if row.presence is not None:
                headers["x-reco-presence"] = f"{row.presence:.3f}"
            if row.matched_by is not None:
                headers["x-reco-matched-by"] = row.matched_by
            if row.word_ids:
                headers["x-reco-word-ids"] = json.dumps(row.word_ids)
            if row.threshold is not None:
                scales = vars(row.threshold).items()
                headers["x-reco-threshold"] = ", ".join(f"{name}={value:.6g}" for name, value in scales)
            if row.scale is not None:
                headers["x-reco-scale"] = f"{row.scale[0]:.6g} {row.scale[1]:.6g}"
        self.answer_headers |= headers

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the headers of this request."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.setdefault("headers", [])
            headers += [(name.encode("ascii"), value.encode("latin-1")) for name, value in self.answer_headers.items()]
            headers.append((b"x-request-id", self.id.encode("ascii")))
            if self.state.is_stopping:
                headers.append((b"connection", b"close"))
        await self._send(message)

    async def close(self) -> None:
        """Release the memory of the body."""
        if self._received_bytes > SMALL_BODY:
            await self.state.bytes.release(self)


class RequestMiddleware:
    """The outermost layer: makes the context of each request, checks its host, counts it and logs it."""

    def __init__(self, app: ASGIApp, state: AppState, metrics: Metrics, is_known: Callable[[bytes], bool]) -> None:
        self._app, self._state, self._metrics, self._is_known = app, state, metrics, is_known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        inner = normalized(scope)
        context = inner["state"]["context"] = RequestContext(self._state, inner, receive, send)
        token = request_id.set(context.id)
        max_items.set(self._state.settings.max_items)
        try:
            if self._is_known(host := context.headers.get(b"host", b"")):
                await self._app(inner, context.receive, context.send)
            else:
                failure = unknown_host(host)
                context.code = failure.code
                await to_response(failure, shape_for_all)(inner, receive, context.send)
        finally:
            await context.close()
            self._record(scope, getattr(inner.get("route"), "path_format", "other"), context)
            request_id.reset(token)

    def _record(self, scope: Scope, route: str, context: RequestContext) -> None:
        """Count and log a request. ``route`` is the template of the path, so that metrics have few labels."""
        seconds = time.perf_counter() - context.started
        self._metrics.count(route, context.status, seconds, context.code)
        if not log.isEnabledFor(level := logging.DEBUG if route in PROBES else logging.INFO):
            return
        fields = {"method": scope["method"], "path": scope["path"], "status": context.status}
        client = scope.get("client") or ("",)
        fields |= {
            "seconds": round(seconds, 6),
            "client": client[0],
            "key": context.key.name or None,
            "code": context.code,
        }
        fields |= context.log_fields
        log.log(level, "request", extra={name: value for name, value in fields.items() if value != ""})
