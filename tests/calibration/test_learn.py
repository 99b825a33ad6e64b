"""Learning from a memory that is larger than what is learned from."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trust_worlds import D, world

from reco_plugin.calibration import corpus, episodes, nearest
from reco_plugin.calibration import learn as learning
from reco_plugin.calibration.calibrate import calibrate
from reco_plugin.calibration.learn import STEPS, learn
from reco_plugin.calibration.match import read_matches
from reco_plugin.calibration.note import unfinished
from reco_plugin.errors import MemoryStoreError
from reco_plugin.machine.blas import threads_at_most
from reco_plugin.memory import Fingerprint, Memory, open_memory, part_of_a_write
from reco_plugin.memory.checks import is_writing
from reco_plugin.types import MODALITIES, Records, Vectors

PAIRS, LEARNED = 800, 500


@pytest.fixture(params=["exact", "edge"])
def memory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    """Holds pairs of which every fifth caption is wrong."""
    monkeypatch.setattr(learning, "PAIRS_IN_RAM", LEARNED)
    monkeypatch.setattr(learning, "_BESIDE_AT_ONCE", 125)
    image, text, wrong = world(PAIRS // 8, 8, wrong=0.2)
    ids = [f"{'wrong' if bad else 'right'} {row}" for row, bad in enumerate(wrong)]
    where = ":memory:" if request.param == "exact" else str(tmp_path / "memory")
    with closing(open_memory(where, Fingerprint("mini", "ab" * 32, D), kind=request.param)) as store:
        store.upsert(Records(ids, image, text, [{}] * PAIRS))
        yield store


def ids_of(memory: Memory) -> list[str]:
    return [name for batch in memory.scroll() for name in batch.ids]


def test_pairs_that_were_not_drawn_are_judged_beside_those_that_were(memory: Memory) -> None:
    steps = list[int]()
    state = learn(memory, 10, progress=steps.append)
    assert state is not None
    assert state.pairs == PAIRS
    assert sum(steps) == STEPS * PAIRS
    assert steps.count(LEARNED) >= 3, "both fits and the self-check, which take most of the time, count by themselves"
    ids = memory.ids_after(None, PAIRS)  # in the order in which they are drawn
    witnesses = memory.witnesses(ids)
    assert np.isfinite(witnesses).all()
    reliability = state.reliability.of(witnesses)
    bad = np.array([name.startswith("wrong") for name in ids])
    chosen = np.zeros(PAIRS, np.bool_)
    chosen[np.random.default_rng(0).choice(PAIRS, LEARNED, replace=False)] = True
    for part in (chosen, ~chosen):
        right, wrong = reliability[part & ~bad], reliability[part & bad]
        assert np.mean(right[:, None] > wrong[None]) > 0.95, "the chance that a right caption is trusted more"


def test_an_interrupted_learning_goes_on_with_the_pairs_without_witnesses(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def interrupt(done: int) -> None:
        nonlocal steps
        steps += done
        if steps > STEPS * (LEARNED + 150):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(memory, 10, progress=interrupt)
    assert memory.header.calibration, "what was learned stays"
    before = memory.witnesses(ids_of(memory))
    missing = np.isnan(before).any(axis=1)
    assert 0 < missing.sum() < PAIRS - LEARNED
    judged = list[int]()
    witness = learning.Calibrated.witness

    def count(self: learning.Calibrated, image: Vectors, text: Vectors, progress: Any) -> np.ndarray:
        judged.append(len(image))
        return witness(self, image, text, progress)

    monkeypatch.setattr(learning.Calibrated, "witness", count)
    learn(memory, 10)
    assert sum(judged) == missing.sum()
    after = memory.witnesses(ids_of(memory))
    assert np.isfinite(after).all()
    np.testing.assert_allclose(after[~missing], before[~missing], atol=1e-6)


class Reads:
    """Which parts of other pairs were read: each is noted once it is asked for."""

    def __init__(self, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.more = list[list[str]](), threading.Condition()
        scroll = memory.scroll

        def read(*given: Any, ids: list[str] | None = None, **options: Any) -> Iterator[Records]:
            if ids is not None and len(ids) <= 125:
                with self.more:
                    self.begun.append(list(ids))
                    self.more.notify_all()
            return scroll(*given, ids=ids, **options)

        monkeypatch.setattr(memory, "scroll", read)

    def wait_for(self, parts: int) -> int:
        """How many parts were begun, as soon as there are so many."""
        with self.more:
            self.more.wait_for(lambda: len(self.begun) >= parts, timeout=60)
            return len(self.begun)


def test_the_next_pairs_are_read_while_others_are_judged_and_no_more_of_them(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, judged, begun = Reads(memory, monkeypatch), list[int](), list[int]()
    witness = learning.Calibrated.witness

    def work(self: learning.Calibrated, image: Vectors, *given: Any) -> np.ndarray:
        judged.append(len(image))
        begun.append(reads.wait_for(min(len(judged) + 1, 3)))
        return witness(self, image, *given)

    monkeypatch.setattr(learning.Calibrated, "witness", work)
    learn(memory, 10)
    assert judged == [125, 125, 50]
    assert begun == [2, 3, 3], "one part ahead"
    read = [name for ids in reads.begun for name in ids]
    assert len(read) == len(set(read)) == PAIRS - LEARNED
    assert memory.count_unjudged() == 0


def test_more_pairs_are_asked_for_while_some_are_judged_and_none_comes_twice(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "_IDS_AHEAD", 1)
    reads, asked, unjudged = Reads(memory, monkeypatch), list[int](), memory.unjudged

    def ask(most: int) -> list[str]:
        asked.append(most)
        return unjudged(most)

    monkeypatch.setattr(memory, "unjudged", ask)
    learn(memory, 10)
    assert asked == [125, 125 + 125, 50 + 125], "with those that are judged, and not written yet"
    read = [name for ids in reads.begun for name in ids]
    assert len(read) == len(set(read)) == PAIRS - LEARNED
    assert memory.count_unjudged() == 0


def test_what_fails_while_it_is_read_beside_is_what_is_raised(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, scroll = list[int](), memory.scroll

    def fail(*given: Any, ids: list[str] | None = None, **options: Any) -> Iterator[Records]:
        parts.append(len(ids or ()))
        if parts[-2:] == [125, 125]:
            raise MemoryStoreError("cannot read the memory: its disk is gone")
        return scroll(*given, ids=ids, **options)

    monkeypatch.setattr(memory, "scroll", fail)
    with pytest.raises(MemoryStoreError, match="its disk is gone"):
        learn(memory, 10)
    assert memory.header.calibration, "what was learned stays"
    assert memory.header.learning == {}
    assert memory.count_unjudged() == 175, "the first part, which was read, is judged and written"
    monkeypatch.setattr(memory, "scroll", scroll)
    learn(memory, 10)
    assert memory.count_unjudged() == 0


def test_those_that_were_learned_from_are_written_while_gates_are_fitted_and_before_the_state(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, begun, told, all_at_once = list[int](), threading.Event(), list[str](), list[int]()
    set_witnesses, set_calibration = memory.set_witnesses, memory.set_calibration

    def write(ids: list[str], witnesses: np.ndarray) -> None:
        begun.set()
        set_witnesses(ids, witnesses)
        written.append(len(ids))

    def store(calibration: dict[str, Any]) -> None:
        told.append(f"state after {min(sum(written), LEARNED)}")
        set_calibration(calibration)

    def progress(steps: int) -> None:
        all_at_once.append(steps)
        if steps == LEARNED and all_at_once.count(LEARNED) == 3:  # compared by image and by text; a side is fitted
            told.append("written beside" if begun.wait(60) else "not yet")

    monkeypatch.setattr(memory, "set_witnesses", write)
    monkeypatch.setattr(memory, "set_calibration", store)
    learn(memory, 10, progress=progress)
    assert told[:2] == ["written beside", f"state after {LEARNED}"]


def test_where_what_was_learned_cannot_be_written_there_is_no_state(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryStoreError("no room")

    monkeypatch.setattr(memory, "set_witnesses", fail)
    with pytest.raises(MemoryStoreError, match="no room"):
        learn(memory, 10)
    assert not memory.header.calibration


@pytest.mark.parametrize("memory", ["exact"], indirect=True)
def test_where_the_system_refuses_threads_the_caller_reads_and_writes(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("reco-"):
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert learn(memory, 10) is not None
    assert memory.count_unjudged() == 0
    monkeypatch.setattr(memory, "scroll", lambda **_: (_ for _ in ()).throw(MemoryStoreError("its disk is gone")))
    with pytest.raises(MemoryStoreError, match="its disk is gone"):
        learn(memory, 10)


@pytest.mark.parametrize("memory", ["exact"], indirect=True)
def test_interrupted_by_hand_it_writes_no_more_than_it_is_at(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended, written = threading.Event(), threading.Event(), list[int]()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            ended.set()
            super().shutdown(wait=wait)

    def write(ids: list[str], _: np.ndarray) -> None:
        begun.set()
        assert ended.wait(60)
        written.append(len(ids))

    def interrupted(*given: Any, **named: Any) -> None:
        calibrate(*given, **named)
        assert begun.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(learning, "calibrate", interrupted)
    monkeypatch.setattr(learning, "_AT_ONCE", 100)
    monkeypatch.setattr(memory, "set_witnesses", write)
    with pytest.raises(KeyboardInterrupt):
        learn(memory, 10)
    assert written == [100]
    assert memory.header.learning == {}


def test_what_is_read_and_written_beside_belongs_to_the_write_that_learns(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, threads = set[bool](), set[int]()
    set_witnesses, unjudged = memory.set_witnesses, memory.unjudged

    def note() -> None:
        waits.add(is_writing())
        threads.add(threading.get_ident())

    monkeypatch.setattr(memory, "set_witnesses", lambda *given: note() or set_witnesses(*given))
    monkeypatch.setattr(memory, "unjudged", lambda most: note() or unjudged(most))
    with part_of_a_write():
        learn(memory, 10)
    assert waits == {True}, "a server that restarts is waited for"
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_no_more_pairs_are_drawn_than_the_free_ram_holds(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(learning, "_LEAST", 350)
    drawn = list[int]()
    calibrate = learning.calibrate

    def count(image: Vectors, text: Vectors, **options: Any) -> Any:
        drawn.append(len(image))
        return calibrate(image, text, **options)

    monkeypatch.setattr(learning, "calibrate", count)
    always = (learning._PRODUCTS * threads_at_most() + learning._MOMENTS * D) / learning._SHARE
    for free in (always, always + 2 * 400 * (4 * D * 3 + 1_200), 2**40, None):
        monkeypatch.setattr(learning, "free_bytes", lambda free=free: free)
        learn(memory, 10)
        assert memory.count_unjudged() == 0
    assert drawn == [350, 400, LEARNED, LEARNED]
    assert "learning from 400 of 800 pairs, drawn at random, as the free RAM of" in caplog.text
    assert f"learning from {LEARNED} of 800 pairs, drawn at random\n" in caplog.text


def test_how_many_captions_look_wrong_is_not_left_to_the_draw_of_shuffled_pairs() -> None:
    image, text, _ = world(100, 4, wrong=0.2)
    wrong = list[float]()
    for seed in range(5):
        measured = corpus.measure_corpus(image, text, k=10, rng=np.random.default_rng(seed), progress=int)
        assert measured is not None
        wrong.append(measured.learned.wrong)
    assert max(wrong) - min(wrong) < 0.04 * np.mean(wrong), wrong  # .08 where each is shuffled once


def test_large_arrays_are_made_in_parts_and_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for x, y, _ in (world(45, 8, wrong=0.2), world(310, 1, seed=1)):
        states = []
        for numbers in (nearest.NUMBERS, 10_000):
            for module in (nearest, episodes):
                monkeypatch.setattr(module, "NUMBERS", numbers)
            monkeypatch.setattr(corpus, "_BLOCK", min(corpus._BLOCK, numbers // 100))
            learned = calibrate(x, y)
            assert learned is not None
            states.append(learned)
        np.testing.assert_allclose(states[0].witnesses, states[1].witnesses, atol=1e-4)
        for modality in MODALITIES:
            for one, other in zip(*(state.state.sides[modality].gates.items() for state in states), strict=True):
                np.testing.assert_allclose(one[1].phi, other[1].phi, atol=1e-3)


def test_the_field_of_the_things_stays_known_where_asking_is_cut_off(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.set_calibration({"match": {"group": "product"}})

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryStoreError("the server is gone")

    monkeypatch.setattr(learning, "ask_own", fail)
    assert learn(memory, 10) is not None
    assert memory.header.calibration["match"] == {"group": "product"}
    assert read_matches(memory.header.calibration) is None


def test_a_note_stands_while_it_is_learned_and_goes_also_where_that_fails(memory: Memory) -> None:
    seen = list[dict[str, Any]]()
    learn(memory, 10, progress=lambda _: seen.append(memory.header.learning))
    assert {(note["pairs"], note["host"]) for note in seen} == {(PAIRS, socket.gethostname())}
    assert unfinished(replace(memory.header, learning=seen[0])) == "", "of this process, which lives"
    assert memory.header.learning == {}

    def fail(_: int) -> None:
        raise MemoryStoreError("no room")

    with pytest.raises(MemoryStoreError, match="no room"):
        learn(memory, 10, progress=fail)
    assert memory.header.learning == {}


def test_what_is_known_of_matches_counts_until_the_pairs_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    image, text, _ = world(100, 4)
    store = open_memory(":memory:", Fingerprint("mini", "ab" * 32, D))
    store.upsert(Records([f"{row:04d}" for row in range(400)], image, text, [{}] * 400))
    learn(store, 10)
    known = store.header.calibration["match"]
    seen: list[Any] = []
    monkeypatch.setattr(learning, "ask_own", lambda *_, **__: seen.append(store.header.calibration["match"]))
    learn(store, 10)
    assert seen == [known]
    assert "match" not in store.header.calibration, "too few could ask: nothing of before is left"
