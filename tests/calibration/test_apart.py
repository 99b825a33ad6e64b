"""Learning in a process of its own: the same bits, the same errors, and nothing left behind."""

from __future__ import annotations

import io
import logging
import os
import pickle
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
from small_records import said_record
from threadpoolctl import threadpool_limits
from trust_worlds import D, world

from reco_plugin.calibration import apart
from reco_plugin.calibration.apart import learn_apart
from reco_plugin.calibration.learn import STEPS, learn
from reco_plugin.calibration.match import MatchState
from reco_plugin.calibration.note import unfinished
from reco_plugin.errors import LearningDied, MemoryStoreError, MissingExtra
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.types import Records

FEW = 40  # pairs: no gate is fitted to them
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def filled(where: str, kind: Any, classes: int, per: int) -> Memory:
    image, text, _ = world(classes, per, wrong=0.1)
    store = open_memory(where, Fingerprint("mini", "ab" * 32, D), kind=kind)
    store.upsert(Records([f"{row}" for row in range(len(image))], image, text, [{}] * len(image)))
    return store


@pytest.fixture
def few() -> Iterator[Memory]:
    with closing(filled(":memory:", "exact", FEW // 4, 4)) as store:
        yield store


@pytest.mark.parametrize("kind", ["edge", pytest.param("exact", marks=pytest.mark.slow)])
def test_it_learns_the_same_bits_as_in_place(kind: str, tmp_path: Path) -> None:
    learned, asked = [], []
    for number, learns in enumerate((learn, learn_apart)):
        with closing(filled(str(tmp_path / f"{number}"), kind, 80, 4)) as store:
            steps = list[int]()
            with threadpool_limits(2, "blas"):  # another process has one
                state = learns(store, 10, progress=steps.append)
            assert state is not None
            assert (sum(steps), state.pairs, store.header.learning) == (320 * STEPS, 320, {})
            calibration = dict(store.header.calibration)
            asked.append(MatchState.from_json(calibration.pop("match")))
            learned.append((calibration, store.witnesses(store.ids_after(None, 320)).tobytes()))
    assert learned[0] == learned[1]
    for mine, its in zip(*(one.asked("text", "refined") for one in asked), strict=True):
        np.testing.assert_allclose(mine.present, its.present, atol=1e-6)  # sums of arrays that lie elsewhere in RAM
        np.testing.assert_array_equal(mine.draw, its.draw)


def test_what_dies_leaves_its_note_and_says_what_to_do(few: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_CODE", DIES)
    monkeypatch.setattr("reco_plugin.calibration.learn.ENOUGH", FEW)
    with pytest.raises(LearningDied, match=r"was killed by signal 9\. It is not begun again .*reco memory calibrate"):
        learn_apart(few, 10)
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
        learn_apart(few, 10)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_the_other_process_is_told_nothing_of_what_people_said(few: Memory) -> None:
    few.change_said([said_record(1)], ())
    done, header = apart._Answers(few).answer("header", ())
    assert (done, header.said, header.fingerprint) == (True, {}, few.header.fingerprint)
    assert list(few.header.said) == [said_record(1)["id"]]


def test_pairs_and_payloads_are_read_in_turns(few: Memory) -> None:
    answers = apart._Answers(few)
    ids = few.ids_after(None, FEW)
    assert answers.answer("scroll", [ids]) == (True, None)
    (_, first), _ = answers.answer("page", ["pairs"]), answers.answer("payloads", [])
    assert answers.answer("page", ["payloads"])[1][0] in ids
    second = answers.answer("page", ["pairs"])[1]
    assert [*first[0], *second[0]] == ids
    assert answers.answer("page", ["pairs"]) == (True, None)


def test_an_error_that_cannot_be_sent_is_told_in_words(few: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(*_: Any) -> None:
        raise MissingExtra("faiss", "faiss", "searching")

    monkeypatch.setattr(few, "flush", lacks)
    done, error = apart._Answers(few).answer("flush", ())
    assert not done
    assert "searching needs faiss" in str(pickle.loads(pickle.dumps(error)))


def test_nobody_waits_for_what_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    sent = pickle.dumps(MissingExtra("faiss", "faiss", "searching"))  # its arguments are not those of its message
    line = apart._Pipes(io.BytesIO(sent), io.BytesIO())
    assert line.take() == ("closed",)
    assert "cannot be read: TypeError" in caplog.text


@pytest.mark.parametrize("where", ["set_calibration", "progress"])
def test_an_error_of_this_process_ends_the_other_one(where: str, few: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[subprocess.Popen[bytes]]()
    monkeypatch.setattr(apart.subprocess, "Popen", noting(subprocess.Popen, started))

    def fail(*_: Any) -> None:
        raise MemoryStoreError("no room")

    monkeypatch.setattr(few, "set_calibration", fail)
    with pytest.raises(MemoryStoreError, match="no room"):
        learn_apart(few, 10, progress=fail if where == "progress" else int)
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
        assert learn_apart(few, 10) is not None
    assert "no process of its own can be started to learn" in caplog.text
    assert ("/opt/shop/search-service" in caplog.text) == (why == "frozen")
    assert np.isfinite(few.witnesses(few.ids_after(None, FEW))).all()


STARTS = """
import sys, time
from reco_plugin.calibration import apart
apart._CODE = (
    "import os, sys, time; sys.path[:] = {path!r}; from reco_plugin.calibration import apart;"
    "apart.learn_noted = lambda *_: (print(os.getpid(), file=sys.stderr, flush=True), time.sleep(60));"
    "apart.work()"
)
from test_apart import filled
apart.learn_apart(filled(":memory:", "exact", 10, 4), 10)
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
