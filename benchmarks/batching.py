"""Batches across callers: requests of 64 HTTP clients, and calls of 16 threads, against one loop with batches of 32.

::

    python -m benchmarks.batching                                 the shipped model, 10,000 pairs
    python -m benchmarks.batching --kinds "1 text" --rounds 31    one row only, longer

One service batches across callers, one does not, and so do two ``Reco`` in this process. All take turns, half a second
each; a ratio is taken within a round, and the median of the rounds counts, since the machine is shared, also with the
clients.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from benchmarks.load.service import Service, started
from benchmarks.serving import fill
from reco_plugin import Reco
from reco_plugin.types import Modality

CLIENTS, THREADS, LOOP, INPUTS = 64, 16, 32, 256
WORDS = ("small", "large", "red", "old", "wet", "bird", "fox", "boat", "in", "on", "snow", "a", "the", "of")
PIXELS = (640, 480)
SWITCH = "RECO_BATCH_CALLERS"
WAYS = ("off", "on")


@dataclass(frozen=True)
class Kind:
    """What every caller asks for."""

    modality: Modality
    items: int = 1
    refine: bool = False

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.items} {self.modality}{'s' if self.items > 1 else ''}{', refined' if self.refine else ''}"


KINDS = (
    Kind("text"),
    Kind("text", 8),
    Kind("text", refine=True),
    Kind("image"),
    Kind("image", refine=True),
)


@dataclass(frozen=True)
class Rates:
    """What one way did: items a second, seconds of CPU that its process took for each."""

    per_s: float
    cpu_s: float


def inputs(modality: Modality) -> list[Any]:
    """Captions of 4 to 14 words, or JPEG photos of noise with large structures."""
    rng = np.random.default_rng(0)
    if modality == "text":
        return [" ".join(rng.choice(WORDS, rng.integers(4, 15))) for _ in range(INPUTS)]
    photos = []
    for _ in range(INPUTS // 8):
        packed = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        coarse.resize(PIXELS, Image.Resampling.BICUBIC).save(packed, "JPEG", quality=90)
        photos.append(packed.getvalue())
    return photos * 8


def requests(kind: Kind) -> list[bytes]:
    """Whole HTTP requests, so that the client costs little."""
    name: Callable[[Any], dict[str, str]] = (
        (lambda item: {"text": item})
        if kind.modality == "text"
        else (lambda item: {"image": base64.b64encode(item).decode()})
    )
    items, made = inputs(kind.modality), []
    for start in range(0, INPUTS, kind.items):
        asked = [name(item) for item in items[start : start + kind.items]]
        body = json.dumps({"input": asked, "encoding_format": "base64", "refine": kind.refine}).encode()
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        made.append(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    return made


class _Client(asyncio.Protocol):
    """One caller: the next request as soon as the answer is there."""

    def __init__(self, sent: Iterator[bytes], until: float, seconds: list[float], done: asyncio.Future[None]) -> None:
        self._sent, self._until, self._seconds, self._done = sent, until, seconds, done
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._done.set_exception(RuntimeError(self._answer.decode(errors="replace")[:500]))
            return
        self._seconds.append(time.perf_counter() - self._began)
        if time.perf_counter() < self._until:
            self._send()
        elif not self._done.done():
            self._done.set_result(None)

    def _send(self) -> None:
        self._answer, self._began = b"", time.perf_counter()
        self._transport.write(next(self._sent))


async def ask(url: str, sent: Sequence[bytes], clients: int, seconds: float) -> int:
    """How many answers came."""
    loop, answers = asyncio.get_running_loop(), list[float]()
    host, _, port = urlsplit(url).netloc.rpartition(":")
    more = cycle(sent)
    done = [loop.create_future() for _ in range(clients)]
    until = time.perf_counter() + seconds
    opened = [
        await loop.create_connection(partial(_Client, more, until, answers, one), host, int(port)) for one in done
    ]
    await asyncio.gather(*done)
    for transport, _ in opened:
        transport.close()
    return len(answers)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def by_clients(service: Service, kind: Kind, clients: int, seconds: float) -> Rates:
    """Rates of so many clients."""
    before, began = cpu_s(service.pid), time.perf_counter()
    answers = asyncio.run(ask(service.url, requests(kind), clients, seconds))
    items = answers * kind.items
    rate = items / (time.perf_counter() - began)
    return Rates(rate, (cpu_s(service.pid) - before) / items)


def lone(services: dict[str, Service], kind: Kind, seconds: float) -> dict[str, float]:
    """Median seconds of one client's request, the services taking turns request by request."""
    clients = {way: HTTPConnection(urlsplit(service.url).netloc) for way, service in services.items()}
    took: dict[str, list[float]] = {way: [] for way in clients}
    until, sent = time.perf_counter() + seconds * len(services), cycle(requests(kind))
    while time.perf_counter() < until:
        body = next(sent).partition(b"\r\n\r\n")[2]
        for way, client in clients.items():
            began = time.perf_counter()
            client.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
            if client.getresponse().read()[:9] == b'{"error":':
                raise RuntimeError("a lone request failed")
            took[way].append(time.perf_counter() - began)
    for client in clients.values():
        client.close()
    return {way: statistics.median(some) for way, some in took.items()}


def by_threads(reco: Reco, kind: Kind, threads: int, batch: int, seconds: float) -> Rates:
    """Rates of threads that embed in this process, so many items per call."""
    items, counts, until = inputs(kind.modality), [0] * threads, time.perf_counter() + seconds
    embed: Any = reco.embed

    def work(me: int) -> None:
        while time.perf_counter() < until:
            start = (me + counts[me]) % (INPUTS - batch)
            embed(items[start : start + batch], modality=kind.modality, refine=kind.refine)
            counts[me] += batch

    began, before = time.perf_counter(), time.process_time()
    running = [threading.Thread(target=work, args=(me,)) for me in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    return Rates(sum(counts) / (time.perf_counter() - began), (time.process_time() - before) / sum(counts))


@contextmanager
def opened(model: Path, pairs: int) -> Iterator[tuple[dict[str, Service], dict[str, Reco]]]:
    """Services and Recos with the same pairs, by :data:`WAYS`."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        services, recos = {}, {}
        for way in WAYS:
            with Reco.open(model, place / way) as reco:
                fill(reco, pairs)
            os.environ[SWITCH] = str(way == "on")
            services[way] = stack.enter_context(started(model, place / way, place / f"{way}.log", ("--no-page",)))
            recos[way] = stack.enter_context(Reco.open(model, place / f"{way}-here", batch_callers=way == "on"))
            fill(recos[way], pairs)
        os.environ.pop(SWITCH)
        yield services, recos


def row(kind: Kind, services: dict[str, Service], recos: dict[str, Reco], rounds: int, seconds: float) -> str:
    """Measure one kind of call; ratios are to the loop, and of a lone request to the one without batches."""
    turns = []
    for number in range(rounds):
        ways = WAYS if number % 2 else WAYS[::-1]
        loop = by_threads(recos["off"], kind, 1, LOOP, seconds)
        clients = {way: by_clients(services[way], kind, CLIENTS, seconds) for way in ways}
        threads = {way: by_threads(recos[way], kind, THREADS, kind.items, seconds) for way in ways}
        turns.append((loop, clients, threads, lone({way: services[way] for way in ways}, kind, seconds)))

    def median(of: Callable[[Any, Any, Any, Any], float]) -> float:
        return statistics.median(of(*turn) for turn in turns)

    cells = [kind.name, f"{median(lambda loop, *_: loop.per_s):,.0f}"]
    cells += [f"× {median(lambda loop, clients, *_, way=way: clients[way].per_s / loop.per_s):.2f}" for way in WAYS]
    cells += [f"× {median(lambda loop, _, threads, *__, way=way: threads[way].per_s / loop.per_s):.2f}" for way in WAYS]
    cells += [f"{1000 * median(lambda loop, *_: loop.cpu_s):.2f}"]
    cells += [f"{1000 * median(lambda _, clients, *__, way=way: clients[way].cpu_s):.2f}" for way in WAYS]
    cells += [f"{1000 * median(lambda *turn: turn[3]['off']):.2f}"]
    return " | ".join([*cells, f"× {median(lambda *turn: turn[3]['on'] / turn[3]['off']):.2f}"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("triton_models"))
    parser.add_argument("--pairs", type=int, default=10_000, help="in the memory")
    parser.add_argument("--rounds", type=int, default=11, help="their median counts")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--kinds", nargs="+", choices=[kind.name for kind in KINDS], help="some rows only")
    told = parser.parse_args(arguments)
    head = ["call", "loop of 32, items/s", "64 clients", "batched", "16 threads", "batched", "CPU ms an item, loop"]
    head += ["64 clients", "batched", "lone request, p50 ms", "batched"]
    print("| " + " | ".join(head) + " |\n|---" + "|--:" * (len(head) - 1) + "|")
    with opened(told.model.resolve(), told.pairs) as (services, recos):
        for kind in KINDS:
            if told.kinds is None or kind.name in told.kinds:
                print(f"| {row(kind, services, recos, told.rounds, told.seconds)} |", flush=True)


if __name__ == "__main__":
    main()
