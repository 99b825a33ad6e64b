"""A ``reco serve`` to attack, and what is seen of it meanwhile: ``/livez``, a bystander's request, its memory."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
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
"""Probes in a row without an answer, after which Kubernetes starts a container anew, by default."""


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
def target(work: Path, flags: Sequence[str] = (), memory: str | None = None) -> Iterator[Target]:
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
    """See meanwhile, from another process, how long ``/livez`` and an ordinary request take at most; and the memory."""
    command = [sys.executable, "-m", __name__, *map(str, service.address)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()  # it has begun
            yield
        finally:
            live, asked, failed, in_a_row, ordinary = process.communicate("\n")[0].split()
    peak = service.peak_mib()
    found.figures |= {"slowest /livez": f"{float(live):.2f} s", "slowest bystander": f"{float(ordinary):.1f} s"}
    if peak is not None:
        found.figures["peak memory"] = f"{peak:,.0f} MiB"
    if int(failed):
        found.figures["/livez not answered"] = f"{failed} of {asked} times"
    if int(in_a_row) >= DEAD_AFTER:
        found.faults.append(f"/livez did not answer 200, {in_a_row} times in a row")


async def _watch(address: tuple[str, int]) -> tuple[float | int, ...]:
    """The slowest probe, how many there were, failed, and failed in a row; the slowest ordinary request."""
    ended = asyncio.Event()

    async def slowest(sent: bytes, pause_s: float) -> tuple[float, int, int, int]:
        most, asked, failed, in_a_row, longest = 0.0, 0, 0, 0, 0
        while not ended.is_set():
            answer = await send(address, sent)
            most, asked, failed = max(most, answer.seconds), asked + 1, failed + (answer.status != 200)
            in_a_row = 0 if answer.status == 200 else in_a_row + 1
            longest = max(longest, in_a_row)
            await asyncio.sleep(pause_s)
        return most, asked, failed, longest

    async def told() -> None:
        await asyncio.to_thread(sys.stdin.readline)
        ended.set()

    live, (ordinary, *_), _ = await asyncio.gather(
        slowest(request("/livez", None, "GET"), 0.05), slowest(ORDINARY, 0.25), told()
    )
    return *live, ordinary


async def recovery(address: tuple[str, int]) -> float:
    """Seconds until an ordinary request is answered again."""
    began = time.perf_counter()
    while (await send(address, ORDINARY)).status != 200:
        await asyncio.sleep(0.05)
    return time.perf_counter() - began


if __name__ == "__main__":
    print("begun", flush=True)
    print(*asyncio.run(_watch((sys.argv[1], int(sys.argv[2])))))
