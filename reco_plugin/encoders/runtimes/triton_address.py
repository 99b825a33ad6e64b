"""The address of a Triton server, and the ports of a graph by its ``config.pbtxt``. Loads no client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import ArtifactError, ConfigError, importing
from ...settings import Settings

_PORT = 8001
_FORMS = "grpc://host:8001 (grpcs for TLS)"
CHECKSUM = "sha256"
"""Parameter of ``config.pbtxt`` with the checksum of the graph."""


@dataclass(frozen=True)
class Port:
    """One input or output; ``dims`` has no batch, and -1 is any size."""

    name: str
    type: str
    dims: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.type.removeprefix('TYPE_')}[{', '.join(map(str, self.dims))}]"


@dataclass(frozen=True)
class Ports:
    """All ports of one graph, sorted by name."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    max_batch: int  # largest number of rows in a request; 0: no batches
    checksum: str | None  # checksum of the graph, if the configuration has one

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Ports:
        """Read the JSON form of Triton's model configuration."""
        checksum = config.get("parameters", {}).get(CHECKSUM, {})
        return cls(
            _ports(config.get("input", ())),
            _ports(config.get("output", ())),
            int(config.get("max_batch_size", 0)),
            checksum.get("string_value"),
        )

    def __str__(self) -> str:
        inputs, outputs = (", ".join(map(str, ports)) for ports in (self.inputs, self.outputs))
        return f"{inputs} -> {outputs}"


def read_config(path: Path) -> Ports:
    """Read ``config.pbtxt``.

    Raises:
        ArtifactError: the file is missing or is not a model configuration.
        MissingExtra: the Triton client is not installed.
    """
    with importing("tritonclient", "triton", "running models on a Triton server"):
        from google.protobuf import json_format, text_format
        from tritonclient.grpc.model_config_pb2 import ModelConfig
    try:
        config = text_format.Parse(path.read_text("utf-8"), ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): export the model again") from error
    return Ports.of(json_format.MessageToDict(config, preserving_proto_field_name=True))


def _ports(config: Any) -> tuple[Port, ...]:
    ports = (Port(port["name"], port["data_type"], tuple(map(int, port["dims"]))) for port in config)
    return tuple(sorted(ports, key=lambda port: port.name))


@dataclass(frozen=True)
class Address:
    """Address of a server and options of the connection."""

    url: str  # as in the settings, for messages
    tls: bool
    authority: str  # ``host:port``
    ca: Path | None = None  # PEM file of authorities; None: those of the system
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # sent with each request; may hold keys


def address_of(settings: Settings) -> Address:
    """Read ``triton_url``, ``triton_ca`` and ``triton_headers``.

    >>> address_of(Settings(triton_url="grpcs://triton.shop:443")).authority
    'triton.shop:443'

    Raises:
        ConfigError: an invalid URL, or a missing certificate file.
    """
    url = settings.triton_url or ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:  # invalid port
        raise ConfigError(f"triton_url {url!r} cannot be read ({error}): write {_FORMS}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("triton_url contains a user or a password: set authorization in triton_headers instead")
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
