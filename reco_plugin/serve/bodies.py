"""Bodies of requests: how large, how late, how many at once; and read as JSON beside the event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .failures import Failure
from .schemas import most_items
from .settings import ServeSettings

_SMALL = 64_000  # bytes that are read in less time than a thread takes to start
_VALUE_BYTES = 40  # of a number in two lists: as it was read, and as it was checked
_WIDEST = 4  # bytes per character of a text in memory, if one of them is rare enough
_BEGIN_VALUES = (b",", b"[", b"{", b":")
_RETRY_S = 1.0
_LINGER_S = 1.0  # until the next piece of a body that nobody reads


class Bodies:
    """The memory that bodies take, and the one place where they are parsed; used from one event loop."""

    def __init__(self, settings: ServeSettings) -> None:
        self.limits = settings
        """What is allowed."""
        self.pending = 0
        """Bytes that requests hold now: bodies as they came, and what they became."""
        self._turn = asyncio.Semaphore(1)  # what is being parsed takes far more memory than what was checked

    @contextmanager
    def share(self) -> Iterator[Share]:
        """What one request takes, given back at its end."""
        taken = Share(self)
        try:
            yield taken
        finally:
            self.pending -= taken.bytes

    async def parse(self, body: bytes, share: Share) -> Any:
        """Read JSON.

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
                raise BodyRefused(413, "body_too_large", _too_many_values(values, self.limits.max_body_values))
            wide = not body.isascii() or b"\\u" in body
            share.take(len(body) * (_WIDEST if wide else 1) + _VALUE_BYTES * values)
            return await asyncio.to_thread(json.loads, body)


class Share:
    """The part of :class:`Bodies` that one request takes."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.bytes = 0
        """Taken so far."""

    def take(self, count: int) -> None:
        """Take more.

        Raises:
            BodyRefused: 429, others take so much that this does not fit; a request that is alone always fits.
        """
        others, limit = self._bodies.pending - self.bytes, self._bodies.limits.max_pending_bytes
        if count and others and others + self.bytes + count > limit:
            message = f"the requests that are being answered take {others:,} bytes of {limit:,} (max_pending_bytes)"
            raise BodyRefused(429, "too_many_bytes", f"{message}: try again later", retry_after_s=_RETRY_S)
        self.bytes += count
        self._bodies.pending += count


class JsonRequest(Request):
    """A request whose JSON is read under the limits.

    JSON is JSON whatever ``content-type`` says: AWS' clients, curl and others name another one, or none. Not where a
    browser asks for a page of somebody else: it sends those without asking first only if they do not say JSON.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        said = dict(scope["headers"])
        if b"origin" not in said and not said.get(b"content-type", b"").startswith(b"multipart/form-data"):
            headers = [header for header in scope["headers"] if header[0] != b"content-type"]
            scope = {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
        super().__init__(scope, receive)

    async def body(self) -> bytes:
        """The whole body, in one piece that grows: pieces to be joined would take twice the memory."""
        if not hasattr(self, "_body"):
            whole = bytearray()
            async for chunk in self.stream():
                whole += chunk
            self._body = whole  # type: ignore[assignment]  # bytes that nobody changes, not copied
        return self._body

    async def json(self) -> Any:
        """See :meth:`Bodies.parse`."""
        return await self.app.state.edge.bodies.parse(await self.body(), self.state.share)


class Limited:
    """Ends the reading of a body that is too large, whether or not its length was declared truly, or too late."""

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
            body = _Body(scope, receive, share, self._bodies.limits)

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await body.drop_rest()
                await send(message)

            await self._app(scope, body.receive, answer)


class _Body:
    """The body of one request, as far as it was received."""

    def __init__(self, scope: Scope, receive: Receive, share: Share, limits: ServeSettings) -> None:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        self._declared = int(declared) if declared.isdigit() else 0
        self._waits_for_us = b"expect" in headers  # asking for the body would ask the client for it
        self._receive, self._share, self._limits = receive, share, limits
        self._until = asyncio.get_running_loop().time() + limits.body_timeout_s
        self._seen, self._more = 0, True

    async def receive(self) -> Message:
        """The next piece.

        Raises:
            BodyRefused: 413 too large, 408 too late, 429 too much at once.
        """
        if not self._more:
            return await self._receive()  # which is how one learns that the client has left
        self._check_size()
        try:
            message = await self._next(self._until)
        except TimeoutError:
            late = (
                f"the body was not there within {self._limits.body_timeout_s:g} s (body_timeout_s): send less at once"
            )
            raise BodyRefused(408, "body_timeout", late) from None
        self._share.take(len(message.get("body", b"")))
        self._check_size()
        return message

    async def drop_rest(self) -> None:
        """Receive what nobody reads, while it comes: a connection that is closed before it loses the answer."""
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


def values_in(body: bytes) -> int:
    """How many values JSON holds at most; commas and brackets in texts count, so that nothing needs to be parsed.

    >>> values_in(b'{"input": ["a", "b"]}')
    5
    """
    return 1 + sum(map(body.count, _BEGIN_VALUES))


def _too_many_values(values: int, limit: int) -> str:
    return f"the body has up to {values:,} values, the limit is {limit:,} (max_body_values): send less at once"


class BodyRefused(HTTPException):
    """A body that is not read to its end: the one kind of exception that FastAPI lets through meanwhile."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(status, message)
        self.failure = Failure(status, code, message, retry_after_s=retry_after_s)
        """For the dialect to put into words."""
