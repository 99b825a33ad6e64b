"""Fetch images by URL for untrusted callers: only public addresses, also after a redirect, and within limits.

A name is resolved once per connection, all its addresses are checked, and the connection goes to a checked address. So
a name that changes its address in between gains nothing. TLS still verifies the name. Proxies are not used.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore
import httpx

from .. import __version__
from .failures import Failure, Refused, too_many_bytes

_UNICAST = IPv6Network("2000::/3")
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_PORTS = (80, 443)
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 3
_HEADERS = {"user-agent": f"reco-plugin/{__version__}", "accept": "image/*", "accept-encoding": "identity"}
_AT_ONCE = 16
_SHOWN = 80
_USERINFO = re.compile(r"//[^/]*@")


def is_public(text: str) -> bool:
    """Whether the service may connect to an address for an untrusted caller.

    >>> [is_public(address) for address in ("93.184.215.14", "127.0.0.1", "::ffff:10.0.0.1", "169.254.169.254")]
    [True, False, False, False]
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address) and (address.sixtofour or address.teredo or address not in _UNICAST):
        return False  # translated into IPv4, mapped, or of no network
    return address.is_global and not address.is_multicast


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """All addresses of a name, from the system's resolver.

    Raises:
        OSError: the name is unknown.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass
class ImageFetcher:
    """Fetches images; call it with a URL."""

    max_bytes: int  # of an image
    timeout_s: float  # for one URL, waiting for its turn included
    hosts: Sequence[str]  # the only ones that are allowed; .example.com: all its subdomains; *: any
    resolve: Resolve = resolve_host  # name and port to addresses
    network: httpcore.AsyncNetworkBackend = field(default_factory=httpcore.AnyIOBackend)  # connects to addresses
    tls: ssl.SSLContext = field(default_factory=httpcore.default_ssl_context)  # trusted certificates
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE), init=False)

    async def __call__(self, url: str) -> bytes:
        """Fetch an image; the bytes, not decoded.

        Raises:
            Refused: 400 ``image_url_forbidden``, 413 ``image_too_large``,
                424 ``image_fetch_failed`` or ``image_fetch_timeout``.
        """
        try:
            async with asyncio.timeout(self.timeout_s), self._turn:
                return await self._follow(url)
        except (TimeoutError, httpcore.TimeoutException):
            message = f"{_show_url(url)} did not answer within {self.timeout_s:g} s"
            raise Refused(Failure(424, "image_fetch_timeout", message)) from None
        except (OSError, UnicodeError, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise Refused(_make_failure(url, str(error) or type(error).__name__)) from None

    async def _follow(self, url: str) -> bytes:
        """Follow redirects, each checked like the first URL."""
        for _ in range(_MAX_REDIRECTS + 1):
            answer = await self._get(check_url(url, self.hosts))
            if isinstance(answer, bytes):
                return answer
            url = _resolve_redirect(url, answer)
        raise Refused(_make_failure(url, f"more than {_MAX_REDIRECTS} redirects"))

    async def _get(self, url: httpx.URL) -> bytes | str:
        """The body (bytes), or the URL of a redirect (str)."""
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers = [("host", url.netloc.decode("ascii")), *_HEADERS.items()]
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self.tls, max_connections=1, network_backend=_Pinned(self.resolve, self.network)
        )
        async with pool, pool.stream("GET", target, headers=headers) as response:
            fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in _REDIRECTS and "location" in fields:
                return fields["location"]
            if response.status != 200:
                raise Refused(_make_failure(str(url), f"HTTP {response.status}"))
            return await self._body(response, fields.get("content-length", ""))

    async def _body(self, response: httpcore.Response, declared: str) -> bytes:
        if declared.isdigit() and int(declared) > self.max_bytes:
            raise Refused(too_many_bytes(int(declared), self.max_bytes))
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > self.max_bytes:
                raise Refused(too_many_bytes(len(body), self.max_bytes))
        return bytes(body)


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only."""

    def __init__(self, resolve: Resolve, network: httpcore.AsyncNetworkBackend) -> None:
        self._resolve, self._network = resolve, network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check all addresses, connect to the first that answers."""
        addresses = list(dict.fromkeys(await self._resolve(host, port)))
        if not addresses or not all(map(is_public, addresses)):
            raise Refused(_forbidden(host, "it does not point to public addresses only"))
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError:
                continue
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


def check_url(url: str, hosts: Sequence[str]) -> httpx.URL:
    """Parse a URL and check all that needs no network.

    Raises:
        Refused: 400 ``image_url_forbidden``.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise Refused(_forbidden(url, f"it is not a URL ({error})")) from None
    host = parsed.raw_host.decode("ascii").rstrip(".")
    if parsed.scheme not in ("http", "https") or not host:
        raise Refused(_forbidden(url, "it is not an http or https URL"))
    if parsed.userinfo:
        raise Refused(_forbidden(url, "it holds a user name or password"))
    if parsed.port is not None and parsed.port not in _PORTS:
        raise Refused(_forbidden(url, f"its port is none of {_PORTS}"))
    if not any(_fits(host, allowed.lower()) for allowed in hosts):
        raise Refused(_forbidden(url, f"its host is none of {list(hosts)} (image_url_hosts)"))
    return parsed


def _resolve_redirect(url: str, location: str) -> str:
    try:
        return str(httpx.URL(url).join(location))
    except (httpx.InvalidURL, ValueError):
        raise Refused(_make_failure(url, "it redirects to what is not a URL")) from None


def _fits(host: str, allowed: str) -> bool:
    return allowed in ("*", host) or (allowed.startswith(".") and host.endswith(allowed))


def _show_url(url: str) -> str:
    """A URL for a message, without possible secrets."""
    return repr(_USERINFO.sub("//", url.partition("?")[0])[:_SHOWN])


def _forbidden(url: str, why: str) -> Failure:
    return Failure(400, "image_url_forbidden", f"{_show_url(url)} is not fetched: {why}; send the image itself instead")


def _make_failure(url: str, why: str) -> Failure:
    return Failure(424, "image_fetch_failed", f"{_show_url(url)} could not be fetched: {why}")
