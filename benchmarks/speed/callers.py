"""Callers that keep their connections: each sends the next request as soon as it has its answer."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import parse_headers
from pathlib import Path
from typing import Any

Body = dict[str, Any]


def post(path: str, body: Body) -> bytes:
    """A request in the bytes of HTTP."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n"
    return f"{head}content-type: application/json\r\n\r\n".encode() + content


def rate(port: int, requests: Sequence[bytes], callers: int, seconds: float) -> tuple[float, int]:
    """Answers a second, and their number; raises RuntimeError at an answer that is not 200."""
    begun = time.perf_counter()

    def call(number: int) -> int:
        done = 0
        with Connection(port) as ask:
            while time.perf_counter() < begun + seconds:
                ask(requests[(number + done) % len(requests)])
                done += 1
        return done

    with ThreadPoolExecutor(callers) as pool:
        answered = sum(pool.map(call, range(callers)))
    return answered / (time.perf_counter() - begun), answered


class Connection:
    """A connection that stays open; a call sends a request and returns the answer's body."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=300)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = self._socket.makefile("rb")

    def __enter__(self) -> Callable[[bytes], bytes]:
        return self._exchange

    def _exchange(self, request: bytes) -> bytes:
        self._socket.sendall(request)
        status, headers = self._answer.readline(), parse_headers(self._answer)
        reply = self._answer.read(int(headers["content-length"] or 0))
        if not status.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the service answers {status!r} {reply[:300]!r}")
        return reply

    def __exit__(self, *_: object) -> None:
        self._answer.close()
        self._socket.close()


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
