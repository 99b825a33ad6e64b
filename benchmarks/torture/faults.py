"""Answers are checked, each one: while the memory is written, while its server comes and goes; a damaged model."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from reco_plugin import Pair
from reco_plugin.artifact import TOKENIZER, Artifact
from reco_plugin.errors import RecoError
from reco_plugin.memory import open_memory
from reco_plugin.memory.transfer import copy

from ..service import ADMIN_KEY
from ..stand_in import SUPPORT
from .found import MODEL, Found, Round
from .inputs import Known, draw, prepare
from .target import target, watched
from .traffic import Traffic, judge, run

PICTURES, COPIES, CALLERS, STEP_S = 64, 10, 4, 5.0


def load(given: Round) -> Found:
    """Every answer is right while pairs are replaced, added and removed, too few for the memory to learn anew."""
    found, known = Found(), _known(given.work, COPIES)
    with target(given.work, memory=str(given.work / "known")) as service, watched(service, found):
        while given.until.more(found):
            seen = _asked(service.url, known, STEP_S, ADMIN_KEY)
            _note(found, "answer", seen)
            found.tried["pairs written"] += seen.pairs_added
            found.faults += [f"a write failed: {failure}" for failure in seen.write_failures]
    return found


def faults(given: Round) -> Found:
    """A server that flaps under a service that must answer right or say that it did not refine; damaged models."""
    found = Found()
    _damaged(given, found)
    known = _known(given.work)
    sys.path.insert(0, str(SUPPORT))
    from qdrant_stand_in import serving  # type: ignore[import-not-found]

    with serving() as server:
        url = server.url("http")
        _copy(given.work / "known", url)
        with target(given.work, memory=url) as service, watched(service, found):
            while given.until.more(found):
                server.stop()
                _note(found, "server away", _asked(service.url, known, given.rng.uniform(0.5, 3)))
                server.start()
                _note(found, "server back", _asked(service.url, known, given.rng.uniform(0.5, 8)))
            found.figures["refined again after"] = f"{asyncio.run(_refined(service.url, known)):.1f} s"
    return found


def _known(work: Path, copies: int = 1) -> Known:
    noise = np.random.default_rng(0)
    pictures = [Image.fromarray(noise.integers(0, 256, (4, 4, 3), np.uint8)).resize((64, 64)) for _ in range(PICTURES)]
    pairs = [Pair(f"pair-{n}", picture, f"picture {n}") for n, picture in enumerate(pictures)]
    pairs = [replace(pair, id=f"{pair.id}-{copy}") for copy in range(copies) for pair in pairs]
    return prepare(MODEL, work / "known", pairs, [f"picture {n}" for n in range(PICTURES)], pictures)


def _copy(folder: Path, url: str) -> None:
    fingerprint = Artifact.load(MODEL).manifest.fingerprint
    held, served = open_memory(folder, fingerprint), open_memory(url, fingerprint)
    with closing(held), closing(served):
        copy(held, served)


def _asked(url: str, known: Known, seconds: float, admin_key: str | None = None) -> Traffic:
    return asyncio.run(run(url, known, admin_key=admin_key, callers=CALLERS, seconds=seconds))


def _note(found: Found, kind: str, seen: Traffic) -> None:
    for one in seen.outcomes:
        found.tried[kind] += 1
        found.answers[f"{one.verdict}: {one.detail}" if one.verdict == "degraded" else one.verdict] += 1
        if one.verdict in ("wrong", "failed"):
            found.faults.append(f"{kind}: {one.kind}: {one.verdict}: {one.detail}")


async def _refined(url: str, known: Known) -> float:
    """Seconds until answers are refined again, once the server is back for good."""
    loop, rng = asyncio.get_running_loop(), random.Random(0)
    began = loop.time()
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while True:
            request = draw(known, rng)
            if request.expected is not request.plain:
                answer = await http.post(request.path, json=request.body)
                if judge(request, answer)[0] == "right":
                    return loop.time() - began
            await asyncio.sleep(0.1)


def _damaged(given: Round, found: Found) -> None:
    """One byte of a file of the model is changed: it must not be opened."""
    folder = given.work / "model"
    shutil.copytree(MODEL, folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix == ".onnx" or path.name == TOKENIZER)
    for path in files * 3:
        whole = path.read_bytes()
        place = given.rng.randrange(len(whole))
        changed = bytearray(whole)
        changed[place] ^= 1 << given.rng.randrange(8)
        path.write_bytes(changed)
        found.tried["byte of the model changed"] += 1
        try:
            Artifact.load(folder)
        except RecoError:
            found.answers["refused"] += 1
        else:
            found.answers["opened"] += 1
            found.faults.append(f"{path.relative_to(folder)}: byte {place} was changed, and the model is opened")
        path.write_bytes(whole)
        os.utime(path)
