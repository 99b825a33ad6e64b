"""Jobs over a memory that is served, killed under load."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .found import Found, Round
from .jobs import ROWS, change_source, content, end, equal, kill, left_alone, make_source, memory_job
from .target import ORDINARY, Target, target
from .wire import send

CALLERS = 8
"""That ask meanwhile."""


def kill_served_jobs(given: Round) -> Found:
    """`sync`, and `build --swap`, over a memory that is served and asked: killed, and run again to their end."""
    found, work, rng = Found(), given.work, given.rng
    old = make_source(work / "source", rng, ROWS)
    new = change_source(old)
    end(memory_job("build", old, work / "old"))
    alone, seconds = left_alone(new, work / "alone", ROWS - ROWS // 4)
    while given.until.more(found):
        place, swaps = work / "served", rng.random() < 0.5
        shutil.copytree(work / "old", place)
        words = ("build", new, place, "--swap") if swaps else ("sync", new, place, "--max-delete", 1)
        with target(work, memory=str(place)) as service, _asked(service, found):
            for _ in range(kills := rng.choice((1, 1, 2))):
                kill(memory_job(*words), rng.uniform(0, 2 * seconds))
            end(memory_job(*words))
        whole = equal(content(place), alone)
        found.tried["served build beside one in use" if swaps else "served sync"] += kills
        found.answers["equal to a run left alone" if whole else "different"] += 1
        if not whole:
            found.faults.append(f"{words[0]}, after {kills} kills: it came to something else")
        for path in work.glob("served*"):
            path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
    return found


@contextmanager
def _asked(service: Target, found: Found) -> Iterator[None]:
    """Ask meanwhile, from callers of a thread; each request must be answered."""
    ended = threading.Event()

    async def caller() -> None:
        while not ended.is_set():
            answer = await send(service.address, ORDINARY)
            found.answers[f"asked meanwhile: {answer.status}"] += 1
            if answer.status != 200:
                found.faults.append(f"asked meanwhile: {answer.status} {answer.body[:200]!r}")

    async def callers() -> None:
        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    asking = threading.Thread(target=asyncio.run, args=(callers(),))
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join()
