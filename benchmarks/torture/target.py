"""A ``reco serve`` to attack, and what is seen of it meanwhile: ``/livez``, a bystander's request, its memory."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reco_plugin import Pair, Reco

from ..service import ADMIN_KEY, started
from .found import MODEL, Found
from .wire import as_json, request, send

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
PAIRS, DIMENSION = 500, 128
ORDINARY = request("/refined/v1/embeddings", as_json({"input": "a red circle"}))
DEAD_AFTER = 3
"""Probes without an answer, after which Kubernetes starts a container anew, by default."""


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

    def peak_mib(self) -> float | None:
        """The most memory that its process ever had; None where the system does not tell."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.is_file():
            return None
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024


@contextmanager
def target(work: Path, memory: str | None = None) -> Iterator[Target]:
    """A service with the shipped model, an admin key, and a memory of 500 pairs if none is named."""
    folder = work / "memory"
    if memory is None:
        fill(folder)
    with started(MODEL, memory or folder, work / "log", ["--log-level", "error"]) as service:
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
    """See meanwhile how long ``/livez`` takes at most, asked by another process, and the most memory."""
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
    if (peak := service.peak_mib()) is not None:
        found.figures["peak memory"] = f"{peak:,.0f} MiB"
    if failed >= DEAD_AFTER:
        found.faults.append(f"/livez did not answer 200, {failed} times")


async def recovery(address: tuple[str, int]) -> float:
    """Seconds until an ordinary request is answered again."""
    began = time.perf_counter()
    while (await send(address, ORDINARY)).status != 200:
        await asyncio.sleep(0.05)
    return time.perf_counter() - began
