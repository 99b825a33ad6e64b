"""Hosts by whose names a service may be called: against web pages whose name leads to this machine (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from .failures import Failure


def known_hosts(hosts: Sequence[str] | None) -> Callable[[bytes], bool]:
    """Whether a ``host`` header is localhost or one of these; ``*``, or None: any.

    >>> knows = known_hosts(["shop.example"])
    >>> knows(b"shop.example:8080"), knows(b"LOCALHOST.:80"), knows(b"[::1]:80"), knows(b"evil.example")
    (True, True, True, False)
    """
    if hosts is None or "*" in hosts:
        return lambda _: True
    named = {"", *map(str.lower, hosts)}

    def knows(header: bytes) -> bool:
        try:
            name = (urlsplit(f"//{header.decode('latin-1')}").hostname or "").rstrip(".")
        except ValueError:  # a bracket that is not closed
            return False
        return name in named or is_loopback(name)

    return knows


def unknown_host(header: bytes) -> Failure:
    """What callers of another host get."""
    name = header.decode("latin-1")
    return Failure(403, "host_unknown", f"this service does not know the host {name!r:.80}: name it in allowed_hosts")


def is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's own, without resolving it."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
