"""Hosts by whose names a service may be called: against web pages whose name leads to this machine (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from .failures import Failure
from .routes import to_response

_USUAL = 256  # characters of a host; others come once


class KnownHosts:
    """Refuses requests whose ``host`` header is neither localhost nor one of ``hosts``; ``*``: any."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, {host.lower() for host in hosts}
        self._is_known = lru_cache(maxsize=256)(self._look_up)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        host = scope["state"]["life"].sent.get(b"host", b"").decode("latin-1") if scope["type"] == "http" else ""
        known = self._is_known if len(host) < _USUAL else self._look_up
        if not known(host):
            message = f"this service does not know the host {host_name(host)!r:.80}: name it in allowed_hosts"
            shape = scope["app"].state.shapes.of(scope)
            await to_response(Failure(403, "host_unknown", message), shape)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _look_up(self, header: str) -> bool:
        name = host_name(header)
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
