"""A slow memory server, and callers that wait for their turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::reco_plugin.retrieval.guard.DegradedWarning")]
Build = Callable[..., Any]


def test_a_slow_server_that_answers_within_its_limit_stays_in_use(rig: Build) -> None:
    """Two searches are on their way at once: half of the callers wait for another search before their own is sent."""
    one = rig(remote=True, memory_timeout_s=2.0, breaker_failures=1)
    one.memory.trouble = lambda: time.sleep(1.2)
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(one.ask) for _ in range(4)]
    assert [answer.result().degraded for answer in answers] == [None] * 4
    assert one.reco.circuit.opened == 0


def test_a_caller_that_waits_too_long_for_its_turn_is_late_and_the_server_is_not(rig: Build, hanging: Any) -> None:
    one = rig(remote=True, memory_timeout_s=0.2, breaker_failures=9)
    one.reco._refiner.memory._deadline.seconds = 60.0  # of a search, so that only the wait has a limit
    one.memory.trouble = hanging
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(one.ask) for _ in range(2)]
        for _ in running:
            assert hanging.waiting.acquire(timeout=60)
        assert threads.submit(one.ask).result().degraded == "memory_timeout"
        hanging.release()
    assert [answer.result().degraded for answer in running] == [None, None]
    assert one.reco.circuit.failures == 0
