"""What is measured while a service learns: which process learns, and that it stands still in turn."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.learning import Turns, learner_of, stopped
from benchmarks.service import Service

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    code = "import time; time.sleep(60)  # calibration.apart"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        yield process
        process.kill()


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_process_that_learns_is_found_among_the_children(child):
    parent = Service("http://localhost", os.getpid())
    end = time.monotonic() + 30
    while (found := learner_of(parent)) is None:  # not yet another program
        assert time.monotonic() < end
    assert found == child.pid
    child.kill()
    child.wait()
    assert learner_of(parent) is None


def test_it_stands_still_in_the_block(child):
    with stopped(child.pid):
        end = time.monotonic() + 30
        while state_of(child.pid) != "T":
            assert time.monotonic() < end
    while state_of(child.pid) == "T":
        assert time.monotonic() < end


def test_the_ratio_is_that_of_the_medians():
    turns = Turns(Service("http://localhost", 0), 0, seconds=2.0, callers=1)
    turns.answers = {False: [100.0, 101.0, 10.0], True: [90.0, 95.0]}
    turns.live_ms = {False: [1.0, 3.0], True: [5.0]}
    turns.cpu_s = 1.0
    assert turns.row("text")[:5] == ["text", "100", "92", "0.93", "2"]
    assert turns.row("text")[-1] == "0.25"
