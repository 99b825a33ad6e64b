"""Callers that ask and check, and one that writes the memory meanwhile."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, TypeAlias

import httpx
import numpy as np

from reco_plugin import Pair
from reco_plugin.types import Vectors

from ..callers import png
from .inputs import Known, Request, draw

SAME = 1e-4  # cosine distance within which two answers are the same: batches of other sizes round otherwise
Verdict: TypeAlias = Literal["right", "degraded", "wrong", "refused", "failed"]
"""refused: 429. failed: any other status that is not 200, or no answer."""
_WRITTEN, _PAUSE_S = 16, 0.25


@dataclass(frozen=True)
class Outcome:
    """What became of one request."""

    kind: str
    seconds: float
    verdict: Verdict
    detail: str = ""


@dataclass
class Traffic:
    """What was seen."""

    outcomes: list[Outcome] = field(default_factory=list)
    pairs_added: int = 0
    pairs_removed: int = 0
    write_failures: list[str] = field(default_factory=list)


async def run(url: str, known: Known, *, admin_key: str | None, callers: int, seconds: float, seed: int = 0) -> Traffic:
    """Ask from so many callers at once, each the next when it has its answer; with an admin key, write meanwhile."""
    seen = Traffic()
    limits = httpx.Limits(max_connections=callers + 1, max_keepalive_connections=callers + 1)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        until = time.perf_counter() + seconds
        writing = [asyncio.create_task(_write(http, known, admin_key, seen))] if admin_key else []
        await asyncio.gather(*(_ask(http, known, random.Random(seed + n), until, seen) for n in range(callers)))
        for writer in writing:
            writer.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
    return seen


async def _ask(http: httpx.AsyncClient, known: Known, rng: random.Random, until: float, seen: Traffic) -> None:
    while time.perf_counter() < until:
        request = draw(known, rng)
        began = time.perf_counter()
        try:
            answer = await http.post(request.path, json=request.body)
        except httpx.TransportError as error:
            seen.outcomes.append(Outcome(request.kind, time.perf_counter() - began, "failed", repr(error)))
            continue
        took = time.perf_counter() - began
        verdict, detail = judge(request, answer)
        seen.outcomes.append(Outcome(request.kind, took, verdict, detail))


def judge(request: Request, answer: httpx.Response) -> tuple[Verdict, str]:
    """Compare an answer with the one worked out before; one that says it is degraded must be plain, in that part."""
    if answer.status_code != 200:
        return ("refused" if answer.status_code == 429 else "failed"), f"{answer.status_code} {answer.text[:200]}"
    vectors = _vectors(answer.json()["data"])
    degraded = answer.headers.get("x-reco-degraded")
    expected = request.plain if degraded else request.expected
    if vectors.shape != expected.shape:
        return "wrong", f"{vectors.shape} instead of {expected.shape}"
    distances = 1 - np.einsum("bd,bd->b", vectors, expected)
    if degraded and answer.headers.get("x-reco-refined") == "partly":  # the memory came back between texts and images
        distances = np.minimum(distances, 1 - np.einsum("bd,bd->b", vectors, request.expected))
    far = float(distances.max())
    if not far < SAME:  # NaN is wrong too
        return "wrong", f"cosine distance {far:.6f}"
    return ("degraded", degraded) if degraded else ("right", "")


def _vectors(rows: list[dict[str, Any]]) -> Vectors:
    found = [row["embedding"] for row in sorted(rows, key=lambda row: int(row["index"]))]
    return np.stack(
        [
            np.frombuffer(base64.b64decode(one), "<f4") if isinstance(one, str) else np.asarray(one, np.float32)
            for one in found
        ]
    )


async def _write(http: httpx.AsyncClient, known: Known, admin_key: str, seen: Traffic) -> None:
    """Replace pairs by themselves, add some that no query finds, and take away those of the turn before."""
    headers = {"authorization": f"Bearer {admin_key}"}
    before: list[str] = []
    for turn in count():
        same = [known.pairs[(turn * _WRITTEN + place) % len(known.pairs)] for place in range(_WRITTEN)]
        far = known.far_pairs(f"turn-{turn}", _WRITTEN)
        rows = [_row(pair) for pair in [*same, *far]]
        added = await http.post("/v1/memory/pairs", json={"pairs": rows}, headers=headers)
        seen.pairs_added += _counted(added, "stored", seen)
        if before:
            gone = await http.delete("/v1/memory/pairs", params=[("id", one) for one in before], headers=headers)
            seen.pairs_removed += _counted(gone, "removed", seen)
        before = [pair.id for pair in far]
        await asyncio.sleep(_PAUSE_S)


def _row(pair: Pair) -> dict[str, Any]:
    """A pair as the service takes it: raw, or vectors."""
    if isinstance(pair.image, np.ndarray) and isinstance(pair.text, np.ndarray):
        return {"id": pair.id, "image_vector": pair.image.tolist(), "text_vector": pair.text.tolist()}
    image = base64.b64encode(png(pair.image)).decode()  # type: ignore[arg-type]
    return {"id": pair.id, "text": pair.text, "image": image, "payload": dict(pair.payload)}


def _counted(answer: httpx.Response, name: str, seen: Traffic) -> int:
    if answer.status_code == 200:
        return int(answer.json()[name])
    seen.write_failures.append(f"{answer.status_code} {answer.text[:200]}")
    return 0
