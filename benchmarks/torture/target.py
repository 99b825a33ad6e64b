"""A ``reco serve`` to attack, what is seen of it meanwhile (``/livez``, its memory), and what an attack came to."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reco_plugin import Pair, Reco

from ..service import ADMIN_KEY, started
from .wire import as_json, request, send

MODEL = Path(__file__).resolve().parents[2] / "triton_models"
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
PAIRS, DIMENSION = 500, 128
ORDINARY = request("/refined/v1/embeddings", as_json({"input": "a red circle"}))
DEAD_AFTER = 3
"""Probes without an answer, after which Kubernetes starts a container anew, by default."""


@dataclass
class Found:
    """What was tried and seen.

    Attributes:
        tried: how often, by what was tried.
        answers: how often, by status or by what was found.
        faults: each in words; there must be none.
        figures: further ones, name -> value.
    """

    tried: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)


@dataclass
class Round:
    """What a class is given.

    Attributes:
        work: an empty folder.
        rng: its randomness.
        seconds: how long it goes on, besides what it prepares.
        count: how much it tries in place of that; None: as much as there is time for.
    """

    work: Path
    rng: random.Random
    seconds: float
    count: int | None
    _ends: float | None = None

    def more(self, found: Found) -> bool:
        """Whether to go on; the time begins with the first call."""
        if self._ends is None:
            self._ends = time.monotonic() + self.seconds
        return time.monotonic() < self._ends if self.count is None else found.tried.total() < self.count


@dataclass(frozen=True)
class Target:
    """A service that runs.

    Attributes:
        address: host and port.
        pid: of its process.
        memory: its folder.
    """

    address: tuple[str, int]
    pid: int
    memory: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.address[0]}:{self.address[1]}"


@contextmanager
def target(work: Path, memory: str | None = None, flags: Sequence[str] = ()) -> Iterator[Target]:
    """A service with the shipped model, an admin key, and a memory of 500 pairs if none is named."""
    folder = work / "memory"
    if memory is None:
        fill(folder)
    with started(MODEL, memory or folder, work / "log", ["--log-level", "error", *flags]) as service:
        host, port = service.url.removeprefix("http://").split(":")
        yield Target((host, int(port)), service.pid, folder)


def fill(folder: Path) -> None:
    """Make a memory of pairs whose vectors mean nothing."""
    drawn = np.random.default_rng(0).normal(size=(2, PAIRS, DIMENSION))
    images, texts = (drawn / np.linalg.norm(drawn, axis=2, keepdims=True)).astype(np.float32)
    with Reco.open(MODEL, memory=folder) as reco:
        reco.memory.add(
            Pair(f"pair-{n}", images[n], texts[n], {"caption": f"the number {n}", "shop": ("de", "fr")[n % 2], "n": n})
            for n in range(PAIRS)
        )


@contextmanager
def watched(service: Target, found: Found) -> Iterator[None]:
    """See meanwhile how long ``/livez`` takes at most, asked by another process."""
    asked = f"curl -s -o /dev/null -w '%{{http_code}} %{{time_total}}\\n' -m 60 {service.url}/livez"
    script = f"while sleep 0.05; do {asked}; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.terminate()
            told = [line.split() for line in process.communicate()[0].splitlines()]
    failed = [code == "200" for code, _ in told].count(False)
    found.figures["slowest /livez"] = f"{max((float(seconds) for _, seconds in told), default=0):.2f} s"
    if failed >= DEAD_AFTER:
        found.faults.append(f"/livez did not answer 200, {failed} times")


async def recovery(address: tuple[str, int]) -> float:
    """Seconds until an ordinary request is answered again."""
    began = time.perf_counter()
    while (await send(address, ORDINARY)).status != 200:
        await asyncio.sleep(0.05)
    return time.perf_counter() - began
