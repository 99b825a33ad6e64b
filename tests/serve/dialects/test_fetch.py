"""Images by URL: no URL reaches a private address, and no server gives more than is wanted."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpcore
import numpy as np
import pytest
import trustme
from image_files import halves, saved
from starlette.testclient import TestClient

from reco_plugin import Reco
from reco_plugin.serve.failures import Failure, Refused
from reco_plugin.serve.fetch import ImageFetcher, check_url, is_public

pytestmark = pytest.mark.slow

PUBLIC = "93.184.215.14"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
        "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0",
        "fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::1", "::ffff:0:10.0.0.1",
        "64:ff9b::101:101", "64:ff9b:1::101:101", "::ffff:1.1.1.1", "2002:101:101::", "fec0::1", "100::1",
        "5f00::1", "2001::1", "2001:20::1", "4000::1", "192.0.0.1", "198.51.100.1", "203.0.113.1",
    ],
)  # fmt: skip
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "192.0.1.1", "223.255.255.1", "2606:4700:4700::1111", "2001:4860::8888", "2a00::1"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://images.example/fox.png",
        "file:///etc/passwd",
        "http://",
        "http://user:secret@images.example/",
        "http://images.example:22/",
        "http://images.example:6379/",
        "http://[::1",
        "//images.example/fox.png",
        "http://\ud800/",
    ],
)
def test_urls_that_are_refused_as_they_stand(url: str) -> None:
    with pytest.raises(Refused) as raised:
        check_url(url, ["*"])
    assert raised.value.failure.code == "image_url_forbidden"
    assert "secret" not in raised.value.failure.message


def test_allowed_hosts() -> None:
    hosts = ("cdn.example", ".images.example")
    for host in ("cdn.example", "CDN.example", "a.images.example", "cdn.example."):
        check_url(f"https://{host}/fox.png", hosts)
    for host in ("images.example", "evil-cdn.example", "cdn.example.evil", "a.cdn.example"):
        with pytest.raises(Refused, match="image_url_hosts"):
            check_url(f"https://{host}/fox.png", hosts)


class Site(BaseHTTPRequestHandler):
    """A web server for tests; what it was asked for is noted."""

    asked: list[tuple[str, str]] = []  # noqa: RUF012 - one list for the server

    def do_GET(self) -> None:
        self.asked.append((self.headers["host"], self.path))
        body, status, headers = b"", 200, {}
        match self.path.partition("?")[0]:
            case "/fox.png" | "/f%C3%BCchse%20.png":
                body = saved(halves("red", "blue"), "PNG")
            case "/to":
                status, headers = 302, {"location": self.path.partition("?")[2]}
            case "/loop":
                status, headers = 301, {"location": "/loop"}
            case "/page":
                body = b"<!doctype html><p>log in first"
            case "/large":
                body = bytes(5000)
            case "/endless":
                self.send_response(200)
                self.end_headers()
                for _ in range(1000):
                    self.wfile.write(bytes(5000))
                return
            case "/slow":
                time.sleep(0.5)
            case _:
                status = 404
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with suppress(ConnectionError, ssl.SSLError):  # the client went away, as it should
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@dataclass
class Internet(httpcore.AnyIOBackend):
    """Names with their addresses; all public addresses are the test's server."""

    port: int
    names: dict[str, list[list[str]]]
    connected: list[str] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        if host not in self.names:
            raise OSError("no such name")
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        self.connected.append(host)
        assert is_public(host), "a private address was connected to"
        if host == "192.88.98.1":
            raise httpcore.ConnectError("no route")
        return await super().connect_tcp("127.0.0.1", self.port, *args, **options)


@pytest.fixture
def internet() -> Iterator[Internet]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        Site.asked.clear()
        yield Internet(
            server.server_port,
            {
                "images.example": [[PUBLIC]],
                "xn--fchse-kva.example": [[PUBLIC]],
                "two.example": [["192.88.98.1", PUBLIC]],
                "inner.example": [["10.1.2.3"]],
                "mixed.example": [[PUBLIC, "127.0.0.1"]],
                "mapped.example": [["::ffff:127.0.0.1"]],
                "rebound.example": [[PUBLIC], ["127.0.0.1"]],
                "127.0.0.1": [["127.0.0.1"]],
                "2130706433": [["127.0.0.1"]],
                "169.254.169.254": [["169.254.169.254"]],
                "::1": [["::1"]],
                "empty.example": [[]],
            },
        )
        server.shutdown()
        thread.join()


def fetch(internet: Internet, url: str, **options: Any) -> bytes:
    chosen = {"max_bytes": 4000, "timeout_s": 5.0, "hosts": ["*"], **options}
    return asyncio.run(ImageFetcher(resolve=internet.resolve, network=internet, **chosen)(url))


def failure(internet: Internet, url: str, **options: Any) -> Failure:
    with pytest.raises(Refused) as raised:
        fetch(internet, url, **options)
    return raised.value.failure


class TestByUrl:
    def test_an_image_is_fetched(self, internet: Internet) -> None:
        assert fetch(internet, "http://images.example/fox.png?size=2") == saved(halves("red", "blue"), "PNG")
        assert Site.asked == [("images.example", "/fox.png?size=2")]
        assert internet.connected == [PUBLIC]

    @pytest.mark.parametrize(
        "host",
        ["inner.example", "mixed.example", "mapped.example", "127.0.0.1", "2130706433", "169.254.169.254", "[::1]",
         "empty.example"],
    )  # fmt: skip
    def test_private_hosts_are_never_connected_to(self, internet: Internet, host: str) -> None:
        for url in (f"http://{host}/fox.png", f"http://images.example/to?http://{host}/fox.png"):
            told = failure(internet, url)
            assert (told.status, told.code) == (400, "image_url_forbidden")
            assert "10.1.2.3" not in told.message
        assert set(internet.connected) == {PUBLIC}

    def test_a_name_that_changes_its_address_gains_nothing(self, internet: Internet) -> None:
        assert fetch(internet, "http://rebound.example/fox.png")  # resolved once, and that address was used
        assert internet.connected == [PUBLIC]
        assert failure(internet, "http://rebound.example/fox.png").code == "image_url_forbidden"

    def test_redirects_are_followed_and_judged_like_urls(self, internet: Internet) -> None:
        assert fetch(internet, "http://images.example/to?/fox.png")
        assert fetch(internet, "http://images.example/to?http://two.example/fox.png")
        for target in ("file:///etc/passwd", "http://images.example:22/", "ftp://images.example/"):
            assert failure(internet, f"http://images.example/to?{target}").code == "image_url_forbidden"
        told = failure(internet, "http://images.example/to?http://two.example/fox.png", hosts=["images.example"])
        assert told.code == "image_url_forbidden"
        assert failure(internet, "http://images.example/to?http://[::1").code == "image_fetch_failed"
        assert failure(internet, "http://images.example/loop").code == "image_fetch_failed"
        assert len([path for _, path in Site.asked if path == "/loop"]) == 4

    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [
            ("none.png", 424, "image_fetch_failed"),
            ("large", 413, "image_too_large"),
            ("endless", 413, "image_too_large"),
        ],
    )
    def test_what_can_go_wrong(self, internet: Internet, path: str, status: int, code: str) -> None:
        told = failure(internet, f"http://images.example/{path}")
        assert (told.status, told.code) == (status, code)

    def test_slow_servers_are_given_up(self, internet: Internet) -> None:
        told = failure(internet, "http://images.example/slow", timeout_s=0.05)
        assert (told.status, told.code) == (424, "image_fetch_timeout")

    def test_tls_verifies_the_name_although_an_address_is_connected_to(self) -> None:
        ca, chosen, trusting = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        ca.issue_cert("images.example").configure_cert(chosen)
        ca.configure_trust(trusting)
        with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
            server.socket = chosen.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            names = {"images.example": [[PUBLIC]], "other.example": [[PUBLIC]]}
            internet = Internet(server.server_port, names)
            assert fetch(internet, "https://images.example/fox.png", tls=trusting)
            assert failure(internet, "https://other.example/fox.png", tls=trusting).code == "image_fetch_failed"
            assert failure(internet, "https://images.example/fox.png").code == "image_fetch_failed"  # unknown CA
            server.shutdown()
            thread.join()


def test_urls_are_off_unless_asked_for(client: TestClient) -> None:
    response = client.post("/v1/embeddings", json={"input": [{"image": "http://images.example/fox.png"}]})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "image_url_forbidden"
    assert "image_url_hosts" in response.json()["error"]["message"]


def test_urls_reach_the_fetcher_when_on(filled: Reco, served: Any, internet: Internet) -> None:
    with served(filled, image_url_hosts=["*"]) as client:
        told = client.post("/v1/embeddings", json={"input": [{"image": "http://127.0.0.1/fox.png"}]})
        assert told.json()["error"]["code"] == "image_url_forbidden"
        edge = client.app.state.edge
        edge.fetch.resolve, edge.fetch.network = internet.resolve, internet
        inputs = [{"image": "http://images.example/fox.png"}, {"image": "http://inner.example/fox.png"}]
        answer = client.post("/v1/embeddings", json={"model": "clip", "input": inputs, "allow_failures": True}).json()
    expected = filled.embed_images([halves("red", "blue")], refine=False)
    assert np.allclose(answer["data"][0]["embedding"], expected[0], atol=1e-5)
    assert answer["data"][1]["error"]["code"] == "image_url_forbidden"


def test_a_request_brings_in_so_many_images_and_bytes(filled: Reco, served: Any, internet: Internet) -> None:
    inputs = [{"image": "http://images.example/fox.png"}] * 3
    size = len(fetch(internet, "http://images.example/fox.png"))
    for limits, count, code in (
        ({"max_images": 2}, 3, "too_many_items"),
        ({"max_body_bytes": 2 * size}, 3, "image_too_large"),
        ({"max_pending_bytes": size}, 2, "too_many_bytes"),  # all of them count as what the request takes
        ({"max_images": 2, "max_body_bytes": 2 * size}, 2, None),
    ):
        with served(filled, image_url_hosts=["*"], **limits) as client:
            edge = client.app.state.edge
            edge.fetch.resolve, edge.fetch.network = internet.resolve, internet
            answer = client.post("/v1/embeddings", json={"input": inputs[:count]})
        assert (answer.json().get("error") or {}).get("code") == code, answer.text
