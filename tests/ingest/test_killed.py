"""Builds and syncs that are killed, run again, and compared with runs left alone."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import assert_equal, held

pytestmark = pytest.mark.slow
ROWS = 160


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A table of small noisy images, no two alike."""
    noise, lines = np.random.default_rng(7), ["id,image,text"]
    for row in range(ROWS):
        Image.fromarray(noise.integers(0, 256, (4, 4, 3), np.uint8)).resize((96, 96)).save(tmp_path / f"{row}.png")
        lines.append(f"row-{row},{row}.png,a picture with the number {row}")
    (tmp_path / "catalogue.csv").write_text("\n".join(lines))
    return tmp_path / "catalogue.csv"


def start(job: str, source: Path, place: Path, model: Path, *flags: str) -> subprocess.Popen[bytes]:
    words = ["--memory", place, "--as", "shop", "--batch-size", "4", "--model", model, *flags]
    command = [sys.executable, "-m", "reco_plugin", "memory", job, source, *words]
    return subprocess.Popen(command, env={**os.environ, "RECO_THREADS": "1"}, stderr=subprocess.DEVNULL)


def run(*told: Any) -> float:
    """Run a job to its end; its seconds."""
    begun = time.monotonic()
    assert start(*told).wait() == 0
    return time.monotonic() - begun


def killed(seconds: float, *told: Any) -> Iterator[bool]:
    """Kill a job two times, at random moments of its time, then run it to its end; yields whether it was killed."""
    moments = random.Random(7)
    for _ in range(2):
        process = start(*told)
        time.sleep(moments.uniform(0.3, 0.9) * seconds)
        process.kill()
        assert process.wait() in (-9, 0)
        yield process.returncode != 0  # it may have been quicker than the run that was timed
    run(*told)


def test_a_build_beside_a_memory_in_use_leaves_that_alone_until_it_ends(
    source: Path, tmp_path: Path, model: Path
) -> None:
    place, alone, part = tmp_path / "memory", tmp_path / "alone", tmp_path / "part.csv"
    seconds = run("build", source, alone, model)
    part.write_text("\n".join(source.read_text().splitlines()[:20]))
    run("build", part, place, model)
    before = held(place, model)
    for cut_short in killed(seconds, "build", source, place, model, "--swap"):
        if cut_short:
            assert_equal(held(place, model), before)
    assert_equal(held(place, model), held(alone, model))


def test_a_killed_sync_goes_on_to_the_same_memory(source: Path, tmp_path: Path, model: Path) -> None:
    place, alone, changed = tmp_path / "memory", tmp_path / "alone", tmp_path / "changed.csv"
    run("build", source, place, model)
    shutil.copytree(place, alone)
    head, *rows = source.read_text().splitlines()
    replaced = [row.replace("a picture", "another picture") for row in rows[40:120]]
    changed.write_text("\n".join([head, *replaced, *rows[120:], "new,1.png,a new picture"]))
    sync = ("sync", changed, place, model, "--max-delete", "1", "--max-replace", "1")
    seconds = run("sync", changed, alone, *sync[3:])
    assert len(list(killed(seconds, *sync))) == 2
    assert_equal(held(place, model), held(alone, model))
