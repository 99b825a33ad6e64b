"""A ``reco serve`` to attack, requests as raw bytes, and what a round records."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reco_plugin import Pair, Reco

from ..processes import ADMIN_KEY, started

MODEL = Path(__file__).resolve().parents[2] / "triton_models"
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
PAIRS, DIMENSION, TIMEOUT_S = 500, 128, 60.0
UNIT_VECTOR = [DIMENSION**-0.5] * DIMENSION
MAX_FAILED_PROBES = 3
"""Failed probes after which Kubernetes restarts a container, by default."""


@dataclass
class Outcome:
    """What a round tried and saw.

    Attributes:
        tried: number of tries by kind.
        answers: number of answers by status or result.
        faults: one message each; there must be none.
        figures: further figures, name -> value.
    """

    tried: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)


@dataclass
class Round:
    """The input of a round.

    Attributes:
        work: an empty folder.
        rng: source of all randomness.
        seconds: duration without preparation.
        count: number of tries, instead of the duration.
    """

    work: Path
    rng: random.Random
    seconds: float
    count: int | None
    _ends: float | None = None

    def goes_on(self, outcome: Outcome) -> bool:
        """Whether to try again; time begins with the first call."""
        if self._ends is None:
            self._ends = time.monotonic() + self.seconds
        return time.monotonic() < self._ends if self.count is None else outcome.tried.total() < self.count


@dataclass(frozen=True)
class Target:
    """A running service: host and port, process id, and the folder of its memory."""

    address: tuple[str, int]
    pid: int
    memory: Path


@contextmanager
def target(work: Path, memory: str | None = None) -> Iterator[Target]:
    """Run a service with the shipped model, an admin key, and a memory of 500 pairs if none is named."""
    folder = work / "memory"
    if memory is None:
        fill(folder)
    with started(MODEL, memory or folder, work / "log", ["--log-level", "error"]) as service:
        host, port = service.url.removeprefix("http://").split(":")
        yield Target((host, int(port)), service.pid, folder)


def fill(folder: Path) -> None:
    """Make a memory of pairs with random vectors."""
    drawn = np.random.default_rng(0).normal(size=(2, PAIRS, DIMENSION))
    images, texts = (drawn / np.linalg.norm(drawn, axis=2, keepdims=True)).astype(np.float32)
    with Reco.open(MODEL, memory=folder) as reco:
        reco.memory.add(
            Pair(f"pair-{n}", images[n], texts[n], {"caption": f"the number {n}", "shop": ("de", "fr")[n % 2], "n": n})
            for n in range(PAIRS)
        )


@contextmanager
def watched(service: Target, outcome: Outcome) -> Iterator[None]:
    """Probe ``/livez`` from another process, and record the slowest answer."""
    url = f"http://{service.address[0]}:{service.address[1]}/livez"
    probe = f"curl -s -o /dev/null -w '%{{http_code}} %{{time_total}}\\n' -m 60 {url}"
    script = f"while sleep 0.05; do {probe}; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.terminate()
            probes = [line.split() for line in process.communicate()[0].splitlines()]
    failed = [code == "200" for code, _ in probes].count(False)
    outcome.figures["slowest /livez"] = f"{max((float(seconds) for _, seconds in probes), default=0):.2f} s"
    if failed >= MAX_FAILED_PROBES:
        outcome.faults.append(f"/livez did not answer 200, {failed} times")


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes:
        status: 0 if the connection was closed without an answer, -1 after a timeout.
        seconds: from the connection to the last byte.
        head: in lower case.
    """

    status: int
    seconds: float
    head: bytes = b""
    body: bytes = b""


def request(path: str, body: bytes | None, method: str = "POST", headers: Mapping[str, str] | None = None) -> bytes:
    """Format a request that closes its connection."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close"]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def as_json(value: Any) -> bytes:
    """JSON as Python writes it, with NaN and lone surrogates."""
    return json.dumps(value).encode()


async def send(address: tuple[str, int], sent: bytes) -> Answer:
    """Send bytes over a new connection, and read until it is closed."""
    began, received = time.perf_counter(), b""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*address)
            try:
                with contextlib.suppress(ConnectionError):  # the service may answer before it has read all
                    writer.write(sent)
                    await writer.drain()
                with contextlib.suppress(ConnectionError):
                    while part := await reader.read(1 << 20):
                        received += part
            finally:
                writer.close()
    except TimeoutError:
        return Answer(-1, time.perf_counter() - began)
    except ConnectionError:
        pass
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
    return Answer(status, time.perf_counter() - began, head.lower(), body)


async def recovery(address: tuple[str, int]) -> float:
    """Seconds until an ordinary request is answered again."""
    began, ordinary = time.perf_counter(), request("/refined/v1/embeddings", as_json({"input": "a red circle"}))
    while (await send(address, ordinary)).status != 200:
        await asyncio.sleep(0.05)
    return time.perf_counter() - began
