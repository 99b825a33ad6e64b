"""Around every route: a request's id, log and times, the prefix of its URL, and the limits of its body.

Plain ASGI, so that bodies are not buffered: they have limits of size, time and memory of all together, and large ones
are parsed outside the event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .embedder import PREFIXES
from .failures import Failure
from .logs import LOGGER, request_id
from .schemas import most_items
from .settings import ServeSettings

if TYPE_CHECKING:
    from .metrics import Metrics

log = logging.getLogger(LOGGER)
_SLASHES = re.compile("/{2,}")
_TWICE = re.compile("(/v1){2,}/")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
PROBES = ("/livez", "/readyz", "/metrics", "/health", "/ping", "/v1/health/live", "/v1/health/ready")
"""Paths that load balancers and monitoring call every few seconds."""
_SMALL = 64_000  # bytes that are parsed faster than a thread starts
_VALUE_BYTES = 40  # of a number in two lists: parsed and validated
_WIDEST = 4  # bytes per character of a str with a character beyond U+FFFF
_FOR_LARGE = 0.75
"""Of the memory for bodies: the rest is for small ones, which never wait, and for the one that is parsed."""
_BEGIN_VALUES = (b",", b"[", b"{", b":")
_RETRY_S = 1.0
_LINGER_S = 1.0  # wait for the next chunk of a body that is dropped


class Observed:
    """Gives a request an id (the caller's, if it is valid), and times, counts and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._requests, self._seconds = app, metrics.requests, metrics.seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        id_ = given if _ID.fullmatch(given) else uuid.uuid4().hex
        token, started, status = request_id.set(id_), time.perf_counter(), 500

        async def add_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-request-id", id_.encode("latin-1")))
            await send(message)

        path = scope["path"]
        try:
            await self._app(scope, receive, add_id)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")  # the template, so that metrics have few labels
            self._requests.labels(route, str(status)).inc()
            self._seconds.labels(route).observe(seconds)
            level = logging.DEBUG if path in PROBES else logging.INFO
            noted = scope.get("state", {}).get("log", {})
            extra = {"method": scope["method"], "path": path, "status": status, "seconds": round(seconds, 6), **noted}
            log.log(level, "request", extra=extra)
            request_id.reset(token)


class Prefixed:
    """Strips ``/plain`` or ``/refined`` from the path and notes it for the route.

    Slashes too many, which clients make of a base URL that ends in one, are dropped, and so is a second ``/v1``, which
    they add to a base URL that has it. HEAD is answered as GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        root = scope.get("root_path", "")  # of the proxy, which may have stripped it or not
        path = _TWICE.sub("/v1/", _SLASHES.sub("/", scope["path"]))
        for prefix, manner in PREFIXES.items():
            for before in {root, ""}:
                if f"{path}/".startswith(f"{before}{prefix}/"):
                    path = before + (path.removeprefix(before + prefix) or "/")
                    scope.setdefault("state", {})["prefix"] = manner
        scope["path"] = path if path[:-1] in ("", root) else path.removesuffix("/")
        routed = scope if scope["method"] != "HEAD" else {**scope, "method": "GET"}  # the server drops the body
        try:
            await self._app(routed, receive, send)
        finally:
            scope.update(routed, method=scope["method"])  # for the log


class Bodies:
    """Counts the memory of all bodies and parses them; used from one event loop, but for the end of a share."""

    def __init__(self, settings: ServeSettings) -> None:
        self.limits = settings
        self.pending = 0
        """Bytes that requests hold now: bodies, what was parsed from them, and answers."""
        self.lock = threading.Lock()
        self._turn = asyncio.Semaphore(1)  # one at a time, since parsing takes most of the memory
        self._for_large = int(_FOR_LARGE * settings.max_pending_bytes)
        self._reserved = 0  # shares that began with a reservation
        self._waiting: deque[tuple[int, Share, asyncio.Future[None]]] = deque()  # for one, the oldest first

    @contextmanager
    def share(self) -> Iterator[Share]:
        """The memory of one request, given back when it has ended and nothing holds it any more."""
        taken = Share(self)
        release = taken.hold()
        try:
            yield taken
        finally:
            release()

    async def reserve(self, share: Share, count: int) -> None:
        """Wait until there is room for a large body and what is parsed from it, before anything of it is read.

        Its client waits, as for one that reads slowly: engines that send a hundred pictures at once do not lose those
        that are refused. Nobody waits who holds anything, and one alone always has room.

        Raises:
            BodyRefused: 429, there was none within the deadline.
        """
        began, freed = time.perf_counter(), asyncio.get_running_loop().create_future()
        count = min(count, self._for_large)
        with self.lock:
            self._waiting.append((count, share, freed))
            self._let_in()
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                await freed
        except TimeoutError:
            raise self.refusal(self.pending) from None
        finally:
            with self.lock:
                if (count, share, freed) in self._waiting:
                    self._waiting.remove((count, share, freed))
            share.waited_s = time.perf_counter() - began

    def release(self, count: int, *, ends: bool) -> None:
        """Give bytes back, from any thread; ``ends``: a share with a reservation does."""
        with self.lock:
            self.pending -= count
            self._reserved -= ends
            if self._waiting:
                self._waiting[0][2].get_loop().call_soon_threadsafe(self._look)

    def _look(self) -> None:
        with self.lock:
            self._let_in()

    def _let_in(self) -> None:
        """Give those their reservation that have room, in order; the lock is held."""
        while self._waiting and (not self._reserved or self.pending + self._waiting[0][0] <= self._for_large):
            count, share, freed = self._waiting.popleft()
            if not freed.done():  # else nobody waits any more
                self._reserved += 1
                self.pending += count
                share.reserve(count)
                freed.set_result(None)

    def refusal(self, others: int) -> BodyRefused:
        """What is answered where others leave too little."""
        message = f"other requests take {others:,} of {self.limits.max_pending_bytes:,} bytes (max_pending_bytes)"
        return BodyRefused(429, "too_many_bytes", f"{message}: try again later", retry_after_s=_RETRY_S)

    async def parse(self, body: bytes | bytearray, share: Share) -> Any:
        """Parse JSON.

        Raises:
            BodyRefused: too many values (413), or too much at once (429).
            ValueError: not JSON.
            RecursionError: too deep.
        """
        if len(body) <= _SMALL:
            return json.loads(body)
        async with self._turn:
            values = await asyncio.to_thread(values_in, body)
            if values > self.limits.max_body_values:
                limit = f"the limit is {self.limits.max_body_values:,} (max_body_values): send less at once"
                raise BodyRefused(413, "body_too_large", f"the body has up to {values:,} values, {limit}")
            wide = not body.isascii() or b"\\u" in body
            share.take(len(body) * (_WIDEST if wide else 1) + _VALUE_BYTES * values)
            parsed = await asyncio.to_thread(json.loads, body)
            if wide:  # mostly a title beside a picture, which is not
                share.give_back(max(0, _WIDEST * len(body) - await asyncio.to_thread(bytes_of_texts, parsed)))
            return parsed


class Share:
    """The part of :class:`Bodies` that one request takes."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._holders = 0
        self._began_large, self._spare = False, 0  # bytes that are reserved and not taken
        self.bytes = 0
        """Taken or reserved so far."""
        self.waited_s = 0.0
        """For a reservation."""

    def hold(self) -> Callable[[], None]:
        """Keep it until the returned function is called, from any thread: a call may outlive its request.

        The body of a client that left is still there while a thread works on it.
        """
        with self._bodies.lock:
            self._holders += 1
        return self._release

    def _release(self) -> None:
        with self._bodies.lock:
            self._holders -= 1
            ends = not self._holders
        if ends:
            self._bodies.release(self.bytes, ends=self._began_large)

    def reserve(self, count: int) -> None:
        """Have bytes counted that it will take at most."""
        self._began_large, self._spare = True, count
        self.bytes += count

    def give_back(self, count: int = 0) -> None:
        """Give back bytes that were taken, and what was reserved and not taken."""
        count, self._spare = count + self._spare, 0
        self.bytes -= count
        self._bodies.release(count, ends=False)

    def take(self, count: int) -> None:
        """Take more bytes.

        Raises:
            BodyRefused: 429, other requests leave too little; a single request always fits.
        """
        reserved = min(count, self._spare)
        self._spare -= reserved
        count -= reserved
        others, limit = self._bodies.pending - self.bytes, self._bodies.limits.max_pending_bytes
        if count and others and others + self.bytes + count > limit:
            raise self._bodies.refusal(others)
        self.add(count)

    def add(self, count: int) -> None:
        """Count bytes that are there already and refuse none: those of an answer."""
        with self._bodies.lock:
            self.bytes += count
            self._bodies.pending += count


class JsonRequest(Request):
    """A request whose JSON is parsed within the limits.

    A body counts as JSON whatever ``content-type`` says, since AWS' clients, curl and others send another one or none;
    except with an ``origin``: browsers send other types across sites without a preflight request.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        sent = dict(scope["headers"])
        if b"origin" not in sent and not sent.get(b"content-type", b"").startswith(b"multipart/form-data"):
            headers = [header for header in scope["headers"] if header[0] != b"content-type"]
            scope = {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
        super().__init__(scope, receive)

    async def body(self) -> bytearray:  # type: ignore[override]  # never changed, so not copied to bytes
        """The whole body, in one growing buffer: joining chunks would take twice the memory."""
        if not hasattr(self, "_body"):
            whole = bytearray()
            async for chunk in self.stream():
                whole += chunk
            self._body = whole  # type: ignore[assignment]
        return self._body  # type: ignore[return-value]

    async def json(self) -> Any:
        """See :meth:`Bodies.parse`; the body itself is dropped, which FastAPI would hold until the answer is there."""
        whole = await self.body()
        try:
            return await self.app.state.edge.bodies.parse(whole, self.state.share)
        finally:
            whole.clear()
            self.state.share.give_back()


class Limited:
    """Stops reading a body that is too large, also with a wrong ``content-length``, or too slow."""

    def __init__(self, app: ASGIApp, bodies: Bodies) -> None:
        self._app, self._bodies = app, bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most_items.set(self._bodies.limits.max_items)
        with self._bodies.share() as share:
            scope.setdefault("state", {})["share"] = share
            body = _Body(scope, receive, share, self._bodies)

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await body.drop_rest()
                await send(message)

            await self._app(scope, body.receive, answer)


class _Body:
    """The body of one request while it is received."""

    def __init__(self, scope: Scope, receive: Receive, share: Share, bodies: Bodies) -> None:
        headers, limits = dict(scope["headers"]), bodies.limits
        declared = headers.get(b"content-length", b"0")
        self._declared = int(declared) if declared.isdigit() else 0
        self._waits_for_us = b"expect" in headers  # the client sends the body only when it is read
        is_form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        self._most = self._declared * (1 if is_form else 2) if self._declared > _SMALL else 0
        self._receive, self._share, self._bodies, self._limits = receive, share, bodies, limits
        self._until = asyncio.get_running_loop().time() + limits.body_timeout_s
        self._seen, self._more = 0, True

    async def receive(self) -> Message:
        """The next chunk.

        Raises:
            BodyRefused: 413 too large, 408 too slow, 429 too much at once.
        """
        if not self._more:
            return await self._receive()  # returns when the client disconnects
        self._check_size()
        if self._most:
            most, self._most = self._most, 0
            await self._bodies.reserve(self._share, most)
            self._until += self._share.waited_s
        try:
            message = await self._next(self._until)
        except TimeoutError:
            late = (
                f"the body did not arrive within {self._limits.body_timeout_s:g} s (body_timeout_s): send less at once"
            )
            raise BodyRefused(408, "body_timeout", late) from None
        self._share.take(len(message.get("body", b"")))
        self._check_size()
        return message

    async def drop_rest(self) -> None:
        """Receive and drop the rest: closing the connection before would lose the answer."""
        while self._more and not self._waits_for_us:
            try:
                await self._next(min(self._until, asyncio.get_running_loop().time() + _LINGER_S))
            except TimeoutError:
                return

    async def _next(self, until: float) -> Message:
        async with asyncio.timeout_at(until):
            message = await self._receive()
        self._seen += len(message.get("body", b""))
        self._more = message.get("more_body", False)
        return message

    def _check_size(self) -> None:
        if (size := max(self._declared, self._seen)) > self._limits.max_body_bytes:
            limit = f"the limit is {self._limits.max_body_bytes:,} (max_body_bytes): send less at once"
            raise BodyRefused(413, "body_too_large", f"the body has at least {size:,} bytes, {limit}")


def bytes_of_texts(parsed: Any) -> int:
    """Memory of all texts in parsed JSON.

    >>> bytes_of_texts({"a": ["b" * 1000, "ä" * 1000]}) // 1000
    2
    """
    size, left = 0, [parsed]
    while left:
        one = left.pop()
        if isinstance(one, str):
            size += sys.getsizeof(one)
        elif isinstance(one, dict):
            left += one.keys()
            left += one.values()
        elif isinstance(one, list):
            left += one
    return size


def values_in(body: bytes | bytearray) -> int:
    """Upper bound of the number of JSON values, without parsing: commas and brackets in texts count too.

    >>> values_in(b'{"input": ["a", "b"]}')
    5
    """
    return 1 + sum(map(body.count, _BEGIN_VALUES))


class BodyRefused(HTTPException):
    """A body that is not read to its end; an HTTPException, since FastAPI lets only those through while reading."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(status, message)
        self.failure = Failure(status, code, message, retry_after_s=retry_after_s)
