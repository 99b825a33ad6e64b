"""Callers, in a process of their own: ``python -m benchmarks.peers.callers`` reads a job and writes what became of it.

Each asks the next as soon as it has its answer, until the time is over; then all wait for what they asked. The answers
are compared with the right ones afterwards, so that it takes no time from the service.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from reco_plugin.types import Modality, Vectors

from .checkpoint import Made
from .dialects import Dialect, request, vectors

_END = b"\r\n\r\n"
_PATIENCE_S = 120.0
"""The longest that an answer may take."""


@dataclass(frozen=True)
class Job:
    """What is asked."""

    folder: str  # of the inputs and the right answers
    port: int
    dialect: Dialect
    modality: Modality
    items: int  # of a request
    callers: int
    seconds: float


@dataclass
class Seen:
    """What became of it."""

    requests: int  # answered
    seconds: float  # from the first request to the last answer
    p50: float  # seconds
    p99: float
    cosine: float  # least, of all answers to the right ones
    apart: float  # least of the same after what all right answers have in common is taken off
    mistaken: int  # answers that are nearer to another item's right answer
    callers_cpu: float  # seconds of this process meanwhile
    failures: list[str] = field(default_factory=list)


class Caller(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, asked: Asked, number: int) -> None:
        self._asked, self._place = asked, number
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
            head, end, _ = bytes(self._got).partition(_END)
            if not end:
                return
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if not head.startswith(b"HTTP/1.1 200") or not lengths:
                self._end(bytes(self._got[:300]).decode("latin-1"))
                return
            self._need = len(head) + len(_END) + int(lengths[0].partition(b":")[2])
        if len(self._got) >= self._need:
            self._asked.answers.append((self._place, time.perf_counter() - self._began, bytes(self._got)))
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell it where an answer was still expected."""
        self._end(f"a connection was closed: {exc!r}")

    def _ask(self) -> None:
        if time.perf_counter() >= self._asked.until:
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


@dataclass
class Asked:
    """What all callers share: requests by their place, each taken in turn, and what was answered."""

    requests: list[bytes]
    until: float
    answers: list[tuple[int, float, bytes]] = field(default_factory=list)
    """Place of the request, seconds, and the answer with its head."""
    failures: list[str] = field(default_factory=list)
    _next: int = 0

    def take(self) -> int:
        """The place of the next request."""
        self._next += 1
        return (self._next - 1) % len(self.requests)


def rows_of(count: int, items: int) -> list[np.ndarray]:
    """Which inputs each request holds: windows that begin everywhere, so that no two requests are alike.

    >>> [rows.tolist() for rows in rows_of(3, 2)]
    [[0, 1], [1, 2], [2, 0]]
    """
    return [(np.arange(items) + start) % count for start in range(count)]


async def ask(job: Job) -> Seen:
    """Ask for so long, then compare."""
    made = Made(Path(job.folder))
    inputs, right = made.inputs(job.modality), made.answers(job.modality)
    rows = rows_of(len(inputs), job.items)
    requests = [request(job.dialect, [inputs[row] for row in some], job.modality) for some in rows]
    loop, begun, worked = asyncio.get_running_loop(), time.perf_counter(), time.process_time()
    asked = Asked(requests, begun + job.seconds)
    made_up = [loop.create_connection(lambda n=n: Caller(asked, n), "127.0.0.1", job.port) for n in range(job.callers)]  # type: ignore[misc]
    callers = [caller for _, caller in await asyncio.gather(*made_up)]
    _, late = await asyncio.wait([one.done for one in callers], timeout=job.seconds + _PATIENCE_S)
    took, worked = time.perf_counter() - begun, time.process_time() - worked
    failures = [*asked.failures, *["no answer in time"] * len(late)]
    return judged(job, asked, [right[some] for some in rows], right, (took, worked), failures)


def judged(
    job: Job, asked: Asked, expected: list[Vectors], right: Vectors, times: tuple[float, float], failures: list[str]
) -> Seen:
    """Compare every answer with the right one.

    Args:
        job: what was asked.
        asked: what was answered.
        expected: (B, D) of each request.
        right: (N, D) of all inputs.
        times: seconds in all, and of this process's processor time.
        failures: what was not answered.
    """
    took, worked = times
    if not asked.answers:
        return Seen(0, took, np.nan, np.nan, np.nan, np.nan, 0, worked, failures)
    middle, cosine, apart, mistaken = right.mean(axis=0), 1.0, 1.0, 0
    others = _unit(right - middle)
    for place, _, raw in asked.answers:
        head, _, body = raw.partition(_END)
        found, wanted = _unit(vectors(job.dialect, head, body)), expected[place]
        if found.shape != wanted.shape:
            failures.append(f"{found.shape} instead of {wanted.shape}")
            continue
        cosine = min(cosine, float(np.einsum("bd,bd->b", found, wanted).min()))
        near = _unit(found - middle)
        own = np.einsum("bd,bd->b", near, _unit(wanted - middle))
        apart = min(apart, float(own.min()))
        mistaken += int((own < (near @ others.T).max(axis=1) - 1e-5).sum())
    p50, p99 = np.percentile([seconds for _, seconds, _ in asked.answers], [50, 99])
    return Seen(len(asked.answers), took, float(p50), float(p99), cosine, apart, mistaken, worked, failures)


def _unit(rows: Vectors) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(ask(Job(**json.load(sys.stdin))))), sys.stdout)
