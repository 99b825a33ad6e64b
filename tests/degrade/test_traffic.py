"""A memory that is killed and restarted while threads go on asking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::reco_plugin.guard.DegradedWarning")
Build = Callable[..., Any]
THREADS = 6


def test_killed_and_restarted_under_load(rig: Build, traffic: Build) -> None:
    one = rig(remote=True, memory_timeout_s=60, breaker_failures=3)
    with traffic(one, THREADS) as load:
        for outage in (1, 3):
            load.until(None, closed(one))
            one.memory.trouble = one.dead
            load.until("memory_circuit_open", opened(one, outage))
            one.clock.now += 10.0  # a probe finds it still dead
            load.until("memory_circuit_open", opened(one, outage + 1))
            one.memory.trouble = None
            one.clock.now += 10.0
        load.until(None, closed(one))
    assert one.reco.metrics()["degraded"]["memory_error"] >= 2 * 3 + 2


def test_a_memory_that_hangs_holds_nobody_up(rig: Build, traffic: Build, hanging: Any) -> None:
    one = rig(remote=True, memory_timeout_s=1.0, breaker_failures=THREADS)
    with traffic(one, THREADS) as load:
        load.until(None)
        one.memory.trouble = hanging
        load.until("memory_circuit_open", opened(one, 1))
        hanging.release()
        one.memory.trouble = None
        load.until(None, closed_by_a_probe(one))
    assert one.reco.metrics()["degraded"]["memory_timeout"] >= THREADS


def opened(rig: Any, times: int) -> Callable[[], bool]:
    return lambda: bool(rig.reco.circuits["memory"].opened == times)


def closed(rig: Any) -> Callable[[], bool]:
    return lambda: bool(rig.reco.circuits["memory"].state == "closed")


def closed_by_a_probe(rig: Any) -> Callable[[], bool]:
    """Probes until it is closed: on a busy machine, one may take longer than the memory is waited for."""

    def look() -> bool:
        rig.clock.now += 10.0
        return closed(rig)()

    return look
