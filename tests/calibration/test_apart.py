"""Learning in a process of its own: the same bits, the same errors, and nothing left behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trust_worlds import D, world

from reco_plugin.calibration import apart
from reco_plugin.calibration.learn import STEPS, learn
from reco_plugin.calibration.note import unfinished
from reco_plugin.errors import LearningDied, MemoryStoreError
from reco_plugin.extras import LEARNED
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.types import Records

FEW = 40  # pairs: no gate is fitted to them
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def filled(where: str, classes: int, per: int) -> Memory:
    image, text, _ = world(classes, per, wrong=0.1)
    store = open_memory(where, Fingerprint("mini", "ab" * 32, D))
    store.upsert(Records([f"{row}" for row in range(len(image))], image, text, [{}] * len(image)))
    return store


@pytest.fixture
def few() -> Iterator[Memory]:
    with closing(filled(":memory:", FEW // 4, 4)) as store:
        yield store


def test_it_learns_the_same_bits_as_in_place(tmp_path: Path) -> None:
    learned, asked = [], []
    for number, is_apart in enumerate((False, True)):
        with closing(filled(str(tmp_path / f"{number}"), 80, 4)) as store:
            steps = list[int]()
            state = learn(store, 10, extras=LEARNED, apart=is_apart, progress=steps.append)
            assert state is not None
            assert (sum(steps), state.pairs, store.header.learning) == (320 * STEPS, 320, {})
            calibration = dict(store.header.calibration)
            asked.append(calibration.pop("confidence")["text"]["refined"])
            learned.append(calibration)
    assert learned[0] == learned[1]
    for name in ("weights", "cuts"):  # sums of arrays that lie elsewhere in RAM
        np.testing.assert_allclose(asked[0][name], asked[1][name], rtol=1e-3)


def test_what_dies_leaves_its_note_and_says_what_to_do(few: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_CODE", DIES)
    monkeypatch.setattr("reco_plugin.calibration.learn.ENOUGH", FEW)
    with pytest.raises(LearningDied, match=r"was killed by signal 9\. .*reco memory build --relearn"):
        learn(few, 10, apart=True)
    assert f"from {FEW} pairs began" in unfinished(few.header)
    assert learn(few, 10) is not None, "by hand"
    assert unfinished(few.header) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_what_ends_a_group_of_processes_is_for_the_one_that_began_it(
    few: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = "import os, signal, sys; [os.kill(os.getpid(), s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]"
    monkeypatch.setattr(apart, "_CODE", f"{sends}; sys.exit(7)")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(LearningDied, match="exited with 7"):
        learn(few, 10, apart=True)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("where", ["set_calibration", "progress"])
def test_an_error_of_this_process_ends_the_other_one(where: str, few: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[subprocess.Popen[bytes]]()
    monkeypatch.setattr(apart.subprocess, "Popen", noting(subprocess.Popen, started))

    def fail(*_: Any) -> None:
        raise MemoryStoreError("no room")

    monkeypatch.setattr(few, "set_calibration", fail)
    with pytest.raises(MemoryStoreError, match="no room"):
        learn(few, 10, apart=True, progress=fail if where == "progress" else int)
    [process] = started
    assert process.poll() is not None
    assert few.header.learning == {}


def noting(make: Callable[..., Any], started: list[Any]) -> Callable[..., Any]:
    def made(*given: Any, **how: Any) -> Any:
        started.append(make(*given, **how))
        return started[-1]

    return made


@pytest.mark.parametrize("why", ["no room", "frozen"])
def test_without_another_process_it_is_learned_in_this_one(
    why: str, few: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(apart.subprocess, "Popen", full)
    if why == "frozen":
        monkeypatch.setattr(sys, "executable", "/opt/shop/search-service")
    with caplog.at_level(logging.WARNING):
        assert learn(few, 10, apart=True) is not None
    assert "no process of its own can be started to learn" in caplog.text
    assert ("/opt/shop/search-service" in caplog.text) == (why == "frozen")
    assert few.header.calibration


STARTS = """
import sys, time
from reco_plugin.calibration import apart
from reco_plugin.calibration.learn import learn
apart._CODE = (
    "import os, sys, time; sys.path[:] = {path!r}; from reco_plugin.calibration import apart;"
    "apart.Lesson.learn = lambda *_, **__: (print(os.getpid(), file=sys.stderr, flush=True), time.sleep(60));"
    "apart.work()"
)
from test_apart import filled
learn(filled(":memory:", 10, 4), 10, apart=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="asks for a process by its number")
def test_it_ends_with_the_process_that_began_it() -> None:
    path = [str(Path(__file__).parent), *sys.path]
    code = f"import sys; sys.path[:] = {path!r}\n{STARTS}"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as began:
        assert began.stderr is not None
        learns = int(began.stderr.readline())
        os.kill(began.pid, signal.SIGKILL)
        began.wait()
        end = time.monotonic() + 60
        while is_running(learns):
            assert time.monotonic() < end
            time.sleep(0.02)


def is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{number}/stat").exists() or ") Z " not in Path(f"/proc/{number}/stat").read_text()
