"""A memory on a server that is killed and started again while threads go on asking, by both transports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_service import wait_until
from qdrant_stand_in import StandIn, serving

from reco_plugin import recovery
from reco_plugin.artifact import Artifact
from reco_plugin.guard import Outage
from reco_plugin.memory import Memory, open_memory

pytestmark = pytest.mark.filterwarnings("ignore::reco_plugin.guard.DegradedWarning")
Build = Callable[..., Any]
PATIENT = {"memory_timeout_s": 60, "breaker_failures": 3}


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving() as running:
        yield running


@pytest.fixture
def store(request: pytest.FixtureRequest, server: StandIn, model: Path) -> Memory:
    return open_memory(server.url(getattr(request, "param", "grpc")), Artifact.load(model).manifest.fingerprint)


@pytest.mark.parametrize("store", ["http", "grpc"], indirect=True)
def test_killed_and_started_again_under_load(rig: Build, traffic: Build, server: StandIn, store: Memory) -> None:
    one = rig(store, **PATIENT)

    def recovered() -> bool:
        one.clock.now += 10.0  # a client may need some tries until it has found the server again
        return bool(one.reco.circuits["memory"].state == "closed")

    with traffic(one) as load:
        load.until(None)
        server.stop()
        load.until("memory_circuit_open")
        server.start()
        load.until(None, recovered)
    metrics = one.reco.metrics()
    assert {reason for reason, count in metrics["degraded"].items() if count} == {"memory_error", "memory_circuit_open"}
    assert metrics["circuits"]["memory"]["opened"] >= 1


def test_what_is_back_is_found_without_a_caller(
    rig: Build, server: StandIn, store: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "EVERY_S", 0.01)
    one = rig(store, remote=True, **PATIENT)
    server.stop()
    while one.ask().degraded != "memory_circuit_open":
        pass
    asked = one.memory.asked
    wait_until(lambda: one.reco._refiner.memory.recovery.running)
    assert one.ask().degraded == "memory_circuit_open"
    assert one.memory.asked == asked  # the clock stands still: no caller probes
    with (
        pytest.raises(Outage, match=r"is asked again every 0\.5 s until it answers"),
        one.reco._guards._memory.attempt(),
    ):
        pass
    server.start()
    wait_until(lambda: one.reco.circuits["memory"].state == "closed")
    assert one.ask().degraded is None
    wait_until(lambda: not one.reco._refiner.memory.recovery.running)


def test_who_is_closed_looks_for_nothing(rig: Build, server: StandIn, store: Memory) -> None:
    one = rig(store, remote=True, **PATIENT)
    server.stop()
    while one.ask().degraded != "memory_circuit_open":
        pass
    one.reco.close()
    wait_until(lambda: not one.reco._refiner.memory.recovery.running)
    server.start()
