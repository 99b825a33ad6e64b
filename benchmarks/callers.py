"""Callers of a service, each with a connection of its own: it asks the next as soon as it has its answer."""

from __future__ import annotations

import asyncio
import io
import time
from dataclasses import dataclass, field

from PIL import Image

END = b"\r\n\r\n"


def post(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A request of HTTP, of JSON where no headers say otherwise."""
    given = {"content-type": "application/json"} if headers is None else headers
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in given.items()), "", ""]).encode() + body


def png(image: Image.Image) -> bytes:
    """An image as a file, to be sent."""
    packed = io.BytesIO()
    image.save(packed, "PNG")
    return packed.getvalue()


@dataclass
class Asked:
    """What all callers share: requests by their place, each taken in turn, and what was answered."""

    requests: list[bytes]
    until: float
    keeps: bool = True
    """Whether answers are kept, and not only counted."""
    answers: list[tuple[int, float, bytes]] = field(default_factory=list)
    """Place of the request, seconds, and the answer with its head."""
    failures: list[str] = field(default_factory=list)
    _next: int = 0

    def take(self) -> int:
        """The place of the next request."""
        self._next += 1
        return (self._next - 1) % len(self.requests)


class Caller(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, asked: Asked) -> None:
        self._asked, self._place = asked, 0
        self._transport: asyncio.Transport | None = None
        self._got, self._need, self._began = bytearray(), 0, 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Keep an answer when it is complete."""
        self._got += data
        if not self._need:
            head, end, _ = bytes(self._got).partition(END)
            if not end:
                return
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if not head.startswith(b"HTTP/1.1 200") or not lengths:
                self._end(bytes(self._got[:300]).decode("latin-1"))
                return
            self._need = len(head) + len(END) + int(lengths[0].partition(b":")[2])
        if len(self._got) >= self._need:
            answer = bytes(self._got) if self._asked.keeps else b""
            self._asked.answers.append((self._place, time.perf_counter() - self._began, answer))
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell it where an answer was still expected."""
        self._end(f"a connection was closed: {exc!r}")

    def _ask(self) -> None:
        if self._began and time.perf_counter() >= self._asked.until:  # each asks once, however late it is connected
            self._end("")
            return
        self._place = self._asked.take()
        self._got, self._need, self._began = bytearray(), 0, time.perf_counter()
        assert self._transport is not None
        self._transport.write(self._asked.requests[self._place])

    def _end(self, why: str) -> None:
        if not self.done.done():
            if why:
                self._asked.failures.append(why)
            self.done.set_result(None)
            assert self._transport is not None
            self._transport.abort()


async def call(asked: Asked, port: int, callers: int, patience_s: float) -> None:
    """Ask from so many connections to a port of this machine until the time is over, then wait for what was asked."""
    loop = asyncio.get_running_loop()
    opened = [loop.create_connection(lambda: Caller(asked), "127.0.0.1", port) for _ in range(callers)]
    made = [caller for _, caller in await asyncio.gather(*opened)]
    _, late = await asyncio.wait([one.done for one in made], timeout=patience_s)
    asked.failures += ["no answer in time"] * len(late)
