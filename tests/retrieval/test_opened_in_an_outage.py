"""A Reco that is opened while the memory's server is down: frozen vectors until it is up or turns out wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_stand_in import Refusal, StandIn, serving

from reco_plugin import Pair, Reco
from reco_plugin.errors import FingerprintMismatch, MemoryStoreError, MemoryUnavailable
from reco_plugin.memory import open_memory
from reco_plugin.types import Fingerprint

pytestmark = pytest.mark.slow

TEXTS = ["a red circle", "an orange square"]
SOON = {"memory_timeout_s": 60, "breaker_failures": 2, "breaker_retry_s": 1e-6}
quiet = pytest.mark.filterwarnings("ignore::reco_plugin.retrieval.guard.DegradedWarning")


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving() as running:
        yield running


@pytest.fixture
def there(server: StandIn) -> dict[str, Any]:
    """Settings of a memory on the server."""
    return {"memory": server.url("grpc")}


def ask_until(reco: Reco, reason: str | None, *, tries: int = 200) -> Any:
    """Ask until an answer has this reason; a client of gRPC looks for the server every two seconds."""
    for _ in range(tries):
        result = reco.embed(TEXTS, modality="text", coverage=1.0)
        if result.degraded == reason:
            return result
        time.sleep(0.05)
    raise AssertionError(f"never {reason}: {reco.circuit}")


@quiet
def test_down_then_up_with_pairs(model: Path, server: StandIn, there: dict[str, Any], known: list[Pair]) -> None:
    with Reco.open(model, **there) as writer:
        writer.memory.add(known)
        expected, calibration = writer.embed_texts(TEXTS, coverage=1.0), writer.memory.calibration
    server.stop()
    with Reco.open(model, **there, **SOON) as reco:
        first = reco.embed(TEXTS, modality="text")
        assert first.degraded == "memory_error"
        assert first.vectors.tobytes() == reco.embed_texts(TEXTS, refine=False).tobytes()
        assert reco.memory.calibration is None
        with pytest.raises(MemoryUnavailable):
            len(reco.memory)
        with pytest.raises(MemoryUnavailable):
            reco.memory.add(known[:1])
        server.start()
        found = ask_until(reco, None)
        np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
        assert np.abs(found.vectors - found.frozen).max() > 1e-3
        assert calibration is not None and reco.memory.calibration is not None
        assert reco.memory.calibration.to_json() == calibration.to_json()
        assert (len(reco.memory), reco.circuit.state) == (len(known), "closed")


@quiet
def test_down_then_up_with_another_encoder_is_refused(model: Path, server: StandIn, there: dict[str, Any]) -> None:
    open_memory(there["memory"], Fingerprint("other/clip", "cd" * 32, 128)).close()
    server.stop()
    with Reco.open(model, **there, **SOON) as reco:
        ask_until(reco, "memory_error")
        server.start()
        with pytest.raises(FingerprintMismatch, match="other/clip"):
            ask_until(reco, None)
        for call in (len, lambda memory: memory.search(TEXTS[0])):
            with pytest.raises(FingerprintMismatch, match="other/clip"):
                call(reco.memory)
        assert reco.embed_texts(TEXTS, refine=False).shape == (2, 128)


@quiet
def test_closed_before_it_was_ever_reached(model: Path, server: StandIn, there: dict[str, Any]) -> None:
    server.stop()
    reco = Reco.open(model, **there, **SOON)
    reco.close()
    reco.close()
    server.start()
    with pytest.raises(MemoryStoreError, match="is closed"):
        reco.embed_texts(TEXTS)
    with pytest.raises(MemoryStoreError, match="is closed"):
        len(reco.memory)


@quiet
def test_a_key_that_only_reads_waits_for_whoever_fills_the_memory(
    model: Path, server: StandIn, there: dict[str, Any], known: list[Pair]
) -> None:
    """The order of docs/run.md: the service starts with a key that reads, and the memory is filled after it."""
    server.engine.refusals["create_collection"] = Refusal(403, "Global manage access is required")
    with pytest.raises(MemoryUnavailable, match=r"no memory 'reco' at .* yet, and the key may not make one"):
        Reco.open(model, **there, on_memory_failure="fail")
    with Reco.open(model, **there, **SOON) as reco:
        assert reco.embed(TEXTS, modality="text").degraded == "memory_error"
        server.engine.refusals.clear()  # another key may
        with Reco.open(model, **there) as writer:
            writer.memory.add(known)
        assert np.abs((found := ask_until(reco, None)).vectors - found.frozen).max() > 1e-3
