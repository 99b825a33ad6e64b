"""Requests as bytes over a connection of their own each, also such as no HTTP client would send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: 0 when the connection was closed without an answer, -1 when nothing came in time.
        seconds: from the connection to the last byte.
        head: of the answer, in small letters.
        body: as it came.
    """

    status: int
    seconds: float
    head: bytes = b""
    body: bytes = b""


def request(path: str, body: bytes | None, method: str = "POST", headers: Mapping[str, str] | None = None) -> bytes:
    """A request of one connection."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close"]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def as_json(value: Any) -> bytes:
    """JSON as Python writes it: also NaN and halves of surrogate pairs."""
    return json.dumps(value).encode()


async def send(address: tuple[str, int], sent: bytes) -> Answer:
    """Send and read until the other side closes."""
    began, got = time.perf_counter(), b""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(*address)
            try:
                with contextlib.suppress(ConnectionError):  # refused before all was sent: the answer is there
                    writer.write(sent)
                    await writer.drain()
                with contextlib.suppress(ConnectionError):
                    while part := await reader.read(1 << 20):
                        got += part
            finally:
                writer.close()
    except TimeoutError:
        return Answer(-1, time.perf_counter() - began)
    except ConnectionError:
        pass  # no connection at all
    head, _, body = got.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
    return Answer(status, time.perf_counter() - began, head.lower(), body)
