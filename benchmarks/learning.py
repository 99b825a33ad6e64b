"""``python -m benchmarks.learning``: what a service answers while its memory learns, beside what it answers otherwise.

The process that learns is stopped (SIGSTOP) and goes on (SIGCONT) in turn, so both kinds of rounds have the same memory
on the same machine; a round begins with the kind that the one before ended with. Callers take part of the cores, too.
Another connection asks ``/livez`` every 20 ms. Seconds of processor time are of the service, and of the process that
learns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np

from reco_plugin import Reco

from .page import machine, page_file, table, tell
from .processes import seconds_of
from .service import ADMIN_KEY, Service, started
from .synthetic import Synthetic
from .workers import cases, rate

CALLERS = 16
_ASKED = ("text, plain", "image, plain")
_EVERY_S = 0.02
_BEGINS_S = 60.0


class Probe:
    """Asks ``/livez`` again and again, in a thread; milliseconds of each answer."""

    def __init__(self, url: str) -> None:
        self._url, self._ends, self.ms = url, threading.Event(), list[float]()

    def __enter__(self) -> Probe:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url) as client:
            while not self._ends.wait(_EVERY_S):
                begun = time.perf_counter()
                client.get("/livez").raise_for_status()
                self.ms.append(1000 * (time.perf_counter() - begun))


def learner_of(service: Service) -> int | None:
    """The process that learns for a service; None where none does."""
    for task in Path(f"/proc/{service.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(OSError):
                if b"calibration.apart" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
    return None


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """Let a process stand still in the block."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def begin(service: Service) -> int:
    """Let the memory learn; the process that does.

    Raises:
        SystemExit: none began within a minute.
    """
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    httpx.post(f"{service.url}/v1/memory/settle", headers=headers, timeout=60).raise_for_status()
    until = time.monotonic() + _BEGINS_S
    while time.monotonic() < until:
        if (found := learner_of(service)) is not None:
            return found
        time.sleep(0.05)
    raise SystemExit("the memory does not learn: was it learned from before?")


class Turns:
    """Rounds with and without learning, until it has ended or there were enough."""

    def __init__(self, service: Service, learner: int, seconds: float, callers: int) -> None:
        self._service, self._learner, self._seconds, self._callers = service, learner, seconds, callers
        self.answers: dict[bool, list[float]] = {False: [], True: []}
        self.live_ms: dict[bool, list[float]] = {False: [], True: []}
        self.cpu_s = 0.0  # of the process that learns

    def run(self, requests: Sequence[bytes], turns: int) -> None:
        """So many of each kind, in turn."""
        for turn in range(turns):
            for learns in (True, False) if turn % 2 else (False, True):
                if learner_of(self._service) is None:
                    return
                if learns:
                    self._round(requests, learns=True)
                else:
                    with stopped(self._learner):
                        self._round(requests, learns=False)

    def _round(self, requests: Sequence[bytes], *, learns: bool) -> None:
        before = seconds_of(self._learner)
        with Probe(self._service.url) as probe:
            answers, _ = asyncio.run(rate(self._service, requests, self._callers, self._seconds))
        if learner_of(self._service) is None and learns:
            return  # it ended amid the round
        self.answers[learns].append(answers)
        self.live_ms[learns] += probe.ms
        if learns:
            self.cpu_s += seconds_of(self._learner) - before

    def row(self, name: str) -> list[str]:
        """A row of the table."""
        idle, busy = (float(np.median(self.answers[learns])) for learns in (False, True))
        live = [f"{np.percentile(self.live_ms[learns], at):.0f}" for at in (50, 99) for learns in (False, True)]
        share = self.cpu_s / (len(self.answers[True]) * self._seconds)
        return [name, f"{idle:,.0f}", f"{busy:,.0f}", f"{busy / idle:.2f}", *live, f"{share:.2f}"]


def main() -> int:
    """Run, print, write the block of the page."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--pairs", type=int, default=100_000)
    words.add_argument("--callers", type=int, default=CALLERS)
    words.add_argument("--turns", type=int, default=8, help="rounds of each kind for each kind of request, at most")
    words.add_argument("--seconds", type=float, default=3)
    words.add_argument("--model", type=Path, default=Path("triton_models"))
    words.add_argument("--page", type=page_file, help="such as docs/measurements/learning.md")
    given = words.parse_args()
    requests, rows = cases(), list[list[str]]()
    with tempfile.TemporaryDirectory() as place:
        memory = Path(place) / "memory"
        with Reco.open(given.model, memory) as reco:
            catalogue = Synthetic(given.pairs, reco.manifest.dimension)
            reco.memory.add_records(catalogue.records(0, given.pairs), settle=False)
        with started(given.model, memory, Path(place) / "log", ["--log-level", "warning"]) as service:
            learner = begin(service)
            for name in _ASKED:
                turns = Turns(service, learner, given.seconds, given.callers)
                turns.run(requests[name], given.turns)
                if turns.answers[True] and turns.answers[False]:
                    rows.append(turns.row(name))
                    print(rows[-1], file=sys.stderr, flush=True)
    command = " ".join(["python -m benchmarks.learning", *sys.argv[1:]])
    head = ["requests", "idle", "learning", "ratio", "`/livez` ms, p50: idle", "learning", "p99: idle", "learning"]
    text = f"`{command}`: {given.callers} callers, {given.pairs:,} pairs of D = {catalogue.dimension} in a folder; "
    text += "answers a second, median of the rounds; cores that learning took.\n\n"
    text += f"{table([*head, 'cores'], rows)}\n\n{machine('onnxruntime', 'uvicorn')}"
    tell(given.page, {"learning": text})
    return 0


if __name__ == "__main__":
    sys.exit(main())
