"""Queries beside bulk work; and engines that send one object a request, a hundred at once, and none again."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import Sequence

from PIL import Image

from .target import ADMIN, Found, Round, Target, target, watched
from .wire import as_json, request, send

CALLERS, PICTURES, EXPLAINED, QUERIES, WRITERS, QUEUE = 4, 256, 100, 100, 100, 512
BATCH = 32  # pictures that are encoded at once, by default
_FILE = io.BytesIO()
Image.effect_noise((320, 240), 80).convert("RGB").save(_FILE, "JPEG")
_PICTURE = base64.b64encode(_FILE.getvalue()).decode()
_ASKED = [
    request("/v1/embeddings", as_json({"model": "clip-reco-query", "input": f"number {n}"})) for n in range(QUERIES)
]
_EXPLAIN = request("/v1/explain", as_json({"input": [{"text": "what is it?"}] * EXPLAINED}), headers=ADMIN)
_OBJECT = request("/vectorize", as_json({"texts": ["a title"], "images": [_PICTURE]}))  # as Weaviate sends it


def lanes(given: Round) -> Found:
    """Ask for one text at a time, alone and beside four callers of 256 pictures and one explanation of 100 texts."""
    found = Found()
    with target(given.work) as service, watched(service, found):
        asyncio.run(_beside(service, found, given.seconds / 2))
    return found


async def _beside(service: Target, found: Found, seconds: float) -> None:
    await _queries(service, found, 0)  # warm
    alone, idle = await _queries(service, found, 0)
    batch = max([(await send(service.address, asked)).seconds for asked in (_pictures(BATCH), _EXPLAIN)])
    undisturbed = await _bulk(service, seconds)
    disturbing = asyncio.create_task(_bulk(service, seconds))
    await asyncio.sleep(1)
    beside, slowest = await _queries(service, found, seconds / 2 / QUERIES)
    share = await disturbing / undisturbed
    if beside != alone:
        found.faults.append("beside bulk, a query has another vector")
    if slowest > idle + batch:
        found.faults.append(f"a query took {slowest:.3f} s beside bulk, {idle:.3f} s alone, a batch {batch:.3f} s")
    if share < 0.8:
        found.faults.append(f"beside queries, bulk keeps {share:.2f} of its rate")
    found.figures |= {
        "slowest query": f"{1000 * slowest:.0f} ms, idle {1000 * idle:.0f} ms, a batch {1000 * batch:.0f} ms",
        "bulk": f"{undisturbed:.0f} pictures/s, beside queries {share:.2f} of it",
    }


def _pictures(number: int) -> bytes:
    return request("/v1/embeddings", as_json({"model": "clip", "input": [{"image": _PICTURE}] * number}))


async def _queries(service: Target, found: Found, pause_s: float) -> tuple[Sequence[object], float]:
    """The vectors of all queries, and the seconds of the slowest."""
    vectors, slowest = [], 0.0
    for asked in _ASKED:
        answer = await send(service.address, asked)
        found.tried["queries"] += 1
        found.answers[str(answer.status)] += 1
        vectors.append(json.loads(answer.body)["data"])
        slowest = max(slowest, answer.seconds)
        await asyncio.sleep(pause_s)
    return vectors, slowest


async def _bulk(service: Target, seconds: float) -> float:
    """Pictures a second that four callers get embedded, beside one of explanations."""
    began, done, sent = time.perf_counter(), 0, _pictures(PICTURES)

    async def caller(asked: bytes, inputs: int) -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            done += inputs * ((await send(service.address, asked)).status == 200)

    await asyncio.gather(caller(_EXPLAIN, 0), *(caller(sent, PICTURES) for _ in range(CALLERS)))
    return done / (time.perf_counter() - began)


def objects(given: Round) -> Found:
    """Send one object a request, a hundred at once, at a queue of 512; what is refused would be lost."""
    found = Found()
    with target(given.work, flags=["--queue", str(QUEUE)]) as service, watched(service, found):

        async def writer() -> None:
            while given.more(found):
                found.tried["objects"] += 1
                answer = await send(service.address, _OBJECT)
                found.answers[str(answer.status)] += 1
                if answer.status != 200:
                    found.faults.append(f"{answer.status} {answer.body[:200]!r}")

        async def writers() -> None:
            await asyncio.gather(*(writer() for _ in range(WRITERS)))

        asyncio.run(writers())
    return found
