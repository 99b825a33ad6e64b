"""When a memory learns, and what those hear who asked it to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from trust_worlds import D

from reco_plugin.calibration.learner import Learner
from reco_plugin.errors import MemoryUnavailable
from reco_plugin.memory import Fingerprint, open_memory


def test_a_run_that_was_asked_for_ends_also_where_the_memory_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_memory(":memory:", Fingerprint("mini", "ab" * 32, D))
    memory: Any = SimpleNamespace(store=store, searches=store, calibration=None)
    learner = Learner(memory, 10, int)

    def away() -> int:
        raise MemoryUnavailable("nobody answers")

    monkeypatch.setattr(store, "count", away)
    for run in (1, 2):
        with pytest.warns(UserWarning, match="nobody answers"):
            learner.ask()
            if (thread := learner._thread) is not None:
                thread.join()
        assert (learner.runs.asked, learner.runs.ended, learner.runs.failed) == (run, run, "nobody answers")
