"""A memory or fusion that fails, hangs and comes back: frozen vectors with a reason, or an error, as the user chose."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.errors import (
    InputError,
    MemoryStoreError,
    MemoryTimeout,
    MemoryUnavailable,
    SessionError,
    SessionTimeout,
)
from reco_plugin.retrieval.guard import DegradedWarning

Build = Callable[..., Any]
QUICK = {"memory_timeout_s": 0.02}


# --- degrade


@pytest.mark.filterwarnings("ignore::reco_plugin.retrieval.guard.DegradedWarning")
@pytest.mark.parametrize(
    ("part", "error", "reason"),
    [
        ("memory", MemoryStoreError("disk"), "memory_error"),
        ("memory", MemoryTimeout("slow"), "memory_timeout"),
        ("fuser", SessionError("out of memory"), "fusion_error"),
        ("fuser", SessionTimeout("slow"), "fusion_timeout"),
    ],
)
def test_a_failure_gives_frozen_vectors_and_the_reason(rig: Build, part: str, error: Exception, reason: str) -> None:
    one = rig()
    getattr(one, part).trouble = one.raising(error)
    result = one.ask(explain=True)
    assert one.is_frozen(result)
    assert (result.degraded, result.neighbours, result.reliability, result.weights) == (reason, None, None, None)
    assert not result.moved.any()
    getattr(one, part).trouble = None
    assert one.ask().degraded is None


@pytest.mark.filterwarnings("ignore::reco_plugin.retrieval.guard.DegradedWarning")
def test_a_memory_that_hangs_is_not_waited_for_and_its_late_answer_is_dropped(rig: Build, hanging: Any) -> None:
    one = rig(remote=True, **QUICK)
    one.memory.trouble = hanging
    result = one.ask()
    assert one.is_frozen(result)
    assert result.degraded == "memory_timeout"
    hanging.release()
    one.memory.trouble = None
    one.clock.now += 60
    assert one.is_frozen(result)  # the answer that came late changed nothing


@pytest.mark.filterwarnings("ignore::reco_plugin.retrieval.guard.DegradedWarning")
def test_a_dead_memory_is_asked_no_more_and_found_again(rig: Build) -> None:
    one = rig(breaker_failures=3, breaker_retry_s=10.0)
    one.memory.trouble = one.dead
    reasons = [one.ask().degraded for _ in range(6)]
    assert reasons == ["memory_error"] * 3 + ["memory_circuit_open"] * 3
    assert one.memory.asked == 3
    circuit = one.reco.circuit
    assert (circuit.state, circuit.opened, circuit.retry_in_s) == ("open", 1, 10.0)
    assert circuit.last_error is not None
    assert "connection refused" in circuit.last_error

    one.clock.now += 10.0
    assert one.ask().degraded == "memory_error"  # the probe: still dead
    assert [one.ask().degraded for _ in range(2)] == ["memory_circuit_open"] * 2
    assert one.memory.asked == 4

    one.memory.trouble = None
    assert one.ask().degraded == "memory_circuit_open"  # nobody knows yet
    one.clock.now += 10.0
    result = one.ask()
    np.testing.assert_array_equal(result.vectors, one.refined)
    assert (result.degraded, one.reco.circuit.state) == (None, "closed")


def test_an_outage_is_told_once_and_the_next_one_again(rig: Build) -> None:
    one = rig()
    one.memory.trouble = one.dead
    with pytest.warns(DegradedWarning, match=r"memory_error.*connection refused.*on_memory_failure='fail'") as told:
        one.ask()
    assert [Path(warning.filename).name for warning in told] == ["conftest.py"]  # the line that asked
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one.ask()
        one.reco.embed_texts(one.texts)
        one.memory.trouble = None
        one.ask()
    one.memory.trouble = one.dead
    with pytest.warns(DegradedWarning):
        one.reco.embed_texts(one.texts)


# --- fail


def test_who_prefers_errors_gets_the_memorys_own(rig: Build) -> None:
    one = rig(on_memory_failure="fail", breaker_failures=2)
    one.memory.trouble = one.dead
    for _ in range(2):
        with pytest.raises(MemoryStoreError, match="connection refused") as caught:
            one.ask()
        assert type(caught.value) is MemoryStoreError
    with pytest.raises(MemoryUnavailable, match=r"the memory failed 2 times in a row and is asked again in 10\.0 s\."):
        one.ask()
    one.memory.trouble = None
    one.clock.now += 10.0
    assert one.ask().degraded is None
    assert one.reasons("failed") == {"memory_error": 2, "memory_circuit_open": 1}
    assert one.reasons("degraded") == {}


def test_who_prefers_errors_gets_those_of_the_fusion(rig: Build) -> None:
    one = rig(on_memory_failure="fail")
    one.fuser.trouble = one.raising(SessionError("out of memory"))
    with pytest.raises(SessionError, match="out of memory"):
        one.ask()
    assert one.reasons("failed") == {"fusion_error": 1}


# --- what never degrades


@pytest.mark.filterwarnings("ignore::reco_plugin.retrieval.guard.DegradedWarning")
@pytest.mark.parametrize("opened", [False, True], ids=["failing", "circuit open"])
def test_a_wrong_question_is_an_error_whatever_is_down(rig: Build, opened: bool) -> None:
    one = rig(remote=True, breaker_failures=1 if opened else 1000)
    one.memory.trouble = one.dead
    assert one.ask().degraded == "memory_error"
    for wrong in (
        {"k": 0},
        {"role": "judge"},
        {"target": "sideways"},
        {"exclude": [["a"], [""], ["b"]]},
        {"where": {"year": {"near": 2020}}},
        {"vectors": np.full((1, 128), np.nan)},
    ):
        with pytest.raises(InputError):
            one.reco.refine(**{"vectors": one.frozen, "modality": "text", **wrong})


# --- what is counted


def test_everything_is_counted_once(rig: Build, drawings: Any) -> None:
    one = rig(breaker_failures=1)
    before = one.reco.metrics()
    one.reco.embed_texts(one.texts, refine=True)
    one.reco.embed_images([drawings[0].image], refine=True, target="text")
    one.memory.trouble = one.dead
    with pytest.warns(DegradedWarning):
        one.reco.embed_texts(one.texts, refine=True)
    one.reco.embed_texts(one.texts, refine=True)
    after = one.reco.metrics()

    def more(name: str) -> Any:
        return after[f"reco_{name}"] - before.get(f"reco_{name}", 0)

    assert more('encode_seconds_count{modality="text"}') == 3
    assert more('encode_seconds_count{modality="image"}') == 1
    assert more('refined_total{modality="text"}') == more('refined_total{modality="image"}') == 1
    assert more("moved_count") == 4
    assert more("retrieve_seconds_count") == 3  # the one that was not made took no time
    assert more("fuse_seconds_count") == 2
    assert one.reasons("degraded") == {"memory_error": 1, "memory_circuit_open": 1}
    assert after["circuit"]["state"] == "open"
    assert json.loads(json.dumps(after)) == after
