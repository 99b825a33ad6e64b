"""Learning from a memory that is larger than what is learned from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trust_worlds import D, world

from reco_plugin.errors import MemoryStoreError
from reco_plugin.learning import calibrate as calibrating
from reco_plugin.learning import fit, nearest, plda
from reco_plugin.learning import learn as learning
from reco_plugin.learning.calibrate import calibrate
from reco_plugin.learning.learn import STEPS, learn, steps_of
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.types import Records

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


def test_a_large_memory_is_learned_from_drawn_pairs(memory: Memory) -> None:
    steps = list[int]()
    state = learn(memory, 10, progress=steps.append)
    assert state is not None
    assert state.pairs == PAIRS
    assert sum(steps) == steps_of(PAIRS) < steps_of(PAIRS - 1) + STEPS
    assert steps.count(LEARNED) >= 2, "both fits, which take most of the time, count by themselves"


def test_where_what_was_learned_cannot_be_written_there_is_no_state(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryStoreError("no room")

    monkeypatch.setattr(memory, "set_calibration", fail)
    with pytest.raises(MemoryStoreError, match="no room"):
        learn(memory, 10)
    assert not memory.header.calibration


def test_large_arrays_are_made_in_parts_and_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = world(45, 8, wrong=0.2)
    states = []
    for small in (False, True):
        if small:
            monkeypatch.setattr(nearest, "NUMBERS", 10_000)
            for module in (fit, plda, calibrating):
                monkeypatch.setattr(module, "_BLOCK", 7)
        learned = calibrate(x, y)
        assert learned is not None
        states.append(learned.state)
    one, other = ([state.text.kappa, state.trust.temper, state.image.kappa, state.image.temper] for state in states)
    np.testing.assert_allclose(one, other, rtol=5e-3)  # float32 sums in another order
