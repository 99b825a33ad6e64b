"""Starts and stops the stand-in on ports of 127.0.0.1."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import grpc
from qdrant_client import grpc as q

from .engine import Engine
from .rest import RestHandler
from .rpc import Collections, Points, Root


@dataclass(frozen=True)
class Certificate:
    """PEM files of a server's certificate, its key, and the authority that signed it."""

    chain: Path
    key: Path
    authority: Path


@dataclass
class StandIn:
    """A running stand-in.

    Attributes:
        engine: what it knows; outlives the ports.
        certificate: of its TLS; None has none.
        host: address on which it listens.
        rest_port: where REST is.
        grpc_port: where gRPC is.
    """

    engine: Engine = field(default_factory=Engine)
    certificate: Certificate | None = None
    host: str = "127.0.0.1"
    rest_port: int = 0
    grpc_port: int = 0

    def start(self) -> None:
        """Listen, on the same ports as before where it ran before."""
        handler = type("Handler", (RestHandler,), {"engine": self.engine})
        self._http = ThreadingHTTPServer((self.host, self.rest_port), handler)
        self._http.daemon_threads = True
        self._rpc = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        q.add_QdrantServicer_to_server(Root(), self._rpc)
        q.add_CollectionsServicer_to_server(Collections(self.engine), self._rpc)
        q.add_PointsServicer_to_server(Points(self.engine), self._rpc)
        address = f"{self.host}:{self.grpc_port}"
        if self.certificate is None:
            self.grpc_port = self._rpc.add_insecure_port(address)
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate.chain, self.certificate.key)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
            pair = (self.certificate.key.read_bytes(), self.certificate.chain.read_bytes())
            self.grpc_port = self._rpc.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        self.rest_port = self._http.server_port
        self._rpc.start()
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close both ports at once, as a killed server does; what was stored stays."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)
        self._rpc.stop(None).wait(5)

    def url(self, scheme: str) -> str:
        """The address by http, https, grpc or grpcs."""
        return f"{scheme}://127.0.0.1:{self.grpc_port if scheme.startswith('grpc') else self.rest_port}"


@contextmanager
def serving(**options: object) -> Iterator[StandIn]:
    """A stand-in that runs while the block does."""
    server = StandIn(**options)  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        server.stop()
