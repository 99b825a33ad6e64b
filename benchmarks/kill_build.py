"""Kill `reco memory build` with SIGKILL at random points, run it again, and compare with a run that was left alone.

::

    python -m benchmarks.kill_build --rounds 20

A round builds into a fresh folder, in every second round as a version beside one in use (``--swap``). The process is
killed at a random time between the making of its memory and the end that a run left alone needs; then it is killed once
more, or run to its end. Ids, payloads and vectors must be those of the run left alone; a version in use must stay as it
was until the swap.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reco_plugin.errors import MemoryStoreError
from reco_plugin.memory import open_memory

MODEL = Path(__file__).resolve().parents[1] / "triton_models"
ROWS, BATCH = 600, 4
TOLERANCE = 2e-6
"""Of a vector's values: batches of other sizes are rounded otherwise."""
Content = dict[str, tuple[Any, Any, Any]]


@dataclass(frozen=True)
class Round:
    """One build that was killed.

    Attributes:
        swap: as a version beside one in use.
        held: pairs in the folder after each kill.
        equal: whether the memory was that of a run left alone in the end, and the one in use untouched before.
    """

    swap: bool
    held: tuple[int, ...]
    equal: bool


def main() -> None:
    """Print a line per round; exit code 1 when one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds = kill_rounds(Path(folder), told.rounds, random.Random(told.seed), lambda done: print(done, flush=True))
    kills = [held for each in rounds for held in each.held]
    between = sum(0 < held < ROWS for held in kills)
    print(
        f"{len(kills)} kills, {between} of them with a part written; {sum(r.equal for r in rounds)}/{len(rounds)} equal"
    )
    raise SystemExit(not all(each.equal for each in rounds))


def kill_rounds(
    work: Path, rounds: int, rng: random.Random, say: Callable[[Round], object], rows: int = ROWS
) -> list[Round]:
    """Build, kill and compare as often as wanted, in an empty folder."""
    source = make_source(work / "source", rng, rows)
    seconds = _timed(source, work / "alone")
    alone = content(work / "alone")
    if len(alone) != rows:
        raise SystemExit(f"the run left alone holds {len(alone)} of {rows} pairs")
    done = []
    for number in range(rounds):
        done.append(_round(source, work / f"round-{number}", seconds, rng, alone, swap=number % 2 == 1))
        say(done[-1])
    return done


def make_source(folder: Path, rng: random.Random, rows: int) -> Path:
    """A table of small noisy images, no two alike."""
    from PIL import Image

    folder.mkdir()
    noise = np.random.default_rng(rng.randrange(2**32))
    with (folder / "catalogue.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "text", "number"])
        for row in range(rows):
            coarse = Image.fromarray(noise.integers(0, 256, (4, 4, 3), np.uint8))
            coarse.resize((96, 96)).save(folder / f"{row}.png")
            writer.writerow([f"row-{row}", f"{row}.png", f"a picture with the number {row}", row])
    return folder / "catalogue.csv"


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


def equal(left: Content, right: Content) -> bool:
    """Whether two memories hold the same."""
    return left.keys() == right.keys() and all(
        left[name][2] == right[name][2]
        and all(np.allclose(left[name][side], right[name][side], atol=TOLERANCE) for side in (0, 1))
        for name in left
    )


def _round(source: Path, place: Path, seconds: float, rng: random.Random, alone: Content, *, swap: bool) -> Round:
    before = _in_use(source, place, alone) if swap else None
    building = place.with_name(f"{place.name}--v2.partial") if swap else place
    held, untouched = list[int](), True
    for _ in range(rng.choice((1, 1, 2))):
        process = _start(source, place, swap=swap)
        _wait_for(building, process)
        try:
            process.communicate(timeout=rng.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        held.append(_count(building))
        if before is not None and not place.is_symlink():
            untouched &= equal(content(place), before)
    _end(_start(source, place, swap=swap))
    same = equal(content(place), alone)
    for path in place.parent.glob(f"{place.name}*"):
        path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
    return Round(swap, tuple(held), same and untouched)


def _in_use(source: Path, place: Path, alone: Content) -> Content:
    """A memory that is in use: the one of a part of the source."""
    part = source.with_name("part.csv")
    part.write_text("".join(source.read_text().splitlines(keepends=True)[:20]))
    _end(_start(part, place, swap=False))
    found = content(place)
    if not 0 < len(found) < len(alone):
        raise SystemExit(f"a memory of a part of the source holds {len(found)} pairs")
    return found


def _timed(source: Path, place: Path) -> float:
    """Seconds from the making of the memory to the end of a build that is left alone."""
    process = _start(source, place, swap=False)
    _wait_for(place, process)
    begun = time.monotonic()
    _end(process)
    return time.monotonic() - begun


def _start(source: Path, place: Path, *, swap: bool) -> subprocess.Popen[bytes]:
    command = ["memory", "build", source, "--memory", place, "--as", "shop", "--batch-size", BATCH, "--model", MODEL]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RECO_")}
    return subprocess.Popen(
        [sys.executable, "-m", "reco_plugin", *map(str, command), *(["--swap"] if swap else [])],
        env={**clean, "RECO_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"build failed: {said.decode()}")


def _wait_for(folder: Path, process: subprocess.Popen[bytes]) -> None:
    while not (folder / "shard").exists() and process.poll() is None:
        time.sleep(0.005)


def _count(place: Path) -> int:
    """Pairs in a folder that may be in any state; -1: it is no memory, or is finished and has another name."""
    try:
        return len(content(place))
    except MemoryStoreError:
        return -1


if __name__ == "__main__":
    main()
