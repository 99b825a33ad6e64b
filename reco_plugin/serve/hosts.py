"""Hosts by whose names a service may be called: against web pages whose name leads to this machine (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .failures import Failure
from .routes import to_response


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
