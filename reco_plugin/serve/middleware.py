"""Middleware around every route: id, log, URL prefix, host; plain ASGI, so that bodies are not buffered."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .failures import Failure
from .logs import LOGGER, request_id
from .policy import PREFIXES
from .routes import to_response

log = logging.getLogger(LOGGER)
_SLASHES = re.compile("/{2,}")
_TWICE = re.compile("(/v1){2,}/")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
PROBES = ("/livez", "/readyz", "/metrics", "/health", "/ping", "/v1/health/live", "/v1/health/ready")
"""Paths that load balancers and monitoring call every few seconds."""
Observe = Callable[[str, int, float], None]
"""Takes route, status and seconds of a request."""


class Observed:
    """Gives a request an id (the caller's, if it is valid), and times, counts and logs it."""

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
            self._observe(route, status, seconds)
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


class KnownHosts:
    """Refuses requests whose ``host`` header is neither localhost nor one of ``hosts``; ``*``: any."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] == "http" and not self._known(name := host_name(Headers(scope=scope).get("host", ""))):
            message = f"this service does not know the host {name!r:.80}: name it in allowed_hosts"
            shape = scope["app"].state.shapes.of(scope)
            await to_response(Failure(403, "host_unknown", message), shape)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _known(self, name: str) -> bool:
        return not name or is_loopback(name) or bool(self._hosts & {name, "*"})


def host_name(header: str) -> str:
    """The name of a ``host`` header, without port.

    >>> host_name("[::1]:8080"), host_name("LOCALHOST.:80")
    ('::1', 'localhost')
    """
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:  # a bracket that is not closed
        return header


def is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's own, without resolving it."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
