"""Sixteen times what the service can do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from .target import Found, Round, Target, recovery, target, watched
from .wire import Answer, as_json, request, send

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
        longest, offered = 0.0, list[float]()
        with watched(service, found):
            while given.more(found):
                answers, rate = asyncio.run(_offer(service, able * TIMES))
                offered.append(rate / able)
                longest = max(longest, asyncio.run(recovery(service.address)))
                for answer in answers:
                    _note(found, answer)
    found.figures |= {
        "able": f"{able:.0f} requests of 32 texts/s",
        "offered": f"{min(offered):.1f} times that",
        "recovery": f"{longest:.2f} s",
    }
    return found


def _note(found: Found, answer: Answer) -> None:
    found.tried["32 texts"] += 1
    found.answers[str(answer.status) if answer.status else "closed"] += 1
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
