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
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from reco_plugin import Reco
from reco_plugin.demo.tasks import drawing, pairs
from reco_plugin.quickstart.dataset import ALL_SPLITS, load

from .callers import Asked, call, png, post
from .page import machine, page_file, table, tell
from .processes import seconds_of
from .service import Service, started

CALLERS = 64
_STORED = 1000
_INPUTS = 128
_PATIENCE_S = 60.0


async def rate(service: Service, requests: Sequence[bytes], callers: int, seconds: float) -> tuple[float, float]:
    """Answers a second, and seconds of processor time of an answer.

    Raises:
        RuntimeError: one was no 200.
    """
    asked = Asked(list(requests), time.perf_counter() + seconds, keeps=False)
    began, taken = time.perf_counter(), seconds_of(service.pid)
    await call(asked, int(service.url.rpartition(":")[2]), callers, seconds + _PATIENCE_S)
    took, taken, count = time.perf_counter() - began, seconds_of(service.pid) - taken, len(asked.answers)
    if asked.failures:
        raise RuntimeError(asked.failures[0])
    return count / took, taken / max(count, 1)


def cases() -> dict[str, list[bytes]]:
    """Requests of each kind, for things that the shipped model never saw."""
    data = load()
    texts = [entity.label for entity in data.labels(["unseen"])[:_INPUTS]]
    images = [png(drawing(data, int(row))) for row in data.query_rows("unseen")[:_INPUTS]]
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
    return post("/v1/embeddings", json.dumps({"model": model, "input": inputs}).encode())


def main() -> int:
    """Run, print, write the block of the page."""
    words = argparse.ArgumentParser(description=main.__doc__)
    words.add_argument("--workers", type=int, default=2)
    words.add_argument("--callers", type=int, default=CALLERS)
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--seconds", type=float, default=3)
    words.add_argument("--model", type=Path, default=Path("triton_models"))
    words.add_argument("--page", type=page_file, help="such as docs/measurements/workers.md")
    given = words.parse_args()
    stored = pairs(load(), ALL_SPLITS)[:_STORED]
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
        for name, requests in cases().items():
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
    tell(given.page, {"workers": text})
    return 0


if __name__ == "__main__":
    sys.exit(main())
