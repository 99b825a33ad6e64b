"""A memory on a server that is killed and started again while threads go on asking, by both transports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_stand_in import StandIn, serving

from reco_plugin import Reco
from reco_plugin.artifact import Artifact
from reco_plugin.errors import FingerprintMismatch, MemoryUnavailable
from reco_plugin.memory import Memory, open_memory
from reco_plugin.memory.options import MemoryOptions
from reco_plugin.types import Fingerprint

pytestmark = pytest.mark.filterwarnings("ignore::reco_plugin.guard.DegradedWarning")
Build = Callable[..., Any]
PATIENT = {"memory_timeout_s": 60, "breaker_failures": 3}


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving() as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, server: StandIn) -> str:
    return server.url(request.param)


@pytest.fixture
def store(url: str, model: Path) -> Memory:
    options = MemoryOptions(transport="rest" if url.startswith("http:") else "grpc")
    return open_memory(url, Artifact.load(model).manifest.fingerprint, options=options)


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
    assert set(metrics["degraded"]) == {"memory_error", "memory_circuit_open"}
    assert metrics["circuits"]["memory"]["opened"] >= 1


def test_killed_with_errors_wanted(rig: Build, server: StandIn, store: Memory, url: str) -> None:
    one = rig(store, on_memory_failure="fail", **PATIENT)
    server.stop()
    with pytest.raises(MemoryUnavailable, match=f"cannot search the memory at '{url}'"):
        one.ask()
    server.start()


def test_of_another_encoder_is_refused_when_opened(model: Path, server: StandIn, url: str) -> None:
    open_memory(url, Fingerprint("other/clip", "cd" * 32, 128), collection="reco").close()
    with pytest.raises(FingerprintMismatch, match="other/clip"):
        Reco.open(model, memory=url, on_memory_failure="degrade")
