"""Clients that hang up, wherever their requests are."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import re
import socket
import time
from collections.abc import Mapping

from .target import ADMIN, DIMENSION, Found, Round, Target, recovery, target, watched
from .wire import as_json, request, send

CLIENTS, GIVEN_BACK_S = 64, 60.0
"""How many leave at once, and seconds until nothing of theirs may be held: a deadline, and what is computed by then."""
_VECTOR = [DIMENSION**-0.5] * DIMENSION  # of norm 1
_TEXTS = [f"what is number {n}" for n in range(2048)]
MOMENTS = ("in the head", "in the body", "in the queue", "while it is answered")


def leavers(given: Round) -> Found:
    """Large bodies of 64 clients that hang up: all that they had sent must be given back, and others be answered."""
    found, longest, well_after = Found(), 0.0, 0.0
    with target(given.work) as service, watched(service, found):
        bodies = list(_bodies(given.rng).values())
        while given.more(found):

            async def turn() -> float:
                await asyncio.gather(*(_leave(service, given.rng, bodies, found) for _ in range(CLIENTS)))
                return await _given_back(service)

            seconds = asyncio.run(turn())
            longest = max(longest, seconds)
            found.answers["all given back" if seconds < GIVEN_BACK_S else "kept"] += 1
            if seconds >= GIVEN_BACK_S:
                found.faults.append(f"after {seconds:.0f} s something of clients that left is held")
            well_after = max(well_after, asyncio.run(recovery(service.address)))
        found.figures["given back after"] = f"{longest:.1f} s"
        found.figures["recovery"] = f"{well_after:.2f} s"
    return found


def _bodies(rng: random.Random) -> Mapping[str, bytes]:
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + rng.randbytes(2_000_000)).decode()
    bodies = {
        "2,048 texts": ("/v1/explain", {"input": [{"text": text} for text in _TEXTS]}),
        "2,048 vectors": ("/v1/refine", {"modality": "text", "vectors": [_VECTOR] * 2048}),
        "one text of 20 MB": ("/v1/embeddings", {"input": ["x" * 20_000_000]}),
        "8 pictures of 2 MB": ("/v1/explain", {"input": [{"image": picture}] * 8}),
    }
    return {name: request(path, as_json(body), headers=ADMIN) for name, (path, body) in bodies.items()}


async def _leave(service: Target, rng: random.Random, bodies: list[bytes], found: Found) -> None:
    """Send a request, or a part of it, and hang up."""
    moment, sent = rng.choice(MOMENTS), rng.choice(bodies)
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
    found.tried[moment] += 1


async def _given_back(service: Target) -> float:
    """Seconds until no request holds, waits or is computed; at most GIVEN_BACK_S."""
    began = time.perf_counter()
    while (seconds := time.perf_counter() - began) < GIVEN_BACK_S:
        told = (await send(service.address, request("/metrics", None, "GET"))).body
        held = re.findall(rb"^reco_(?:pending_bytes|queue_inputs) (\S+)", told, re.MULTILINE)
        if len(held) == 2 and not any(map(float, held)):
            return seconds
        await asyncio.sleep(0.05)
    return GIVEN_BACK_S
