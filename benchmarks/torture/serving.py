"""A service of several workers of which one is killed; and jobs over a memory that is served, killed under load."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from .found import Found, Round
from .jobs import ROWS, change_source, content, end, equal, kill, left_alone, make_source, memory_job
from .target import DIMENSION, ORDINARY, Target, target, watched
from .wire import send
from .writes import State, adding, checked

CALLERS, WORKERS, REPLACED_S = 8, 2, 60.0
"""Of each kind, that ask meanwhile; workers of a service; seconds within which a killed one must be replaced."""


def kill_workers(given: Round) -> Found:
    """Two workers that callers ask and write through: one is killed, and its requests may fail, no others."""
    found, state, begun, longest = Found(), State(), State(), 0.0
    memory = given.work / "memory"
    memory.mkdir()
    with target(given.work, ["--workers", str(WORKERS)], memory=str(memory)) as service, watched(service, found):
        _replaced(service)  # the others begin after the first
        while given.until.more(found):
            lost = asyncio.run(_under_load(service, given.rng, state, begun))
            found.tried["worker"] += 1
            found.answers["requests that it lost"] += lost["closed"]
            found.faults += [f"{status}: {times} requests" for status, times in lost.items() if status != "closed"]
            if lost["closed"] > 2 * CALLERS:
                found.faults.append(f"{lost['closed']} requests were lost with one worker")
            longest = max(longest, seconds := _replaced(service))
            if seconds >= REPLACED_S:
                found.faults.append(f"a killed worker was not replaced within {REPLACED_S:.0f} s")
                break
    found.figures |= {"replaced after": f"{longest:.1f} s", "acknowledged pairs": f"{len(state):,}"}
    checked(found, memory, state, begun | state, DIMENSION)
    return found


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


async def _under_load(service: Target, rng: Random, state: State, begun: State) -> Counter[str]:
    """Ask and write, kill a worker meanwhile; what came of requests that were not answered as they should be."""
    other, ends = Counter[str](), time.monotonic() + 2.0

    async def ask(sent: bytes) -> bool:
        answer = await send(service.address, sent)
        if answer.status != 200:
            other["closed" if answer.status == 0 else str(answer.status)] += 1
        return answer.status == 200

    async def reader() -> None:
        while time.monotonic() < ends:
            await ask(ORDINARY)

    async def writer() -> None:
        while time.monotonic() < ends:
            turn = rng.randrange(2**31)
            new = {f"{rng.randrange(10**9)}": turn for _ in range(8)}
            begun.update(new)
            if await ask(adding(new, turn)):
                state.update(new)

    async def kill_one() -> None:
        await asyncio.sleep(rng.uniform(0.2, 1.5))
        os.kill(rng.choice(_workers(service)), signal.SIGKILL)

    await asyncio.gather(kill_one(), *(reader() for _ in range(CALLERS)), *(writer() for _ in range(CALLERS)))
    return other


def _workers(service: Target) -> list[int]:
    """Ids of the processes of workers."""
    command = ["pgrep", "-P", str(service.pid), "-f", "spawn_main"]
    return [int(word) for word in subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()]


def _replaced(service: Target) -> float:
    """Seconds until all workers listen again."""
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < REPLACED_S:
        if _listening(service.address[1]) == WORKERS:
            return seconds
        time.sleep(0.1)
    return REPLACED_S


def _listening(port: int) -> int:
    """How many sockets listen at a port of IPv4."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[3] == "0A" and row[1].endswith(f":{port:04X}") for row in rows)


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
