"""Addresses of indexes: ``opensearch://host:9200/products?vector=clip&text=title&image=photo_url&id=sku``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError
from ...values import KEY_LIKE, did_you_mean, split_options
from ..location import INDEX_PORTS, QDRANT_PORTS, parse_switch

FIELDS = ("vector", "text", "image", "id", "images")
CONNECTION = ("tls", "ca_file", "timeout_s")


@dataclass(frozen=True)
class IndexAddress:
    """The address of an index; it holds no key."""

    scheme: str  # of ``INDEX_PORTS`` or ``QDRANT_PORTS``
    place: str  # as written, without options: for messages and as the name of a source
    host: str = ""
    port: int = 0
    path: str = ""  # the index, the database, or a folder
    user: str | None = None
    vector: str | None = None  # field of the vectors; None: the only vector field
    text: str | None = None  # field of the captions
    image: str | None = None  # field of the pictures' paths or URLs
    id: str | None = None  # field of the ids; None: the engine's own
    images: str | None = None  # folder of relative paths
    tls: bool = False
    ca_file: str | None = None  # of a private certificate authority
    timeout_s: float = 10.0  # of one request
    options: Mapping[str, str] = field(default_factory=dict)  # of this engine only, such as ``table``

    def check_options(self, *known: str) -> None:
        """Check that all options of this engine are known.

        Raises:
            ConfigError: an unknown option.
        """
        for name in self.options:
            if name not in known:
                near = did_you_mean(name, [*FIELDS, *CONNECTION, *known])
                raise ConfigError(f"{self.place} has no option {name!r}: {near}")

    @property
    def url(self) -> str:
        """The URL of the engine's HTTP API."""
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}"


def parse_address(text: str) -> IndexAddress:
    """Parse an address.

    Raises:
        ConfigError: an unknown engine, no host or index, an invalid value, or a key in the address.

    >>> parse_address("lancedb:./shop?table=products&vector=clip").options
    {'table': 'products'}
    """
    place, options = split_options(text.replace("postgres://", "postgresql://", 1))  # both are common
    scheme, _, rest = place.partition(":")
    ports = INDEX_PORTS | QDRANT_PORTS
    if scheme not in ports:
        raise ConfigError(
            f"an index at {scheme} cannot be opened; `reco compare --function` searches by your own function. "
            f"Addresses begin with one of {', '.join(ports)}"
        )
    for name in options:
        if KEY_LIKE.search(name):
            raise ConfigError(
                f"the address contains a key ({name!r}), and others can read an address: set RECO_INDEX_API_KEY, or "
                "RECO_INDEX_USER and RECO_INDEX_PASSWORD, instead"
            )
    common: dict[str, Any] = {name: unquote(options.pop(name)) for name in FIELDS if name in options}
    common |= {"tls": parse_switch(place, "tls", options.pop("tls", None), "ca_file" in options)}
    if "ca_file" in options:
        common["ca_file"] = unquote(options.pop("ca_file"))
    common["timeout_s"] = _seconds(place, options.pop("timeout_s", "10"))
    of_engine = {name: unquote(value) for name, value in options.items()}
    if not rest.startswith("//"):
        return IndexAddress(scheme, place, path=rest, options=of_engine, **common)
    try:
        parts = urlsplit(place)
        port = parts.port or ports[scheme]
    except ValueError as error:
        raise ConfigError(f"an address of {scheme} cannot be read: {error}") from None
    if parts.password is not None:
        raise ConfigError(
            f"the address of the index at {parts.hostname} contains a password, and others can read an address: set "
            "RECO_INDEX_PASSWORD instead"
        )
    if not parts.hostname and "host" not in of_engine:  # PostgreSQL accepts the folder of a socket
        raise ConfigError(f"{place!r} names no host: {scheme}://HOST:{port}/NAME")
    path = unquote(parts.path.strip("/"))
    return IndexAddress(scheme, place, parts.hostname or "", port, path, parts.username, options=of_engine, **common)


def _seconds(place: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ConfigError(f"{place}: option timeout_s={value!r} must be a number of seconds above 0")
    return seconds
