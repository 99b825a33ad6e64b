"""Refinements of several threads: searched and fused together, judged and degraded call by call."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from live_service import wait_until

from reco_plugin.retrieval.guard import DegradedWarning

Build = Callable[..., Any]
PATIENCE_S = 60


@pytest.fixture
def together(hanging: Any) -> Callable[..., list[Future[Any]]]:
    """Run calls so that all but the first wait for the memory, and are then searched together."""

    def run(rig: Any, *calls: Callable[[], Any], then: Any = None) -> list[Future[Any]]:
        (batcher,) = rig.reco._refiner.memory._batchers
        rig.memory.trouble = hanging
        with ThreadPoolExecutor(len(calls)) as threads:
            futures = [threads.submit(calls[0])]
            assert hanging.waiting.acquire(timeout=PATIENCE_S)
            for place, call in enumerate(calls[1:], 1):
                futures.append(threads.submit(call))
                wait_until(lambda place=place: len(batcher._waiting) >= place or futures[-1].done())
                assert not futures[-1].done()
            rig.memory.asked = 1
            rig.memory.trouble = then
            hanging.release()
        return futures

    return run


def test_explanations_and_conditions_are_each_callers_own(rig: Build, together: Any) -> None:
    one = rig()
    calls = [
        lambda: one.ask(),
        lambda: one.ask(explain=True),
        lambda: one.ask(explain=True, k=2),
        lambda: one.ask(explain=True, where={"colour": "red"}),
        lambda: one.ask(explain=True, exclude=["red-0"]),
    ]
    alone = [call() for call in calls]
    found = [future.result() for future in together(one, *calls[:3])] + [call() for call in calls[3:]]
    for got, expected in zip(found, alone, strict=True):
        np.testing.assert_allclose(got.vectors, expected.vectors, atol=1e-5)
        if expected.neighbours is not None:
            assert (got.neighbours.ids, got.neighbours.payloads) == (
                expected.neighbours.ids,
                expected.neighbours.payloads,
            )
            np.testing.assert_allclose(got.weights, expected.weights, atol=1e-5)


def test_a_memory_that_fails_degrades_every_call_of_the_batch_and_warns_once(rig: Build, together: Any) -> None:
    one = rig()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        first, *others = together(one, *[one.ask] * 4, then=one.dead)
    assert first.result().degraded is None
    for future in others:
        assert future.result().degraded == "memory_error"
        assert one.is_frozen(future.result())
    assert one.memory.asked == 2  # nothing is asked again
    assert one.reco.circuit.failures == 1
    assert one.reasons("degraded") == {"memory_error": 3}
    assert [warning.category for warning in seen] == [DegradedWarning]
