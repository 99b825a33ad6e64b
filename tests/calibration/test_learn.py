"""Learning from a memory that is larger than what is learned from."""

from __future__ import annotations

import socket
from collections.abc import Iterator
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
from reco_plugin.calibration.lesson import Lesson
from reco_plugin.calibration.note import unfinished
from reco_plugin.errors import MemoryStoreError
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.types import MODALITIES, Records, Vectors

pytestmark = pytest.mark.slow

PAIRS, LEARNED = 800, 500


@pytest.fixture(params=["exact", "edge"])
def memory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    """Holds pairs of which every fifth caption is wrong."""
    monkeypatch.setattr(learning, "LEARNED_FROM", LEARNED)
    monkeypatch.setattr(learning, "_AT_ONCE", 100)
    image, text, wrong = world(PAIRS // 8, 8, wrong=0.2)
    ids = [f"{'wrong' if bad else 'right'} {row}" for row, bad in enumerate(wrong)]
    where = ":memory:" if request.param == "exact" else str(tmp_path / "memory")
    with closing(open_memory(where, Fingerprint("mini", "ab" * 32, D))) as store:
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
    assert steps.count(LEARNED) >= 2, "both fits, which take most of the time, count by themselves"
    ids = memory.ids_after(None, PAIRS)  # in the order in which they are drawn
    caption_scores = memory.caption_scores(ids)
    assert np.isfinite(caption_scores).all()
    reliability = state.reliability.of(caption_scores)
    bad = np.array([name.startswith("wrong") for name in ids])
    chosen = np.zeros(PAIRS, np.bool_)
    chosen[np.random.default_rng(0).choice(PAIRS, LEARNED, replace=False)] = True
    for part in (chosen, ~chosen):
        right, wrong = reliability[part & ~bad], reliability[part & bad]
        assert np.mean(right[:, None] > wrong[None]) > 0.95, "the chance that a right caption is trusted more"


def test_an_interrupted_learning_goes_on_with_the_pairs_without_caption_scores(
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
    before = memory.caption_scores(ids_of(memory))
    missing = np.isnan(before).any(axis=1)
    assert 0 < missing.sum() < PAIRS - LEARNED
    judged = list[int]()
    judge = Lesson.judge

    def count(self: Lesson, image: Vectors, text: Vectors) -> np.ndarray:
        judged.append(len(image))
        return judge(self, image, text)

    monkeypatch.setattr(Lesson, "judge", count)
    learn(memory, 10)
    assert sum(judged) == missing.sum()
    after = memory.caption_scores(ids_of(memory))
    assert np.isfinite(after).all()
    np.testing.assert_allclose(after[~missing], before[~missing], atol=1e-6)


def test_a_failed_reading_keeps_what_was_learned_and_judged(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    scroll = memory.scroll

    def fail(size: int, ids: list[str] | None = None) -> Iterator[Records]:
        for number, batch in enumerate(scroll(size, ids)):
            if ids is not None and len(ids) == PAIRS - LEARNED and number == 1:
                raise MemoryStoreError("cannot read the memory: its disk is gone")
            yield batch

    monkeypatch.setattr(memory, "scroll", fail)
    with pytest.raises(MemoryStoreError, match="its disk is gone"):
        learn(memory, 10)
    assert memory.header.calibration, "what was learned stays"
    assert memory.header.learning == {}
    assert memory.count_unjudged() == 200, "the first part, which was read, is judged and written"
    monkeypatch.setattr(memory, "scroll", scroll)
    learn(memory, 10)
    assert memory.count_unjudged() == 0


def test_where_what_was_learned_cannot_be_written_there_is_no_state(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryStoreError("no room")

    monkeypatch.setattr(memory, "set_caption_scores", fail)
    with pytest.raises(MemoryStoreError, match="no room"):
        learn(memory, 10)
    assert not memory.header.calibration


def test_how_many_captions_look_wrong_is_not_left_to_the_draw_of_shuffled_pairs() -> None:
    image, text, _ = world(100, 4, wrong=0.2)
    wrong = list[float]()
    for seed in range(5):
        measured = corpus.measure_corpus(image, text, k=10, rng=np.random.default_rng(seed), progress=int)
        assert measured is not None
        wrong.append(measured.learned.wrong)
    assert max(wrong) - min(wrong) < 0.04 * np.mean(wrong), wrong  # .08 where each is shuffled once


def test_large_arrays_are_made_in_parts_and_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = world(45, 8, wrong=0.2)
    states = []
    for numbers in (nearest.NUMBERS, 10_000):
        for module in (nearest, episodes):
            monkeypatch.setattr(module, "NUMBERS", numbers)
        monkeypatch.setattr(corpus, "_BLOCK", min(corpus._BLOCK, numbers // 100))
        learned = calibrate(x, y)
        assert learned is not None
        states.append(learned)
    np.testing.assert_allclose(states[0].caption_scores, states[1].caption_scores, atol=1e-4)
    for modality in MODALITIES:
        one, other = (state.state.sides[modality].gate for state in states)
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            np.testing.assert_allclose(one.phi, other.phi, atol=2e-3)


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
