"""Costly bodies, and sixteen times what the service can do."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections import Counter

from PIL import Image

from .found import Found, Round
from .target import ADMIN, Target, recovery, target, watched
from .wire import Answer, as_json, request, send

REFUSED = {400, 408, 413, 422, 429, 504}
"""What a costly request may be answered, besides 200."""
_ROW = b"0.0123456789, " * 127 + b"0.0123456789"
_LONG = b"[%s]" % b",".join([b"0.0883883476483184" + b"0" * 750] * 128)  # norm 1
BODIES: dict[str, tuple[str, bytes]] = {
    "ones": ("/v1/embeddings", b'{"input": [' + b"1," * 2_500_000 + b"1]}"),
    "nulls": ("/v1/refine", b'{"modality": "text", "vectors": [' + b"null," * 500_000 + b"null]}"),
    "nulls in one vector": ("/v1/refine", b'{"modality": "text", "vectors": [[' + b"null," * 500_000 + b"null]]}"),
    "objects": ("/v1/explain", b'{"input": [' + b'{"":0},' * 300_000 + b"{}]}"),
    "words": ("/v1/explain", b'{"input": [{}],' + b",".join(b'"k%d":0' % n for n in range(300_000)) + b"}"),
    "lists": ("/vectorize", b'{"texts": [' + b"[0]," * 300_000 + b"[]]}"),
    "vectors": ("/v1/refine", b'{"modality": "text", "vectors": [' + b",".join([b"[%s]" % _ROW] * 5_000) + b"]}"),
}
"""A few megabytes that cost hundreds where they are parsed as they come: path and body."""


def bodies(given: Round) -> Found:
    """Megabytes of JSON, long texts, combining marks, large images: in turn, and four at once."""
    found, requests = Found(), _bodies()
    with target(given.work) as service, watched(service, found):
        for name, sent in requests.items():  # each alone, whatever the time
            _note(found, name, asyncio.run(send(service.address, sent)))
        while given.until.more(found):
            names = given.rng.sample(list(requests), 4)

            async def at_once(names: list[str] = names) -> list[Answer]:
                return await asyncio.gather(*(send(service.address, requests[name]) for name in names))

            for name, answer in zip(names, asyncio.run(at_once()), strict=True):
                _note(found, name, answer)
    return found


def _note(found: Found, name: str, answer: Answer) -> None:
    found.tried[name] += 1
    found.answers[str(answer.status)] += 1
    if answer.status != 200 and answer.status not in REFUSED:
        found.faults.append(f"{name}: {answer.status} {answer.body[:200]!r}")


def _bodies() -> dict[str, bytes]:
    large = io.BytesIO()
    Image.new("RGB", (7_900, 7_900), "red").save(large, "PNG")
    picture = base64.b64encode(large.getvalue()).decode()
    marks = "a" + "\u0301\u0323" * 24_999
    more = {
        "30 MB of ones": ("/v1/embeddings", b'{"input": [' + b"1," * 14_900_000 + b"1]}"),
        "25 MB of vectors": ("/v1/refine", b'{"modality": "text", "vectors": [' + b",".join([_LONG] * 250) + b"]}"),
        "combining marks": ("/v1/embeddings", json.dumps({"input": [marks] * 16}, ensure_ascii=False).encode()),
        "40 large images": ("/v1/explain", as_json({"input": [{"image": picture}] * 40})),
    }
    return {name: request(path, body, headers=ADMIN) for name, (path, body) in (BODIES | more).items()} | {
        "256 long texts": request("/v1/embeddings", as_json({"input": ["what is this " * 3_800] * 256}))
    }


TIMES, STEP_S = 16, 10.0
WORK = request(
    "/refined/v1/embeddings", as_json({"input": [f"what is number {n}, and in which shop?" for n in range(32)]})
)
"""32 texts: some tens of milliseconds, so that offering is cheap beside answering."""


def overload(given: Round) -> Found:
    """Measure what it answers to two callers, offer 16 times that for ten seconds, and see when all is well again."""
    found = Found()
    with target(given.work) as service:
        asyncio.run(_answered(service, 2.0))  # warm
        able = asyncio.run(_answered(service, 5.0))
        quiet, longest, offered = service.peak_mib(), 0.0, list[float]()
        with watched(service, found):
            while given.until.more(found):
                answers, rate = asyncio.run(_offer(service, able * TIMES))
                offered.append(rate / able)
                longest = max(longest, asyncio.run(recovery(service.address)))
                for answer in answers:
                    _note_overload(found, answer)
    found.figures |= {
        "able": f"{able:.0f} requests of 32 texts/s",
        "offered": f"{min(offered):.1f} times that",
        "recovery": f"{longest:.2f} s",
        "memory before": f"{quiet:,.0f} MiB" if quiet else "not told",
    }
    return found


def _note_overload(found: Found, answer: Answer) -> None:
    found.tried["32 texts"] += 1
    found.answers[{0: "closed"}.get(answer.status, str(answer.status))] += 1
    if answer.status in (429, 503) and b"retry-after" not in answer.head:
        found.faults.append(f"{answer.status} without Retry-After")
    elif answer.status not in (0, 200, 429, 503, 504):
        found.faults.append(f"{answer.status} {answer.body[:200]!r}")


async def _answered(service: Target, seconds: float) -> float:
    """Requests that two callers get answered, per second."""
    done, until = Counter[int](), time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < until:
            done[(await send(service.address, WORK)).status] += 1

    await asyncio.gather(caller(), caller())
    return done[200] / seconds


async def _offer(service: Target, rate: float) -> tuple[list[Answer], float]:
    """Begin so many a second; returns all answers, and how many a second were begun."""
    began, sent = time.perf_counter(), list[asyncio.Task[Answer]]()
    while (now := time.perf_counter() - began) < STEP_S:
        sent += [asyncio.create_task(send(service.address, WORK)) for _ in range(int(now * rate) - len(sent))]
        await asyncio.sleep(0.005)
    return await asyncio.gather(*sent), len(sent) / STEP_S
