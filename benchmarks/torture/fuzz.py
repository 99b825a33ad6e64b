"""Requests that are nearly right: with values or bytes changed, by everybody, at all routes."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import json
import random
from collections.abc import Iterator
from typing import Any

from PIL import Image

from reco_plugin.memory import open_memory

from .found import Found, Round
from .target import ADMIN, DIMENSION, Target, target, watched
from .wire import Answer, as_json, request, send

CALLERS, PATIENCE_S = 48, 60.0
_VECTOR = [DIMENSION**-0.5] * DIMENSION


def _picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


_IMAGE = _picture()
_URI = f"data:image/png;base64,{_IMAGE}"
_PARTS = [{"type": "text", "text": "a fox"}, {"type": "image_base64", "image_base64": _URI}]
BODIES: list[tuple[str, Any]] = [
    ("/v1/embeddings", {"model": "clip-reco", "input": ["a fox", "a dog"], "encoding_format": "base64"}),
    ("/v1/embeddings", {"model": "clip", "input": [{"text": "a fox"}, {"image": _IMAGE}], "dimensions": DIMENSION}),
    ("/v1/multimodalembeddings", {"inputs": [{"content": _PARTS[:1]}, {"content": _PARTS[1:]}], "input_type": "query"}),
    ("/v2/embed", {"texts": ["a fox"], "input_type": "search_query", "embedding_types": ["float"]}),
    ("/v2/embed", {"images": [_URI], "input_type": "image"}),
    ("/v1/embed", {"texts": ["a fox"], "input_type": "search_query", "embedding_types": ["int8", "ubinary"]}),
    ("/embed", {"inputs": ["a fox"], "truncate": True, "prompt_name": "query"}),
    ("/model/clip/invoke", {"inputText": "a fox", "embeddingTypes": ["float", "binary"], "normalize": True}),
    ("/predict", {"entries": '{"clip": {"textual": {"modelName": "clip"}}}', "text": "a fox"}),
    ("/vectorize", {"texts": ["a fox"], "images": [_IMAGE]}),
    ("/titan", {"inputText": "a fox", "inputImage": _IMAGE, "embeddingConfig": {"outputEmbeddingLength": DIMENSION}}),
    ("/v1/refine", {"vectors": [_VECTOR], "modality": "text", "k": 5, "where": {"shop": "de"}, "explain": True}),
    ("/v1/refine", {"vectors": [_VECTOR] * 2, "modality": "image", "exclude": ["pair-1"], "caution": "bold"}),
    ("/v1/explain", {"input": [{"text": "a fox"}, {"image": _IMAGE}], "where": {"n": {"gte": 3, "lt": 100}}}),
    ("/v1/memory/search", {"text": "a fox", "k": 3, "where": {"shop": ["de", "fr"]}}),
    (
        "/v1/memory/pairs",
        {
            "pairs": [
                {"id": "new-1", "text_vector": _VECTOR, "image_vector": _VECTOR, "payload": {"a": {"b": [1, None]}}},
                {"id": "new-2", "text": "a fox", "image": _IMAGE},
            ]
        },
    ),
]
NASTY: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 1e-320, 1e308, float("inf"),
    float("nan"), "", " ", "\0", "\ud800", "\udfff\ud800", "a" * 60_000, "\u202e\u0301" * 200, "💥", "1", "null",
    "../..", "http://169.254.169.254/",
    "data:image/png;base64,", "data:image/png;base64,AAAA", _URI[:-20], _URI, [], {}, [[]],
    [None], [{}], {"": None}, {"\ud800": "\ud800"}, {"gte": None}, {"gte": "x", "lt": 1}, {"$ne": 1}, ["a"] * 300,
    [0] * 3000, "query", "document", "image", "float", "base64", "int8", "ubinary", "clip", "clip-reco",
    "clip-reco-query",
]  # fmt: skip


def fuzz(given: Round) -> Found:
    """Ask, and look in the end whether the memory holds what the service says."""
    found = Found()
    with target(given.work) as service:
        with watched(service, found):
            asyncio.run(_all(given, service, found))
        told = json.loads(asyncio.run(send(service.address, request("/v1/memory", None, "GET", ADMIN))).body)["pairs"]
    memory = open_memory(service.memory, None, create=False)
    held = sum(len(batch.ids) for batch in memory.scroll())
    memory.close()
    found.figures["pairs told, and held when opened again"] = f"{told:,}, {held:,}"
    if told != held:
        found.faults.append(f"the service told of {told} pairs, the memory holds {held}")
    return found


async def _all(given: Round, service: Target, found: Found) -> None:
    async def caller(rng: random.Random) -> None:
        while given.until.more(found):
            kind, sent = draw(rng)
            answer = await send(service.address, sent, PATIENCE_S)
            found.tried[kind] += 1
            found.answers[str(answer.status)] += 1
            if said := fault(answer):
                found.faults.append(f"{said} after {answer.seconds:.1f} s: {answer.body[:200]!r} to {sent[:600]!r}")

    await asyncio.gather(*(caller(random.Random(given.rng.random())) for _ in range(CALLERS)))


def fault(answer: Answer) -> str | None:
    """What was wrong of ours with an answer; None: nothing."""
    if answer.status == -1:
        return f"no answer in {PATIENCE_S:.0f} s"
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


def draw(rng: random.Random) -> tuple[str, bytes]:
    """A request: what was changed, and its bytes."""
    headers = rng.choice([ADMIN, ADMIN, {}, {"authorization": "Bearer wrong"}])
    path, body = rng.choice(BODIES)
    if rng.random() < 0.8:
        body = copy.deepcopy(body)
        for turn in range(rng.choice((1, 1, 1, 2, 4))):
            body = change(body, rng, repeat=turn == 0)
        return "values", request(_path(path, rng), as_json(body), headers=headers)
    return "bytes of the body", request(path, _bytes(as_json(body), rng), headers=headers)


def change(value: Any, rng: random.Random, *, repeat: bool) -> Any:
    """JSON with one value, anywhere in it, replaced, left out, repeated, renamed or wrapped.

    Repeated again and again, it would take this process, in which all callers are, longer to write than the service
    waits for a head.
    """
    holders = [holder for holder in _holders(value) if holder]
    if not holders or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(NASTY))
    holder = rng.choice(holders[:40])
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(["", "unknown", "\ud800", str(key).upper(), "a" * 3000])] = holder.pop(key)
        case 1 if repeat:
            holder.extend([holder[key]] * rng.choice((1, 30, 300)))
        case 2:
            for _ in range(rng.choice((1, 2, 70, 200))):
                holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
        case 3:
            holder[key] = copy.deepcopy(rng.choice(BODIES)[1])
        case _:
            holder[key] = copy.deepcopy(rng.choice(NASTY))
    return value


def _holders(value: Any) -> Iterator[Any]:
    """The value and all objects and lists inside of it, none twice."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value[:20]:
            yield from _holders(inner)


def _bytes(sent: bytes, rng: random.Random) -> bytes:
    changed = bytearray(sent)
    for _ in range(rng.choice((1, 2, 8))):
        place = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[place] = rng.randrange(256)
            case 1:
                del changed[place : place + rng.choice((1, 5, 100))]
            case 2:
                changed[place:place] = rng.choice(
                    [b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"[", b'"', b"\r\n", b"{" * 200]
                )
            case _:
                changed[place:place] = changed[place : place + 50]
        if not changed:
            return b"\n"
    return bytes(changed)


def _path(path: str, rng: random.Random) -> str:
    return rng.choice(
        [path] * 12 + ["/plain" + path, "/refined" + path, path + "/", "/refined/plain" + path, path + "%00"]
    )
