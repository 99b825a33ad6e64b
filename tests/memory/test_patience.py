"""A call to a server that fails names the limit that ended it, and the setting that it comes from."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import grpc
import pytest
from qdrant_client import QdrantClient, models

from reco_plugin.errors import MemoryOverloaded, MemoryTimeout, MemoryUnavailable
from reco_plugin.memory.server import Patience, Server

POINTS = [models.PointStruct(id=1, vector=[1.0])]


@pytest.fixture
def silent() -> Iterator[int]:
    """Port where connections are accepted and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def answering() -> Iterator[Callable[..., int]]:
    """Start a server that answers everything with one status and headers; gives its port."""
    started = []

    def start(status: int, headers: dict[str, str] | None = None) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(status)
                for name, value in {"content-length": "0", **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()

            do_POST = do_PUT

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        started.append(server)
        Thread(target=server.serve_forever, args=(0.01,)).start()
        return int(server.server_address[1])

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def write(port: int, kind: type[Exception], *, grpc: bool = False, timeout_s: int = 1, within_s: int = 40) -> str:
    """Write to a server, and give what is said."""
    patience = Patience(f"http://127.0.0.1:{port}", key_given=False, read_s=timeout_s, write_s=within_s)
    ports = {"grpc_port": port, "prefer_grpc": True} if grpc else {"port": port}
    client = QdrantClient(host="127.0.0.1", timeout=timeout_s, check_compatibility=False, **ports)
    with closing(client), pytest.raises(kind) as caught:
        patience.run("write", lambda left: client.upsert("c", POINTS, wait=True, timeout=left), write=True)
    return str(caught.value)


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_a_late_write_names_the_limit_of_one_attempt(silent, grpc):
    said = write(silent, MemoryTimeout, grpc=grpc)
    assert "raise memory_options.timeout_s;" in said
    assert "may be stored all the same" in said


def test_a_refused_write_names_its_own_setting(answering):
    said = write(answering(429, {"retry-after": "50"}), MemoryOverloaded)
    assert "asks to wait 50 s, beyond the 40 s" in said
    assert "raise memory_options.write_timeout_s, or the collection's write_rate_limit" in said
    assert "memory_options.timeout_s" not in said
    assert "read_rate_limit" not in said


def test_a_write_to_nobody_says_how_long_it_was_tried():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    said = write(port, MemoryUnavailable, within_s=1)
    assert ", for 1 s (memory_options.write_timeout_s). Is a Qdrant server running there?" in said


def test_a_proxy_that_lets_no_health_check_pass_answers_too():
    """Else such a server was never asked again, after its first outage."""
    with ThreadPoolExecutor(1) as threads:
        proxy = grpc.server(threads)
        port = proxy.add_insecure_port("127.0.0.1:0")
        proxy.start()
        server = Server.parse(f"grpc://127.0.0.1:{port}")
        assert server.answers()
        proxy.stop(None).wait()
        assert not server.answers()
