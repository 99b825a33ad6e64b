"""Fuzzed requests to all routes: a JSON value replaced or removed at any depth, or broken bytes."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import json
import random
from typing import Any

from PIL import Image

from .target import ADMIN, DIMENSION, UNIT_VECTOR, Answer, Outcome, Round, as_json, request, send, target, watched

CALLERS = 48
_FILE = io.BytesIO()
Image.new("RGB", (32, 32), "red").save(_FILE, "PNG")
_IMAGE = base64.b64encode(_FILE.getvalue()).decode()
_URI = f"data:image/png;base64,{_IMAGE}"
BODIES: list[tuple[str, Any]] = [
    ("/v1/embeddings", {"model": "clip", "input": [{"text": "a fox"}, {"image": _IMAGE}], "dimensions": DIMENSION}),
    ("/v1/multimodalembeddings", {"inputs": [{"content": [{"type": "text", "text": "a fox"}]}], "input_type": "query"}),
    ("/v2/embed", {"texts": ["a fox"], "input_type": "search_query", "embedding_types": ["float"]}),
    ("/embed", {"inputs": ["a fox"], "truncate": True, "prompt_name": "query"}),
    ("/model/clip/invoke", {"inputText": "a fox", "normalize": True}),
    ("/vectorize", {"texts": ["a fox"], "images": [_IMAGE]}),
    ("/v1/refine", {"vectors": [UNIT_VECTOR], "modality": "text", "k": 5, "where": {"shop": "de"}, "coverage": 1.0}),
    ("/v1/explain", {"input": [{"text": "a fox"}, {"image": _IMAGE}], "where": {"n": {"gte": 3, "lt": 100}}}),
    ("/v1/memory/search", {"text": "a fox", "k": 3, "where": {"shop": ["de", "fr"]}}),
    (
        "/v1/memory/pairs",
        {"pairs": [{"id": "new-1", "text_vector": UNIT_VECTOR, "image": _IMAGE, "payload": {"a": [1]}}]},
    ),
]
NASTY: list[Any] = [
    None, True, -1, 1.5, 2**63, 10**400, 1e308, float("inf"), float("nan"), "", "\0", "\ud800", "a" * 60_000,
    "\u202e\u0301" * 200, "null", "../..", "http://169.254.169.254/", "data:image/png;base64,AAAA", _URI[:-20], _URI,
    [], {}, [[]], [None], [{}], {"": None}, {"gte": "x", "lt": 1}, {"$ne": 1}, ["a"] * 300, [0] * 3000, "query",
    "image", "base64", "clip-reco",
]  # fmt: skip
BROKEN = (b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"[", b'"', b"\r\n", b"{" * 200)


def bodies(round_: Round) -> Outcome:
    """Send fuzzed requests from 48 callers."""
    outcome = Outcome()
    with target(round_.work) as service:

        async def caller() -> None:
            while round_.goes_on(outcome):
                sent = draw(round_.rng)
                answer = await send(service.address, sent)
                outcome.tried[f"to {len(BODIES)} routes"] += 1
                outcome.answers[str(answer.status)] += 1
                if problem := fault(answer):
                    outcome.faults.append(
                        f"{problem} after {answer.seconds:.1f} s: {answer.body[:200]!r} to {sent[:600]!r}"
                    )

        async def callers() -> None:
            await asyncio.gather(*(caller() for _ in range(CALLERS)))

        with watched(service, outcome):
            asyncio.run(callers())
    return outcome


def fault(answer: Answer) -> str | None:
    """The fault of the service in an answer; None if there is none."""
    if answer.status == -1:
        return "no answer in time"
    if answer.status == 0:
        return "closed without an answer"
    if answer.status >= 500:
        return str(answer.status)
    if b"application/json" in answer.head and answer.body:
        try:
            json.loads(answer.body)
        except ValueError:
            return f"{answer.status} with what is no JSON"
    return None


def draw(rng: random.Random) -> bytes:
    """Draw a request, and damage it."""
    path, body = rng.choice(BODIES)
    sent = as_json(mutated(copy.deepcopy(body), rng))
    if rng.random() < 0.2:
        at = rng.randrange(len(sent))
        sent = sent[:at] + rng.choice(BROKEN) + sent[at + rng.choice((0, 1, 50)) :]
    return request(path, sent, headers=rng.choice([ADMIN, ADMIN, {}, {"authorization": "Bearer wrong"}]))


def mutated(value: Any, rng: random.Random) -> Any:
    """Replace or remove one value of JSON, at any depth."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return copy.deepcopy(rng.choice(NASTY))
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if rng.random() < 0.1:
        del value[key]
    else:
        value[key] = mutated(value[key], rng)
    return value
