"""Headers, TLS, and what answers at the URL without being Triton."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from reco_plugin.config import load_settings
from reco_plugin.errors import SessionError, SessionTimeout, SessionUnavailable
from reco_plugin.sessions import open_graph
from reco_plugin.sessions.triton.connection import TimeLimit
from reco_plugin.sessions.triton.wire import AccessRefused

pytestmark = pytest.mark.xdist_group("triton")

KEY = "sesame-4711"
PROTOCOLS = ["grpc", "http"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    folder = tmp_path_factory.mktemp("certificate")
    paths = (folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        [
            openssl,
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-out",
            str(paths[0]),
            "-keyout",
            str(paths[1]),
        ],
        check=True,
        capture_output=True,
    )
    return paths


@contextmanager
def answering(talk: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Something at a port that treats each connection in its own way; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            wrapped = tls.wrap_socket(connection, server_side=True) if tls else connection
            with wrapped:
                talk(wrapped)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def says(status: str, body: bytes = b"") -> Callable[[socket.socket], None]:
    """Answers every request over HTTP in the same way."""

    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return talk


def silent(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def drips(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def opened(artifact: Any, **settings: Any) -> Any:
    return open_graph(artifact, "paper_text", load_settings(**settings))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_open_a_server_that_asks_for_them(start_server, model, artifact, fusion_inputs, protocol):
    rule = f"inference,model-config:x-reco-key={KEY}"
    options = [f"--grpc-restricted-protocol={rule}", f"--http-restricted-api={rule}"]
    server = start_server(model, models=["paper_text"], options=options)
    url, header = server.url(protocol), {"grpc": "triton-grpc-protocol-x-reco-key", "http": "x-reco-key"}[protocol]
    for headers in ({}, {header: "wrong-key"}):
        with pytest.raises(SessionError, match="triton_headers") as caught:
            opened(artifact, triton_url=url, triton_headers=headers)
        assert "wrong-key" not in str(caught.value)
        assert "model-repository" not in str(caught.value), "another folder would be refused as well"
    session = opened(artifact, triton_url=url, triton_headers={header: KEY})
    assert len(session.run(fusion_inputs(2, 3))["refined"]) == 2
    server.kill()


def test_grpc_over_tls_needs_the_authority(start_server, model, artifact, fusion_inputs, certificate):
    cert, key = certificate
    options = ["--grpc-use-ssl=1", f"--grpc-server-cert={cert}", f"--grpc-server-key={key}"]
    server = start_server(model, models=["paper_text"], options=options)
    secure = server.grpc.replace("grpc://", "grpcs://")
    session = opened(artifact, triton_url=secure, triton_ca=cert)
    assert len(session.run(fusion_inputs(2, 3))["refined"]) == 2
    with pytest.raises(SessionUnavailable, match="authority in triton_ca"):
        opened(artifact, triton_url=secure)
    with pytest.raises(SessionUnavailable, match=server.grpc):
        opened(artifact, triton_url=server.grpc)
    server.kill()


def test_https_needs_the_authority(artifact, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with answering(says("418 I am a teapot", b"tea"), context) as port:
        url = f"https://127.0.0.1:{port}"
        with pytest.raises(SessionError, match="HTTP 418: tea"):
            opened(artifact, triton_url=url, triton_ca=certificate[0])
        with pytest.raises(SessionUnavailable, match="authority in triton_ca"):
            opened(artifact, triton_url=url)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_at_the_port_is_told_with_what_to_look_at(artifact, protocol):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        SessionUnavailable, match=rf"no Triton server is reached at {protocol}://127.0.0.1:{port} .*8001"
    ):
        opened(artifact, triton_url=f"{protocol}://127.0.0.1:{port}")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_never_answers_is_given_up_at_the_deadline(artifact, protocol):
    with answering(silent) as port, pytest.raises(SessionTimeout, match=r"did not answer within 0\.3 s"):
        opened(artifact, triton_url=f"{protocol}://127.0.0.1:{port}", triton_timeout_s=0.3)


def test_the_time_that_is_told_is_the_whole_of_it(artifact, monkeypatch):
    """Not what was left when the last attempt began."""
    left = iter((0.3, 0.1))
    monkeypatch.setattr(TimeLimit, "left", lambda self: next(left, 0.1))
    with answering(silent) as port, pytest.raises(SessionTimeout, match=r"did not answer within 20 s"):
        opened(artifact, triton_url=f"http://127.0.0.1:{port}", triton_timeout_s=20)


def test_an_answer_that_drips_is_given_up_at_the_deadline(artifact):
    with answering(drips) as port, pytest.raises(SessionTimeout):
        opened(artifact, triton_url=f"http://127.0.0.1:{port}", triton_timeout_s=0.3)


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        ("401 Unauthorized", b"who are you", AccessRefused, r"refuses access \(HTTP 401: who .*triton_headers"),
        ("502 Bad Gateway", b"<html>", SessionUnavailable, "did not answer .*HTTP 502"),
        ("404 Not Found", b'{"error": "no such model"}', SessionError, r"HTTP 404: no such model\. Serve this folder"),
        ("200 OK", b"<html>hello</html>", SessionError, "no configuration of a model"),
    ],
)
def test_what_is_not_triton_is_quoted(artifact, status, body, kind, message):
    with answering(says(status, body)) as port, pytest.raises(SessionError, match=message) as caught:
        opened(artifact, triton_url=f"http://127.0.0.1:{port}")
    assert type(caught.value) is kind


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_name_that_no_host_has_is_told_like_a_wrong_port(artifact, protocol):
    url = f"{protocol}://triton.invalid:8001"
    with pytest.raises(SessionUnavailable, match=rf"no Triton server is reached at {url} .*is this its port"):
        opened(artifact, triton_url=url)


def test_http_at_a_grpc_port_hints_at_the_protocol(server, artifact):
    with pytest.raises(SessionUnavailable, match=r"no Triton server is reached .*is the protocol right"):
        opened(artifact, triton_url=server.grpc.replace("grpc", "http"))


def test_grpc_at_an_http_port_hints_at_the_protocol(server, artifact):
    with pytest.raises((SessionUnavailable, SessionTimeout), match="grpc://127"):
        opened(artifact, triton_url=server.http.replace("http", "grpc"), triton_timeout_s=3)
