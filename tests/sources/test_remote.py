"""Images behind URLs: what a real server on this machine answers."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from made_sources import png

from reco_plugin.errors import DataError
from reco_plugin.sources.images import RemoteImage, is_public

ASKED: list[str] = []


class Answers(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        ASKED.append(self.path)
        match urlsplit(self.path).path:  # whole URLs come to a proxy
            case "/a.png" | "/%C3%BC%20b.png":
                self._send(png())
            case "/moved":
                self._redirect("/a.png")
            case "/file":
                self._redirect("file:///etc/passwd")
            case "/inside":
                self._redirect(f"http://127.0.0.1:{self.server.server_port}/a.png")  # type: ignore[attr-defined]
            case "/ftp":
                self._redirect("ftp://127.0.0.1:1/a.png")
            case "/large":
                self._send(b"x" * 100_000)
            case "/short":
                self._send(b"x" * 10, length=99)
            case "/slow":
                self._send(b"", length=99)
                with suppress(ConnectionError):  # the reader has gone
                    for _ in range(99):
                        time.sleep(0.02)
                        self.wfile.write(b"x")
            case _:
                self.send_error(404)

    def _send(self, body: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/moved", "/a.png?sig=1%2F2", "/ü b.png"])
def test_an_image_is_fetched(server: str, path: str) -> None:
    assert RemoteImage(server + path, allow_private=True).read() == png()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/gone.png", "answered HTTP 404"),
        ("/file", "answered HTTP 302|cannot be fetched"),
        ("/ftp", "cannot be fetched: unknown url type"),
        ("/large", "has more than 50,000 bytes"),
        ("/short", "is not whole"),
        ("/slow", "cannot be fetched: timed out"),
    ],
)
def test_what_cannot_be_fetched_is_named_without_secrets(server: str, path: str, reason: str) -> None:
    timeout = 0.2 if path == "/slow" else 20
    image = RemoteImage(f"{server}{path}?token=hidden", timeout, max_bytes=50_000, allow_private=True)
    with pytest.raises(DataError, match=reason) as error:
        image.read()
    assert f"{server}{path}" in str(error.value)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.png", "http://[::1/a"])
def test_urls_that_lead_nowhere(url: str) -> None:
    with pytest.raises(DataError, match="cannot be fetched"):
        RemoteImage(url).read()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_private_address_is_asked_for_nothing(server: str, host: str, scheme: str) -> None:
    ASKED.clear()
    port = server.rpartition(":")[2]
    with pytest.raises(DataError, match="is a private address"):
        RemoteImage(f"{scheme}://{host}:{port}/a.png").read()
    assert not ASKED


@pytest.mark.parametrize("address", ["10.0.0.1", "100.64.0.1", "::1", "fd00::1", "::ffff:100.64.0.1"])
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_a_proxy_is_no_peer_to_check_and_a_redirect_past_it_is(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert RemoteImage("http://shop.example/moved").read() == png()
    with pytest.raises(DataError, match="is a private address"):
        RemoteImage("http://shop.example/inside").read()


def test_it_can_be_pickled() -> None:
    image = RemoteImage("http://x/y")
    assert pickle.loads(pickle.dumps(image)) == image
