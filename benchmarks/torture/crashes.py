"""A service that is killed while it writes: it must hold what it acknowledged, and nothing half-written."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from reco_plugin.errors import RecoError
from reco_plugin.memory import open_memory
from reco_plugin.types import Vectors

from .target import ADMIN, DIMENSION, Outcome, Round, Target, as_json, request, send, target

Content = dict[str, tuple[Any, Any, Any]]
State = dict[str, int]
"""Id of a pair -> the turn that wrote it."""


def kill_service(round_: Round) -> Outcome:
    """Add pairs from four callers, kill the service, and check its memory."""
    outcome, state = Outcome(), State()
    (round_.work / "memory").mkdir()
    while round_.goes_on(outcome):
        with target(round_.work, memory=str(round_.work / "memory")) as service:
            begun = asyncio.run(_write_until_killed(service, round_.rng, state, round_.rng.uniform(0.3, 2)))
        outcome.tried["service"] += 1
        state = checked(outcome, round_.work / "memory", state, begun)
    outcome.figures["acknowledged pairs"] = f"{len(state):,}"
    return outcome


def content(place: Path) -> Content:
    """Image vector, text vector and payload of all pairs, by id."""
    memory = open_memory(place, None, create=False)
    try:
        batches = list(memory.scroll())
    finally:
        memory.close()
    return {
        name: (image, text, payload)
        for batch in batches
        for name, image, text, payload in zip(batch.ids, batch.image, batch.text, batch.payloads, strict=True)
    }


def checked(outcome: Outcome, folder: Path, state: State, begun: State | None) -> State:
    """Compare a memory with the acknowledged state; unfinished writes may be there or not. Returns what is held."""
    try:
        held = content(folder)
    except RecoError as error:
        outcome.answers["not opened"] += 1
        outcome.faults.append(f"the memory is not opened again: {error}")
        return {}
    other = state if begun is None else begun
    lost = [name for name in state if name not in held and name in other]
    wrong = [name for name in held if not _is_right(held, name, {state.get(name), other.get(name)})]
    outcome.answers["all acknowledged pairs there" if not lost and not wrong else "lost or wrong"] += 1
    if lost or wrong:
        outcome.faults.append(f"{len(lost)} acknowledged pairs lost, {len(wrong)} wrong: {(lost + wrong)[:5]}")
    return {name: payload["turn"] for name, (_, _, payload) in held.items()}


def _is_right(held: Content, name: str, turns: set[int | None]) -> bool:
    image, text, payload = held[name]
    turn = payload.get("turn")
    return turn in turns and all(
        np.allclose(one, vector(name, turn, side), atol=1e-5) for one, side in ((image, 0), (text, 1))
    )


def vector(name: str, turn: int, side: int) -> Vectors:
    """The vector of a pair as this turn writes it."""
    drawn = np.random.default_rng([*name.encode(), turn, side]).normal(size=DIMENSION)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def adding(names: Iterable[str], turn: int) -> bytes:
    """A request that adds pairs as this turn writes them."""
    pairs = [
        {
            "id": name,
            "image_vector": vector(name, turn, 0).tolist(),
            "text_vector": vector(name, turn, 1).tolist(),
            "payload": {"turn": turn},
        }
        for name in names
    ]
    return request("/v1/memory/pairs", as_json({"pairs": pairs}), headers=ADMIN)


async def _write_until_killed(service: Target, rng: random.Random, state: State, seconds: float) -> State:
    """Write from four callers until the service is killed; updates the state, and returns it with unfinished writes."""
    ends, begun = time.monotonic() + seconds, dict[str, int]()

    async def caller() -> None:
        while True:
            turn = rng.randrange(2**31)
            ids = {f"{rng.randrange(1_000_000)}" for _ in range(8)} - state.keys() - begun.keys()
            begun.update(dict.fromkeys(ids, turn))
            if (await send(service.address, adding(ids, turn))).status != 200:
                return
            state.update(dict.fromkeys(ids, turn))

    async def kill() -> None:
        await asyncio.sleep(ends - time.monotonic())
        os.kill(service.pid, signal.SIGKILL)

    await asyncio.gather(kill(), *(caller() for _ in range(4)))
    return begun | state
