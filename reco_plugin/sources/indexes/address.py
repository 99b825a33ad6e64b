"""Addresses of indexes, as in ``opensearch://host:9200/products?vector=clip&text=title&image=photo_url&id=sku``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError
from ...values import KEY_LIKE, did_you_mean, split_options
from ..location import is_on

SCHEMES = {
    "opensearch": 9200,
    "elasticsearch": 9200,
    "postgresql": 5432,
    "weaviate": 8080,
    "milvus": 19530,
    "lancedb": 0,
}
"""How an address begins -> the engine's usual port; 0: a folder."""
QDRANT = {"http": 6333, "https": 6333, "grpc": 6334, "grpcs": 6334}
"""The same of a Qdrant server, whose URL names a memory or a collection of pairs unless it says ``vector=``."""
FIELDS = ("vector", "text", "image", "id", "images")
CONNECTION = ("tls", "ca_file", "timeout_s")


@dataclass(frozen=True)
class IndexAddress:
    """The address of an index, without any key."""

    scheme: str  # one of :data:`SCHEMES`
    place: str  # as written, without options: for messages and as the name of a source
    host: str = ""
    port: int = 0
    path: str = ""  # the index, the database, or a folder
    user: str | None = None
    vector: str | None = None  # field of the vectors; None: the only one that there is
    text: str | None = None  # field of the captions
    image: str | None = None  # field of the pictures' paths or URLs
    id: str | None = None  # field of the ids; None: the engine's own
    images: str | None = None  # folder of relative paths
    tls: bool = False
    ca_file: str | None = None  # of one's own authority
    timeout_s: float = 10.0  # of one request
    options: Mapping[str, str] = field(default_factory=dict)  # of this engine alone, as ``table``

    def only(self, *known: str) -> None:
        """Check that no other options of the engine's own are given.

        Raises:
            ConfigError: an unknown option.
        """
        for name in self.options:
            if name not in known:
                near = did_you_mean(name, [*FIELDS, *CONNECTION, *known])
                raise ConfigError(f"{self.place} has no option {name!r}: {near}")

    @property
    def url(self) -> str:
        """Where the engine answers by HTTP."""
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}"


def is_index(text: str) -> bool:
    """Whether a text is the address of an index, by how it begins; of a Qdrant server, by its option ``vector``."""
    scheme, colon, _ = text.replace("postgres://", "postgresql://", 1).partition(":")
    return bool(colon) and (scheme in SCHEMES or (scheme in QDRANT and "vector" in split_options(text)[1]))


def parse_address(text: str) -> IndexAddress:
    """Read an address.

    Raises:
        ConfigError: an unknown engine, no host or index, a key in it, or a value that cannot be.

    >>> parse_address("lancedb:./shop?table=products&vector=clip").options
    {'table': 'products'}
    """
    place, options = split_options(text.replace("postgres://", "postgresql://", 1))  # both are usual
    scheme, _, rest = place.partition(":")
    ports = {**SCHEMES, **QDRANT}
    if scheme not in ports:
        raise ConfigError(
            f"an index at {scheme} cannot be opened; `reco compare --function` searches by your own function. "
            f"Addresses begin with one of {', '.join(ports)}"
        )
    for name in options:
        if KEY_LIKE.search(name):
            raise ConfigError(
                f"no key belongs into an address, where others can read it ({name!r}): set RECO_INDEX_API_KEY, or "
                "RECO_INDEX_USER and RECO_INDEX_PASSWORD"
            )
    common: dict[str, Any] = {name: unquote(options.pop(name)) for name in FIELDS if name in options}
    common |= {"tls": is_on(place, "tls", options.pop("tls", None), "ca_file" in options)}
    if "ca_file" in options:
        common["ca_file"] = unquote(options.pop("ca_file"))
    common["timeout_s"] = _seconds(place, options.pop("timeout_s", "10"))
    own = {name: unquote(value) for name, value in options.items()}
    if not rest.startswith("//"):
        return IndexAddress(scheme, place, path=rest, options=own, **common)
    try:
        parts = urlsplit(place)
        port = parts.port or ports[scheme]
    except ValueError as error:
        raise ConfigError(f"an address of {scheme} cannot be read: {error}") from None
    if parts.password is not None:
        raise ConfigError(
            f"no password belongs into the address of an index at {parts.hostname}, where others can read it: set "
            "RECO_INDEX_PASSWORD"
        )
    if not parts.hostname and "host" not in own:  # PostgreSQL takes the folder of a socket
        raise ConfigError(f"{place!r} names no host: {scheme}://HOST:{port}/NAME")
    path = unquote(parts.path.strip("/"))
    return IndexAddress(scheme, place, parts.hostname or "", port, path, parts.username, options=own, **common)


def _seconds(place: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ConfigError(f"{place}: option timeout_s={value!r} must be a number of seconds above 0")
    return seconds
