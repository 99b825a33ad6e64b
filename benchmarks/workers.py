"""``python -m benchmarks.workers``: what ``reco serve --workers N`` brings, beside one worker.

Both serve at the same time, each with its own folder of the same pairs, and are asked in turn, so that other work on
the machine slows both; the best round of each counts. Callers take part of the cores, too. The processor time of an
answer is of all processes of a service.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from reco_plugin import Reco
from reco_plugin.demo.tasks import drawing, pairs
from reco_plugin.quickstart.dataset import ALL_SPLITS, load

from .load.inputs import png
from .load.service import Service, started
from .page import machine, table, write_blocks

CALLERS = 64
_STORED = 1000
_INPUTS = 128
_END = b"\r\n\r\n"


class Caller(asyncio.Protocol):
    """Sends a request, and the next when its answer is there; reads no more of an answer than its length."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests, self._next = requests, 0
        self._head, self._missing = b"", 0
        self.answered, self.ends = 0, False
        self.failed = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            self._ask()

    def data_received(self, data: bytes) -> None:
        """Count an answer when it is complete."""
        if self._missing:
            self._missing -= len(data)
        else:
            self._head += data
            head, end, rest = self._head.partition(_END)
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._fail(head.decode("latin-1"))
                return
            (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self._missing = int(length.partition(b":")[2]) - len(rest)
            self._head = b""
        if not self._missing:
            self.answered += 1
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell it, unless the round is over."""
        if not self.ends:
            self._fail(f"a connection was closed: {exc!r}")

    def end(self) -> None:
        """Leave."""
        self.ends = True
        if self._transport is not None:
            self._transport.abort()

    def _ask(self) -> None:
        if self._transport is not None and not self.ends:
            self._transport.write(self._requests[self._next % len(self._requests)])
            self._next += 1

    def _fail(self, why: str) -> None:
        if not self.failed.done():
            self.failed.set_exception(RuntimeError(why))


def seconds_of(process: int) -> float:
    """Processor time that a process and its children have taken."""
    place = Path(f"/proc/{process}")
    try:
        ticks = sum(map(int, (place / "stat").read_text("utf-8").rpartition(")")[2].split()[11:13]))
        children = (place / f"task/{process}/children").read_text("utf-8").split()
    except OSError:  # it ended meanwhile
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK") + sum(seconds_of(int(child)) for child in children)


async def rate(service: Service, requests: Sequence[bytes], callers: int, seconds: float) -> tuple[float, float]:
    """Answers a second, and seconds of processor time of an answer.

    Raises:
        RuntimeError: one was no 200.
    """
    loop, port = asyncio.get_running_loop(), int(service.url.rpartition(":")[2])
    made = []
    for number in range(callers):
        turned = [*requests[number:], *requests[:number]]  # callers do not ask for the same at the same time
        made.append((await loop.create_connection(lambda turned=turned: Caller(turned), "127.0.0.1", port))[1])  # type: ignore[misc]
    await asyncio.sleep(seconds / 5)
    before, began, taken = sum(one.answered for one in made), time.perf_counter(), seconds_of(service.pid)
    done, _ = await asyncio.wait([one.failed for one in made], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    count, took = sum(one.answered for one in made) - before, time.perf_counter() - began
    taken = seconds_of(service.pid) - taken
    for one in made:
        one.end()
    for failed in done:
        failed.result()
    return count / took, taken / max(count, 1)


def cases(texts: Sequence[str], images: Sequence[bytes]) -> dict[str, list[bytes]]:
    """Requests of each kind."""
    drawn = ["data:image/png;base64," + base64.b64encode(image).decode() for image in images]
    many = [list(texts[start : start + 32]) for start in range(0, len(texts) - 31, 8)]
    return {
        "text, plain": [_request("clip", [text]) for text in texts],
        "text, refined": [_request("clip-reco-query", [text]) for text in texts],
        "image, plain": [_request("clip", [image]) for image in drawn],
        "image, refined for texts": [_request("clip-reco-query@text", [image]) for image in drawn],
        "32 texts, plain": [_request("clip", some) for some in many],
        "32 texts, refined": [_request("clip-reco-query", some) for some in many],
    }


def _request(model: str, inputs: list[str]) -> bytes:
    body = json.dumps({"model": model, "input": inputs}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def main() -> int:
    """Run, print, write the block of the page."""
    words = argparse.ArgumentParser(description=main.__doc__)
    words.add_argument("--workers", type=int, default=2)
    words.add_argument("--callers", type=int, default=CALLERS)
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--seconds", type=float, default=3)
    words.add_argument("--model", type=Path, default=Path("triton_models"))
    words.add_argument("--page", type=Path, help="such as docs/measurements/workers.md")
    given = words.parse_args()
    data = load()
    stored = pairs(data, ALL_SPLITS)[:_STORED]
    texts = [entity.label for entity in data.labels(["unseen"])[:_INPUTS]]
    images = [png(drawing(data, int(row))) for row in data.query_rows("unseen")[:_INPUTS]]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        services = []
        for workers in (1, given.workers):
            memory = folder / f"memory-{workers}"
            with Reco.open(given.model, memory) as reco:
                reco.memory.add(stored)
            flags = ["--log-level", "warning", "--workers", str(workers)]
            services.append(stack.enter_context(started(given.model, memory, folder / f"log-{workers}", flags)))
        rows = []
        for name, requests in cases(texts, images).items():
            found: list[list[tuple[float, float]]] = [[], []]
            for turn in range(given.rounds):
                for which in (0, 1) if turn % 2 else (1, 0):
                    seen = asyncio.run(rate(services[which], requests, given.callers, given.seconds))
                    found[which].append(seen)
            best = [max(rate for rate, _ in each) for each in found]
            least = [1000 * min(taken for _, taken in each) for each in found]
            rows.append([name, *(f"{each:,.0f}" for each in best), f"{best[1] / best[0]:.2f}"])
            rows[-1] += [f"{each:.2f}" for each in least]
            print(rows[-1], file=sys.stderr, flush=True)
    command = " ".join(["python -m benchmarks.workers", *sys.argv[1:]])
    head = ["requests", "1 worker", f"{given.workers} workers", "ratio", "CPU ms an answer: 1", str(given.workers)]
    text = f"`{command}`: {given.callers} callers, {len(stored):,} pairs in a folder; answers a second.\n\n"
    text += f"{table(head, rows)}\n\n{machine('onnxruntime', 'uvicorn')}"
    print(text)
    if given.page:
        write_blocks(given.page, {"workers": text})
    return 0


if __name__ == "__main__":
    sys.exit(main())
