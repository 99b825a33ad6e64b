"""The part of an OCI registry that `helm push` and `helm pull` ask."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def registry() -> Iterator[str]:
    """Keep what is pushed, in RAM; yields host and port."""
    kept: dict[str, tuple[str, bytes]] = {}  # last part of the path -> type and content

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            if name == "":
                return self._answer(200)
            if name not in kept:
                return self._answer(404)
            kind, body = kept[name]
            return self._answer(200, body, content_type=kind, docker_content_digest=_digest(body))

        do_HEAD = do_GET

        def do_POST(self) -> None:
            self._answer(202, location=f"{self.path}one")

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kind = self.headers.get("content-type", "application/octet-stream")
            kept[_digest(body)] = kept[self.path.rpartition("/")[2]] = (kind, body)
            self._answer(201, location=self.path, docker_content_digest=_digest(body))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
