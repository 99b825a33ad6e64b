"""Address, TLS and headers of a Triton server, from the settings."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ...config import Settings
from ...errors import ConfigError

WireProtocol = Literal["grpc", "http"]
_SCHEMES: dict[str, tuple[WireProtocol, bool]] = {
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
    "http": ("http", False),
    "https": ("http", True),
}
_PORTS: dict[WireProtocol, int] = {"grpc": 8001, "http": 8000}
_FORMS = "grpc://host:8001 or http://host:8000 (grpcs and https for TLS)"


@dataclass(frozen=True)
class Address:
    """One server, and how to connect to it."""

    url: str  # as the user wrote it, for messages
    protocol: WireProtocol
    tls: bool
    host: str
    authority: str  # ``host:port``
    path: str = ""  # before ``/v2``, for HTTP behind a proxy
    ca: Path | None = None  # PEM file; the system's authorities when None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # sent with each request; never shown

    @property
    def on_this_host(self) -> bool:
        """Whether the name is this host's own; a tunnel may still lead elsewhere."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def address_of(settings: Settings) -> Address:
    """Read ``triton_url`` and the settings that belong to it.

    >>> address_of(Settings(triton_url="grpcs://triton.shop:443")).authority
    'triton.shop:443'

    Raises:
        ConfigError: an invalid URL, or a missing certificate file.
    """
    url = settings.triton_url or ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:  # an invalid port
        raise ConfigError(f"triton_url {url!r} cannot be read ({error}): write {_FORMS}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("triton_url must hold no user or password: put them into triton_headers as authorization")
    if parts.scheme not in _SCHEMES or not host or parts.query or parts.fragment:
        raise ConfigError(f"triton_url {url!r} is not of the form {_FORMS}")
    protocol, tls = _SCHEMES[parts.scheme]
    path = parts.path.rstrip("/")
    if path and protocol == "grpc":
        raise ConfigError(f"triton_url {url!r} has the path {path!r}, which gRPC does not know: write {_FORMS}")
    if settings.triton_ca and not tls:
        raise ConfigError(f"triton_ca is set, but triton_url {url!r} is not encrypted: write grpcs:// or https://")
    if settings.triton_ca and not settings.triton_ca.is_file():
        raise ConfigError(f"triton_ca: no file at {str(settings.triton_ca)!r}")
    name = f"[{host}]" if ":" in host else host
    headers = tuple((key.lower(), value.get_secret_value()) for key, value in settings.triton_headers.items())
    return Address(url, protocol, tls, host, f"{name}:{port or _PORTS[protocol]}", path, settings.triton_ca, headers)
