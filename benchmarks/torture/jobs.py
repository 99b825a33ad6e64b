"""``reco memory build`` and ``sync``, killed at random moments, run again, and compared with runs left alone.

A build goes into a fresh folder, every second one as a version beside one in use (``--swap``): that one must stay as it
was until the swap. A sync brings a memory to a changed table: rows gone, changed and new.
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reco_plugin.errors import MemoryStoreError
from reco_plugin.memory import open_memory

from .found import MODEL, Found, Round

ROWS, BATCH = 600, 4
TOLERANCE = 2e-6
"""Of a vector's values: batches of other sizes are rounded otherwise."""
Content = dict[str, tuple[Any, Any, Any]]
Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Killed:
    """A job that was killed, and then run to its end.

    Attributes:
        kind: of job.
        kills: how often.
        part: after how many of them a part was written.
        equal: whether it came to what a run left alone comes to, and nothing else was touched or half there before.
    """

    kind: str
    kills: int
    part: int
    equal: bool


def kill_builds(given: Round) -> Found:
    """Builds, every second one beside a memory in use."""
    return _told(given, builds(given.work, given.rng))


def kill_syncs(given: Round) -> Found:
    """Syncs with a changed table."""
    return _told(given, syncs(given.work, given.rng))


def _told(given: Round, killed: Iterator[Killed]) -> Found:
    found, part = Found(), 0
    while given.until.more(found):
        one = next(killed)
        found.tried[one.kind] += one.kills
        part += one.part
        found.answers["equal to a run left alone" if one.equal else "different"] += 1
        if not one.equal:
            found.faults.append(f"{one.kind}, after {one.kills} kills: it came to something else")
    found.figures["killed with a part written"] = f"{part}"
    return found


def builds(work: Path, rng: random.Random, rows: int = ROWS) -> Iterator[Killed]:
    """Build, kill and compare, for ever, in an empty folder."""
    source = make_source(work / "source", rng, rows)
    alone, seconds = left_alone(source, work / "alone", rows)
    place, number = work / "killed", 0
    while True:
        swap, number = number % 2 == 1, number + 1
        before = _in_use(source, place, alone) if swap else None
        building = place.with_name(f"{place.name}--v2.partial") if swap else place
        flags, kills, part, untouched = ["--swap"] if swap else [], rng.choice((1, 1, 2)), 0, True
        for _ in range(kills):
            process = memory_job("build", source, place, *flags)
            _wait(process, (building / "shard").exists)
            kill(process, rng.uniform(0, seconds))
            part += 0 < count(building) < rows
            if before is not None and not place.is_symlink():
                untouched &= equal(content(place), before)
        end(memory_job("build", source, place, *flags))
        kind = "build beside one in use" if swap else "build"
        yield Killed(kind, kills, part, equal(content(place), alone) and untouched)
        for path in place.parent.glob(f"{place.name}*"):
            path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)


def syncs(work: Path, rng: random.Random, rows: int = ROWS) -> Iterator[Killed]:
    """Bring a copy of a memory to a changed table, kill and compare, for ever, in an empty folder."""
    old = make_source(work / "source", rng, rows)
    end(memory_job("build", old, work / "old"))
    new = change_source(old, [f"new-{n},{n}.png,a new picture with the number {n},{n}\n" for n in range(rows // 4)])
    before, (alone, seconds) = content(work / "old"), left_alone(new, work / "alone", rows)
    while True:
        place, kills, part = work / "killed", rng.choice((1, 1, 2)), 0
        shutil.copytree(work / "old", place)
        for _ in range(kills):
            written = _stamp(place)
            process = memory_job("sync", new, place, "--max-delete", 1)
            _wait(process, lambda place=place, written=written: _stamp(place) != written)  # type: ignore[misc]
            kill(process, rng.uniform(0, seconds))
            part += not any(equal(content(place), whole) for whole in (before, alone))
        end(memory_job("sync", new, place, "--max-delete", 1))
        yield Killed("sync", kills, part, equal(content(place), alone))
        shutil.rmtree(place)


def make_source(folder: Path, rng: random.Random, rows: int) -> Path:
    """A table of small noisy images, no two alike."""
    folder.mkdir()
    noise = np.random.default_rng(rng.randrange(2**32))
    with (folder / "catalogue.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "image", "text", "number"])
        for row in range(rows):
            coarse = Image.fromarray(noise.integers(0, 256, (4, 4, 3), np.uint8))
            coarse.resize((96, 96)).save(folder / f"{row}.png")
            writer.writerow([f"row-{row}", f"{row}.png", f"a picture with the number {row}", row])
    return folder / "catalogue.csv"


def change_source(old: Path, more: Sequence[str] = ()) -> Path:
    """The same table without a quarter of its rows, another quarter changed, and more rows."""
    head, *lines = old.read_text().splitlines(keepends=True)
    quarter, new = len(lines) // 4, old.with_name("changed.csv")
    changed = [line.replace("a picture", "another picture") for line in lines[quarter : 2 * quarter]]
    new.write_text("".join([head, *changed, *lines[2 * quarter :], *more]))
    return new


def content(place: Path) -> Content:
    """All pairs of a memory, by id."""
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


def count(place: Path) -> int:
    """Pairs in a folder that may be in any state; -1: it is no memory, or is finished and has another name."""
    try:
        return len(content(place))
    except MemoryStoreError:
        return -1


def equal(left: Content, right: Content) -> bool:
    """Whether two memories hold the same."""
    return left.keys() == right.keys() and all(
        left[name][2] == right[name][2]
        and all(np.allclose(left[name][side], right[name][side], atol=TOLERANCE) for side in (0, 1))
        for name in left
    )


def _stamp(place: Path) -> int:
    """When something under a folder was last written; what is gone meanwhile is passed over."""
    newest = 0
    for folder, _, files in os.walk(place):  # unlike rglob, it passes over folders that are gone
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            with suppress(FileNotFoundError):
                newest = max(newest, path.stat().st_mtime_ns)
    return newest


def _in_use(source: Path, place: Path, alone: Content) -> Content:
    """A memory that is in use: the one of a part of the source."""
    part = source.with_name("part.csv")
    part.write_text("".join(source.read_text().splitlines(keepends=True)[:20]))
    end(memory_job("build", part, place))
    found = content(place)
    if not 0 < len(found) < len(alone):
        raise SystemExit(f"a memory of a part of the source holds {len(found)} pairs")
    return found


def left_alone(source: Path, place: Path, rows: int) -> tuple[Content, float]:
    """What a build that is left alone comes to, and its seconds after the memory was made."""
    process = memory_job("build", source, place)
    _wait(process, (place / "shard").exists)
    begun = time.monotonic()
    end(process)
    if len(alone := content(place)) != rows:
        raise SystemExit(f"the run left alone holds {len(alone)} of {rows} pairs")
    return alone, time.monotonic() - begun


def memory_job(job: str, source: Path, place: Path, *flags: object) -> Process:
    words = ("--memory", place, "--as", "shop", "--batch-size", BATCH, "--model", MODEL)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RECO_")}
    return subprocess.Popen(
        [sys.executable, "-m", "reco_plugin", "memory", job, *map(str, (source, *words, *flags))],
        env={**clean, "RECO_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _wait(process: Process, begun: Callable[[], bool]) -> None:
    while not begun() and process.poll() is None:
        time.sleep(0.005)


def kill(process: Process, after_s: float) -> None:
    try:
        process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def end(process: Process) -> None:
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"a job failed: {said.decode()}")
