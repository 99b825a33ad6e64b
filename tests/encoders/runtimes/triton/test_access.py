"""Headers, TLS, and what answers at the URL without being Triton."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reco_plugin.encoders.runtimes.graphs import open_graph
from reco_plugin.errors import SessionError, SessionUnavailable
from reco_plugin.settings import load_settings

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("triton")]

KEY = "sesame-4711"


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


def opened(artifact: Any, **settings: Any) -> Any:
    return open_graph(artifact, "paper_text", load_settings(**settings))


def test_headers_open_a_server_that_asks_for_them(start_server, model, artifact, fusion_inputs):
    rule = f"inference,model-config:x-reco-key={KEY}"
    options = [f"--grpc-restricted-protocol={rule}"]
    server = start_server(model, models=["paper_text"], options=options)
    url, header = server.grpc, "triton-grpc-protocol-x-reco-key"
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


def test_nothing_at_the_port_is_told_with_what_to_look_at(artifact):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SessionUnavailable, match=rf"no Triton server can be reached at grpc://127.0.0.1:{port} .*8001"):
        opened(artifact, triton_url=f"grpc://127.0.0.1:{port}")
