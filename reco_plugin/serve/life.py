"""One request: its id, its body within limits, the memory that it holds, its deadline, and its line in the log.

:class:`Requests` is the outermost layer of the application. What it notes of a request is a :class:`Life`, which routes
find in the request's state.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .failures import Failure, Refused
from .hosts import unknown_host
from .lanes import Lanes
from .logs import LOGGER, request_id
from .routes import PROBES, BodyRefused, is_form, routed, shape_for_all, to_response
from .schemas import most_items
from .settings import ServeSettings

if TYPE_CHECKING:
    from .edge import Edge
    from .metrics import Metrics

T = TypeVar("T")
log = logging.getLogger(LOGGER)
MOST_VALUES = 1_000_000
"""Numbers, strings, lists and objects in a body, counted by their commas and brackets: each takes 40 bytes and more."""
SMALL = 64_000
"""Bytes of a body that is read and decoded in the event loop, and waits for no room."""
_SIGNS = b",[{:"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_RETRY_S = 1.0
_WATCHED_AFTER_S = 0.05  # a shorter call ends before its client can be seen to leave
_LEFT = Failure(499, "client_left", "the client closed the connection")


class Budget:
    """Memory that requests may take together; used from the event loop."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0
        self._room = asyncio.Condition()

    async def take(self, count: int) -> None:
        """Wait for room; one request alone always has room."""
        async with self._room:
            await self._room.wait_for(lambda: not self.taken or self.taken + count <= self.most)
            self.taken += count

    async def give(self, count: int) -> None:
        """Give memory back."""
        self.taken -= count  # also where this is cancelled
        async with self._room:
            self._room.notify_all()

    @property
    def refusal(self) -> Failure:
        """What is answered where there is no room."""
        message = f"requests take {self.taken:,} of {self.most:,} bytes (max_pending_bytes): try again later"
        return Failure(429, "too_many_bytes", message, retry_after_s=_RETRY_S)


class Life:
    """One request; used from the event loop."""

    def __init__(self, limits: ServeSettings, budget: Budget, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin: nothing is read, and nothing is held."""
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
        self.status, self.bytes, self.began = 500, 0, time.perf_counter()
        self.until = asyncio.get_running_loop().time() + limits.deadline_s
        """The deadline, by the loop's clock."""
        self.late = Failure(408, "body_timeout", f"the body did not arrive within {limits.deadline_s:g} s (deadline_s)")
        """What is answered when it has passed."""
        self._limits, self._budget, self._receive, self._send = limits, budget, receive, send
        self._seen = self._values = 0
        self._begun, self._more = False, True

    async def receive(self) -> Message:
        """The next chunk of the body.

        Raises:
            BodyRefused: 413, too large.
        """
        if not self._begun:
            self._begun = True
            await self._reserve()
        message = await self._receive()
        body = message.get("body", b"")
        self._seen += len(body)
        self._values += 0 if is_form(self.sent) else sum(map(body.count, _SIGNS))
        self._check_size(self._seen)
        if self._values > MOST_VALUES:
            while message.get("more_body"):  # else the connection is reset, and the client does not see the answer
                message = await self._receive()
                self._seen += len(message.get("body", b""))
                self._check_size(self._seen)
            said = f"the body has more than {MOST_VALUES:,} values: send less at once"
            raise BodyRefused(Failure(413, "body_too_large", said))
        if not message.get("more_body"):
            seconds = self._limits.deadline_s
            said = f"no answer within {seconds:g} s (deadline_s): send less at once, or try again later"
            self._more, self.late = False, Failure(504, "deadline_exceeded", said)
        return message

    async def _reserve(self) -> None:
        """Wait for room for the body and what is parsed from it, before anything of it is read."""
        declared = self.sent.get(b"content-length", b"")
        size = int(declared) if declared.isdigit() else 0
        self._check_size(size)
        if b"transfer-encoding" in self.sent:  # its size is known at its end
            size = self._limits.max_body_bytes
        if size > SMALL:
            count, late = min(size * (1 if is_form(self.sent) else 2), self._budget.most), self.late
            self.late = self._budget.refusal
            await self._budget.take(count)
            self.bytes, self.late = count, late

    def _check_size(self, size: int) -> None:
        if size > (most := self._limits.max_body_bytes):
            message = f"the body has at least {size:,} bytes, the limit is {most:,} (max_body_bytes): send less at once"
            raise BodyRefused(Failure(413, "body_too_large", message))

    async def work(
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

    async def send(self, message: Message) -> None:
        """Send a part of the answer, as the application has it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.setdefault("headers", [])
            headers += [(name.encode("ascii"), value.encode("latin-1")) for name, value in self.headers.items()]
            headers.append((b"x-request-id", self.id.encode("ascii")))
        await self._send(message)

    async def end(self) -> None:
        """Give back all that it holds."""
        if self.bytes:
            await self._budget.give(self.bytes)


class Requests:
    """The outermost layer: makes the life of each request, checks its host, and counts and logs it at its end."""

    def __init__(
        self, app: ASGIApp, edge: Edge, metrics: Metrics, knows: Callable[[bytes], bool], stopping: Callable[[], bool]
    ) -> None:
        self._app, self._edge, self._metrics = app, edge, metrics
        self._knows, self._stopping = knows, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def reply(message: Message) -> None:
            if message["type"] == "http.response.start" and self._stopping():
                message.setdefault("headers", []).append((b"connection", b"close"))
            await send(message)

        limits, inner = self._edge.settings, routed(scope)
        life = inner["state"]["life"] = Life(limits, self._edge.budget, scope, receive, reply)
        token = request_id.set(life.id)
        most_items.set(limits.max_items)
        try:
            if self._knows(host := life.sent.get(b"host", b"")):
                await self._app(inner, life.receive, life.send)
            else:
                failure = unknown_host(host)
                life.code = failure.code
                await to_response(failure, shape_for_all)(inner, receive, life.send)
        finally:
            await life.end()
            self._note(scope, getattr(inner.get("route"), "path", "other"), life)
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
