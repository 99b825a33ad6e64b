"""A small HTTP server that answers as an OpenAI-like embedding API does, and can be told to do anything else."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIMENSION = 32


@dataclass
class Reply:
    """One answer."""

    status: int = 200
    body: Any = None  # JSON, or text as it is
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


@dataclass
class Api:
    """What the server does, and was asked."""

    url: str = ""
    model: int = 0  # another number is another model
    dimension: int = DIMENSION
    images: bool = True
    next: list[Reply | Callable[[Any], Reply]] = field(default_factory=list)  # before it answers as usual
    asked: list[dict[str, Any]] = field(default_factory=list)  # bodies
    headers: list[Mapping[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def vector(self, item: Any) -> list[float]:
        """A unit vector of a text, or of the pixels of an image."""
        if isinstance(item, dict):
            item = item.get("text") or pixels_of(item["image"])
        elif self.images and item.startswith("data:"):
            item = pixels_of(item.partition(",")[2])
        seed = int.from_bytes(hashlib.sha256(f"{self.model} {item}".encode()).digest()[:4], "big")
        vector = np.random.RandomState(seed).standard_normal(self.dimension)
        return (vector / np.linalg.norm(vector)).tolist()

    def answer(self, body: Any) -> Reply:
        """The usual answer."""
        items = body.get("input") or [{}]
        if items == [{}]:
            return Reply(422, {"error": {"message": "input is missing"}})
        if not self.images and any(isinstance(item, dict) for item in items):
            return Reply(400, {"error": {"message": "input must be strings"}})
        rows = [{"index": row, "embedding": self.vector(item)} for row, item in enumerate(items)]
        return Reply(body={"data": rows, "usage": {"total_tokens": 7}})


def pixels_of(base64: str) -> str:
    """What is the same in all files of one picture."""
    import io
    from base64 import b64decode

    from PIL import Image

    return hashlib.sha256(Image.open(io.BytesIO(b64decode(base64))).convert("RGB").tobytes()).hexdigest()


@contextmanager
def serve_api() -> Iterator[Api]:
    """A server on a free port."""
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            api.asked.append(body)
            api.headers.append(dict(self.headers))
            api.paths.append(self.path)
            reply: Any = api.next.pop(0) if api.next else api.answer
            reply = reply if isinstance(reply, Reply) else reply(body)
            time.sleep(reply.delay_s)
            sent = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
            self.send_response(reply.status)
            kind = "text/html" if isinstance(reply.body, str) else "application/json"
            for name, value in {"content-type": kind, "content-length": str(len(sent)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the client did not wait
                self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
