"""Rounds of load: queries beside bulk work, sixteen times what the service can do, and clients that hang up."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Sequence

from PIL import Image

from .target import (
    ADMIN,
    UNIT_VECTOR,
    Answer,
    Outcome,
    Round,
    Target,
    as_json,
    recovery,
    request,
    send,
    target,
    watched,
)

CALLERS, PICTURES, EXPLAINED, QUERIES = 4, 256, 100, 100
BATCH = 32  # pictures that are encoded at once, by default
TIMES, STEP_S = 16, 10.0
CLIENTS, RELEASED_S = 64, 60.0
"""Clients that hang up at once, and seconds until nothing of theirs may be held: the deadline of a request."""
_FILE = io.BytesIO()
Image.effect_noise((320, 240), 80).convert("RGB").save(_FILE, "JPEG")
_PICTURE = base64.b64encode(_FILE.getvalue()).decode()
_QUERIES = [
    request("/v1/embeddings", as_json({"model": "clip-reco-query", "input": f"number {n}"})) for n in range(QUERIES)
]
_EXPLAIN = request("/v1/explain", as_json({"input": [{"text": "what is it?"}] * EXPLAINED}), headers=ADMIN)
_TEXTS = request(
    "/refined/v1/embeddings", as_json({"input": [f"what is number {n}, and in which shop?" for n in range(32)]})
)


def lanes(round_: Round) -> Outcome:
    """Send single texts, alone and beside four callers of 256 pictures and one of explanations for 100 texts."""
    outcome = Outcome()
    with target(round_.work) as service, watched(service, outcome):
        asyncio.run(_beside_bulk(service, outcome, round_.seconds / 2))
    return outcome


async def _beside_bulk(service: Target, outcome: Outcome, seconds: float) -> None:
    await _send_queries(service, outcome, 0)  # warm
    alone, idle = await _send_queries(service, outcome, 0)
    batch = max([(await send(service.address, sent)).seconds for sent in (_pictures(BATCH), _EXPLAIN)])
    undisturbed = await _send_bulk(service, seconds)
    bulk = asyncio.create_task(_send_bulk(service, seconds))
    await asyncio.sleep(1)
    beside, slowest = await _send_queries(service, outcome, seconds / 2 / QUERIES)
    share = await bulk / undisturbed
    if beside != alone:
        outcome.faults.append("beside bulk, a query has another vector")
    if slowest > idle + batch:
        outcome.faults.append(f"a query took {slowest:.3f} s beside bulk, {idle:.3f} s alone, a batch {batch:.3f} s")
    if share < 0.8:
        outcome.faults.append(f"beside queries, bulk keeps {share:.2f} of its rate")
    outcome.figures |= {
        "slowest query": f"{1000 * slowest:.0f} ms, idle {1000 * idle:.0f} ms, a batch {1000 * batch:.0f} ms",
        "bulk": f"{undisturbed:.0f} pictures/s, beside queries {share:.2f} of it",
    }


def _pictures(number: int) -> bytes:
    return request("/v1/embeddings", as_json({"model": "clip", "input": [{"image": _PICTURE}] * number}))


async def _send_queries(service: Target, outcome: Outcome, pause_s: float) -> tuple[Sequence[object], float]:
    """Vectors of all queries, and seconds of the slowest."""
    vectors, slowest = [], 0.0
    for query in _QUERIES:
        answer = await send(service.address, query)
        outcome.tried["queries"] += 1
        outcome.answers[str(answer.status)] += 1
        vectors.append(json.loads(answer.body)["data"])
        slowest = max(slowest, answer.seconds)
        await asyncio.sleep(pause_s)
    return vectors, slowest


async def _send_bulk(service: Target, seconds: float) -> float:
    """Pictures that four callers get embedded in a second, beside one of explanations."""
    began, done, pictures = time.perf_counter(), 0, _pictures(PICTURES)

    async def caller(sent: bytes, inputs: int) -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            done += inputs * ((await send(service.address, sent)).status == 200)

    await asyncio.gather(caller(_EXPLAIN, 0), *(caller(pictures, PICTURES) for _ in range(CALLERS)))
    return done / (time.perf_counter() - began)


def overload(round_: Round) -> Outcome:
    """Offer 16 times the rate that two callers get answered, for ten seconds, and time the recovery."""
    outcome = Outcome()
    with target(round_.work) as service:
        asyncio.run(_answered(service, 2.0))  # warm
        able = asyncio.run(_answered(service, 5.0))
        longest, offered = 0.0, list[float]()
        with watched(service, outcome):
            while round_.goes_on(outcome):
                answers, rate = asyncio.run(_offer(service, able * TIMES))
                offered.append(rate / able)
                longest = max(longest, asyncio.run(recovery(service.address)))
                for answer in answers:
                    _note(outcome, answer)
    outcome.figures |= {
        "able": f"{able:.0f} requests of 32 texts/s",
        "offered": f"{min(offered):.1f} times that",
        "recovery": f"{longest:.2f} s",
    }
    return outcome


def _note(outcome: Outcome, answer: Answer) -> None:
    outcome.tried["32 texts"] += 1
    outcome.answers[str(answer.status) if answer.status else "closed"] += 1
    if answer.status in (429, 503) and b"retry-after" not in answer.head:
        outcome.faults.append(f"{answer.status} without Retry-After")
    elif answer.status not in (0, 200, 429, 503, 504):
        outcome.faults.append(f"{answer.status} {answer.body[:200]!r}")


async def _answered(service: Target, seconds: float) -> float:
    """Requests a second that two callers get answered."""
    done, until = Counter[int](), time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < until:
            done[(await send(service.address, _TEXTS)).status] += 1

    await asyncio.gather(caller(), caller())
    return done[200] / seconds


async def _offer(service: Target, rate: float) -> tuple[list[Answer], float]:
    """Begin ``rate`` requests a second; returns all answers, and the rate that was reached."""
    began, sent = time.perf_counter(), list[asyncio.Task[Answer]]()
    while (now := time.perf_counter() - began) < STEP_S:
        sent += [asyncio.create_task(send(service.address, _TEXTS)) for _ in range(int(now * rate) - len(sent))]
        await asyncio.sleep(0.005)
    return await asyncio.gather(*sent), len(sent) / STEP_S


def leavers(round_: Round) -> Outcome:
    """Hang up during large requests of 64 clients; the service must release all that they hold."""
    outcome, longest, slowest_recovery = Outcome(), 0.0, 0.0
    with target(round_.work) as service, watched(service, outcome):
        bodies = _large_requests(round_.rng)
        while round_.goes_on(outcome):

            async def turn() -> float:
                await asyncio.gather(*(_leave(service, round_.rng, bodies, outcome) for _ in range(CLIENTS)))
                return await _released(service)

            seconds = asyncio.run(turn())
            longest = max(longest, seconds)
            outcome.answers["all given back" if seconds < RELEASED_S else "kept"] += 1
            if seconds >= RELEASED_S:
                outcome.faults.append(f"after {seconds:.0f} s something of clients that left is held")
            slowest_recovery = max(slowest_recovery, asyncio.run(recovery(service.address)))
        outcome.figures["given back after"] = f"{longest:.1f} s"
        outcome.figures["recovery"] = f"{slowest_recovery:.2f} s"
    return outcome


def _large_requests(rng: random.Random) -> list[bytes]:
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + rng.randbytes(2_000_000)).decode()
    bodies = [
        ("/v1/explain", {"input": [{"text": f"what is number {n}"} for n in range(2048)]}),
        ("/v1/refine", {"modality": "text", "vectors": [UNIT_VECTOR] * 2048}),
        ("/v1/embeddings", {"input": ["x" * 20_000_000]}),
        ("/v1/explain", {"input": [{"image": picture}] * 8}),
    ]
    return [request(path, as_json(body), headers=ADMIN) for path, body in bodies]


async def _leave(service: Target, rng: random.Random, bodies: list[bytes], outcome: Outcome) -> None:
    """Send a request, or a part of it, and hang up."""
    sent = rng.choice(bodies)
    moment = rng.choice(("in the head", "in the body", "in the queue", "while it is answered"))
    ends = {"in the head": rng.randrange(60), "in the body": rng.randrange(100, len(sent))}
    with contextlib.suppress(ConnectionError):
        reader, writer = await asyncio.open_connection(*service.address, limit=4096)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        writer.write(sent[: ends.get(moment)])
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):  # the whole answer may be shorter
            async with asyncio.timeout(rng.uniform(0.01, 1.0)):
                await (reader.readexactly(2000) if moment == "while it is answered" else writer.drain())
                await asyncio.sleep(rng.uniform(0.0, 0.5))
        writer.transport.abort()
    outcome.tried[moment] += 1


async def _released(service: Target) -> float:
    """Seconds until no request is held, waits or is computed; at most RELEASED_S."""
    began = time.perf_counter()
    while (seconds := time.perf_counter() - began) < RELEASED_S:
        metrics = (await send(service.address, request("/metrics", None, "GET"))).body
        held = re.findall(rb"^reco_(?:pending_bytes|queue_inputs) (\S+)", metrics, re.MULTILINE)
        if len(held) == 2 and not any(map(float, held)):
            return seconds
        await asyncio.sleep(0.05)
    return RELEASED_S
