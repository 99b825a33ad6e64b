"""What happens to every request before and after its route; plain ASGI, so that bodies are not buffered."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import LOGGER, request_id
from .policy import PREFIXES

log = logging.getLogger(LOGGER)
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_QUIET = ("/livez", "/readyz", "/metrics")
Observe = Callable[[str, int, float], None]
"""Told route, status and seconds of each request."""


class Observed:
    """Gives a request its id (the caller's, if it has a good one), times it, counts it and logs it."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app, self._observe = app, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        id_ = given if _ID.fullmatch(given) else uuid.uuid4().hex
        token, started, status = request_id.set(id_), time.perf_counter(), 500

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-request-id", id_.encode("latin-1")))
            await send(message)

        path = scope["path"]
        try:
            await self._app(scope, receive, tell)
        finally:
            seconds = time.perf_counter() - started
            self._observe(_route(scope), status, seconds)
            level = logging.DEBUG if path in _QUIET else logging.INFO
            told = scope.get("state", {}).get("log", {})
            extra = {"method": scope["method"], "path": path, "status": status, "seconds": round(seconds, 6), **told}
            log.log(level, "request", extra=extra)
            request_id.reset(token)


class Prefixed:
    """Takes ``/plain`` or ``/refined`` off the path and notes it for the route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] == "http":
            for prefix, manner in PREFIXES.items():
                root = scope.get("root_path", "")  # of the proxy, which may have taken it off or not
                for before in {root, ""}:
                    if scope["path"].startswith(f"{before}{prefix}/"):
                        scope["path"] = before + scope["path"].removeprefix(before + prefix)
                        scope.setdefault("state", {})["prefix"] = manner
        await self._app(scope, receive, send)


class Limited:
    """Ends the reading of a body that is too large, whether or not its length was declared truly."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        total = int(declared) if declared.isdigit() else 0
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            if max(total, seen) > self._max:
                raise too_large(max(total, seen), self._max)
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max:
                raise too_large(seen, self._max)
            return message

        await self._app(scope, limited, send)


def too_large(size: int, limit: int) -> HTTPException:
    """The one exception that FastAPI lets through while it reads a body."""
    message = f"the body has at least {size:,} bytes, the limit is {limit:,} (max_body_bytes): send less at once"
    return HTTPException(413, message)


def _route(scope: Scope) -> str:
    """Template of the path, of which there are few; a path that is none of ours counts as ``other``."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", "other"))
