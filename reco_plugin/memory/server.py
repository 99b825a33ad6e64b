"""A Qdrant server: its address, key and TLS, and the client that talks to it by gRPC or REST."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc
from qdrant_client import QdrantClient
from qdrant_client.grpc import HealthCheckRequest, QdrantStub

from ..errors import ConfigError
from ..memory_options import MemoryOptions
from .faults import is_refusal_of_key

SCHEMES = ("http", "https", "grpc", "grpcs")
REST_PORT, GRPC_PORT = 6333, 6334
_PROBE_S = 1.0
_LOOPBACK = "localhost"
_LOOPBACKS = ("127.0.0.1", "::1")
_CHANNEL = {
    "grpc.max_reconnect_backoff_ms": 2000,  # a server that is back is found at once, not after two minutes
    "grpc.keepalive_time_ms": 60_000,
}
_log = logging.getLogger("reco_plugin.memory")


@dataclass(frozen=True)
class Server:
    """How to reach a Qdrant server; the key is never printed.

    Attributes:
        location: the URL as the user wrote it.
        host: name or address.
        port: of REST, or of gRPC where the URL says so.
        tls: encrypted.
        path: what stands before Qdrant's own paths behind a REST proxy.
        transport: auto, grpc or rest.
        api_key: the key.
        options: everything else.
    """

    location: str
    host: str
    port: int
    tls: bool
    path: str = ""
    transport: str = "auto"
    api_key: str | None = field(default=None, repr=False)
    options: MemoryOptions = field(default_factory=MemoryOptions)

    @classmethod
    def parse(cls, location: str, api_key: str | None = None, options: MemoryOptions | None = None) -> Server:
        """Read a URL: http(s)://host[:6333][/path] or grpc(s)://host[:6334].

        Raises:
            ConfigError: another scheme, a user or key in the URL, a port that is none, or a transport that the
                scheme contradicts; or a ``ca_file`` without TLS.
        """
        chosen = options or MemoryOptions()
        try:
            url = urlsplit(location)
            port = url.port
        except ValueError:
            url, port = urlsplit(""), None
        if url.scheme not in SCHEMES or not url.hostname or "@" in url.netloc or url.query or url.fragment:
            raise ConfigError(
                "the URL of a Qdrant server looks like http://host:6333 or grpc://host:6334 (https, grpcs with TLS), "
                "without user or key in it"
            )
        by_grpc, tls = url.scheme.startswith("grpc"), url.scheme in ("https", "grpcs")
        if by_grpc and (chosen.transport == "rest" or url.path.strip("/")):
            raise ConfigError(f"{location!r} is a gRPC address: for REST, or a path, write http:// and the REST port")
        if chosen.ca_file is not None and not tls:
            raise ConfigError(f"memory_options.ca_file needs TLS: write https:// or grpcs:// in place of {location!r}")
        return cls(
            location,
            url.hostname,
            port or (GRPC_PORT if by_grpc else REST_PORT),
            tls,
            url.path.rstrip("/"),
            "grpc" if by_grpc else chosen.transport,
            api_key,
            chosen,
        )

    @property
    def grpc_port(self) -> int:
        """Port for gRPC."""
        return self.port if self.location.startswith("grpc") else self.options.grpc_port

    def is_same(self, other: Server) -> bool:
        """Whether both are one server, as far as their addresses tell: by REST and by gRPC it has two ports.

        >>> one = Server.parse("http://h:6333")
        >>> one.is_same(Server.parse("grpc://h")), one.is_same(Server.parse("http://h:6335"))
        (True, False)
        """
        by_grpc = (self.location.startswith("grpc"), other.location.startswith("grpc"))
        ports = (self.port, other.port) if by_grpc[0] == by_grpc[1] else (self.grpc_port, other.grpc_port)
        hosts = [_LOOPBACK if each.host in _LOOPBACKS else each.host for each in (self, other)]
        return hosts[0] == hosts[1] and ports[0] == ports[1] and (self.path == other.path or any(by_grpc))

    def connect(self) -> tuple[QdrantClient, str]:
        """A client, and whether it talks grpc or rest; nothing but a probe of the gRPC port is sent yet.

        Raises:
            ConfigError: a ``ca_file`` that cannot be read.
        """
        rest, channel = self._rest_options(), self._channel_options()
        by_grpc = self.transport == "grpc" or (self.transport == "auto" and self._grpc_answers())
        if self.transport == "auto" and not by_grpc:
            _log.info("no gRPC at %s:%d, so the memory is reached by REST", self.host, self.grpc_port)
        client = QdrantClient(
            host=self.host,
            port=self.port,
            grpc_port=self.grpc_port,
            https=self.tls,
            prefix=self.path or None,
            prefer_grpc=by_grpc,
            api_key=self.api_key,
            timeout=self.options.timeout_s,
            grpc_options=channel,
            check_compatibility=False,  # it only warns, and first where the server cannot be reached
            **rest,
        )
        return client, "grpc" if by_grpc else "rest"

    def _rest_options(self) -> dict[str, Any]:
        file = self.options.ca_file
        if file is None:
            return {}
        try:
            return {"verify": ssl.create_default_context(cafile=file)}
        except OSError as error:  # also what is wrong with its contents
            raise ConfigError(f"memory_options.ca_file: {file} cannot be read as a PEM file: {error}") from error

    def _channel_options(self) -> dict[str, Any]:
        file = self.options.ca_file
        return dict(_CHANNEL) if file is None else {**_CHANNEL, "root_certificates": file.read_bytes()}

    def _grpc_answers(self) -> bool:
        options = self._channel_options()
        roots = options.pop("root_certificates", None)
        address, settings = f"{self.host}:{self.grpc_port}", list(options.items())
        channel = (
            grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), settings)
            if self.tls
            else grpc.insecure_channel(address, settings)
        )
        with channel:
            try:
                QdrantStub(channel).HealthCheck(HealthCheckRequest(), timeout=_PROBE_S)  # type: ignore[no-untyped-call]
            except grpc.RpcError as error:
                return is_refusal_of_key(error)
        return True


@contextmanager
def client_closed_on_error(client: QdrantClient) -> Iterator[None]:
    """Close a client when what follows fails."""
    try:
        yield
    except BaseException:
        client.close()
        raise
