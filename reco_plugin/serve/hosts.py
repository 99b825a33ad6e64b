"""Hosts by whose names a service may be called: against web pages whose name leads to this machine (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from .failures import Failure
from .routes import to_response

_USUAL = 256  # characters of a host; others come once


class KnownHosts:
    """Refuses requests whose ``host`` header is not known."""

    def __init__(self, app: ASGIApp, knows: Callable[[bytes], bool]) -> None:
        self._app, self._knows = app, knows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        host = scope["state"]["life"].sent.get(b"host", b"") if scope["type"] == "http" else b""
        if not self._knows(host):
            host = host.decode("latin-1")
            message = f"this service does not know the host {host_name(host)!r:.80}: name it in allowed_hosts"
            shape = scope["app"].state.shapes.of(scope)
            await to_response(Failure(403, "host_unknown", message), shape)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def known_hosts(hosts: Sequence[str] | None) -> Callable[[bytes], bool]:
    """Whether a ``host`` header is localhost or one of these; ``*``, or None: any.

    >>> knows = known_hosts(["shop.example"])
    >>> knows(b"shop.example:8080"), knows(b"localhost"), knows(b"evil.example")
    (True, True, False)
    """
    if hosts is None:
        return lambda _: True
    named = {host.lower() for host in hosts}

    def look_up(header: bytes) -> bool:
        name = host_name(header.decode("latin-1"))
        return not name or is_loopback(name) or bool(named & {name, "*"})

    usual = lru_cache(maxsize=256)(look_up)
    return lambda header: usual(header) if len(header) < _USUAL else look_up(header)


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
