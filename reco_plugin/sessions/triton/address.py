"""Address, TLS and headers of a Triton server, from the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ...config import Settings
from ...errors import ConfigError

_PORT = 8001
_FORMS = "grpc://host:8001 (grpcs for TLS)"


@dataclass(frozen=True)
class Address:
    """One server, and how to connect to it."""

    url: str  # as the user wrote it, for messages
    tls: bool
    authority: str  # ``host:port``
    ca: Path | None = None  # PEM file; the system's authorities when None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # sent with each request; never shown


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
    if parts.scheme not in ("grpc", "grpcs") or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"triton_url {url!r} is not of the form {_FORMS}")
    tls = parts.scheme == "grpcs"
    if settings.triton_ca and not tls:
        raise ConfigError(f"triton_ca is set, but triton_url {url!r} is not encrypted: write grpcs://")
    if settings.triton_ca and not settings.triton_ca.is_file():
        raise ConfigError(f"triton_ca: no file at {str(settings.triton_ca)!r}")
    name = f"[{host}]" if ":" in host else host
    headers = tuple((key.lower(), value.get_secret_value()) for key, value in settings.triton_headers.items())
    return Address(url, tls, f"{name}:{port or _PORT}", settings.triton_ca, headers)
