"""Batches across callers; who waits here waits for an event, so that nothing depends on speed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from live_service import wait_until

from reco_plugin.batching import Batcher, Columns

MOST = 8
PATIENCE_S = 60  # until a test is given up


class Engine:
    """Doubles numbers; a batch with a negative one fails. It can be stopped before each batch."""

    def __init__(self, most: int = MOST) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.threads: list[int] = []
        self.at_once = 0
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.stopped = False
        self.batcher = Batcher(self.run, most, shared=(ConnectionError,))

    def run(self, key: str, rows: Columns) -> Columns:
        self.at_once += 1
        assert self.at_once == 1
        self.batches.append((key, rows[0].tolist()))
        self.threads.append(threading.get_ident())
        self.begun.release()
        if self.stopped:
            assert self.go.acquire(timeout=PATIENCE_S)
        self.at_once -= 1
        if (rows[0] < 0).any():
            raise ConnectionError("down") if (rows[0] < -99).any() else ValueError(f"negative: {rows[0].tolist()}")
        return 2 * rows[0], [f"{key}{number}" for number in rows[1]]

    def __call__(self, *numbers: int, key: str = "a") -> tuple[list[int], list[str]]:
        doubled, names = self.batcher(key, (np.array(numbers), list(numbers)))
        return doubled.tolist(), names


Ask = Callable[..., "Future[tuple[list[int], list[str]]]"]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def ask(engine: Engine) -> Iterator[Ask]:
    """Ask in another thread; returns when the engine runs it, or when it waits."""
    with ThreadPoolExecutor(64) as threads:
        engine.stopped = True

        def start(*numbers: int, key: str = "a") -> Future[tuple[list[int], list[str]]]:
            waits = len(engine.batcher._waiting)
            future = threads.submit(engine, *numbers, key=key)

            def taken() -> bool:
                if engine.begun.acquire(blocking=False) or len(engine.batcher._waiting) != waits:
                    return True
                assert not future.done()
                return False

            wait_until(taken)
            return future

        yield start
        engine.stopped = False
        engine.go.release(1000)


def test_a_call_that_finds_nothing_running_runs_at_once_in_its_own_thread(engine: Engine) -> None:
    assert engine(1, 2) == ([2, 4], ["a1", "a2"])
    assert engine.batches == [("a", [1, 2])]
    assert engine.threads == [threading.get_ident()]


def test_what_waits_is_run_together_and_everybody_gets_the_own_rows(engine: Engine, ask: Ask) -> None:
    first = ask(0)
    others = [ask(1), ask(2, 3), ask(4)]
    engine.go.release(2)
    assert [one.result(PATIENCE_S) for one in [first, *others]] == [
        ([0], ["a0"]),
        ([2], ["a1"]),
        ([4, 6], ["a2", "a3"]),
        ([8], ["a4"]),
    ]
    assert engine.batches == [("a", [0]), ("a", [1, 2, 3, 4])]


def test_a_large_call_holds_a_small_one_up_for_one_batch_only(engine: Engine, ask: Ask) -> None:
    large = ask(*range(1000))  # which runs its first batch
    small = ask(4999)
    engine.go.release(2)
    assert small.result(PATIENCE_S) == ([9998], ["a4999"])
    assert not large.done()
    assert len(engine.batches[1][1]) == MOST  # the batch was filled up
    engine.stopped = False
    engine.go.release(1000)
    assert large.result(PATIENCE_S)[0] == [2 * number for number in range(1000)]


def test_keys_are_never_mixed_and_take_turns(engine: Engine, ask: Ask) -> None:
    first = ask(0)
    waiting = [ask(*range(20)), ask(1, key="b"), ask(2, key="a"), ask(3, key="b")]
    engine.stopped = False
    engine.go.release(1000)
    assert [one.result(PATIENCE_S)[1][0] for one in [first, *waiting]] == ["a0", "a0", "b1", "a2", "b3"]
    assert [key for key, _ in engine.batches[:3]] == ["a", "a", "b"]


def test_a_wrong_row_fails_alone(engine: Engine, ask: Ask) -> None:
    first = ask(0)
    wrong, right = ask(-5, 1), ask(2)
    engine.stopped = False
    engine.go.release(1000)
    with pytest.raises(ValueError, match=r"negative: \[-5, 1\]"):
        wrong.result(PATIENCE_S)
    assert (first.result(PATIENCE_S)[0], right.result(PATIENCE_S)[0]) == ([0], [4])
    assert engine(3) == ([6], ["a3"])


def test_an_error_that_is_nobodys_fault_is_everybodys_and_nothing_is_run_again(engine: Engine, ask: Ask) -> None:
    first = ask(0)
    waiting = [ask(-100), ask(2)]
    engine.go.release(2)
    assert first.result(PATIENCE_S)[0] == [0]
    for one in waiting:
        with pytest.raises(ConnectionError):
            one.result(PATIENCE_S)
    assert len(engine.batches) == 2


def test_threads_lose_and_mix_nothing(engine: Engine) -> None:
    def caller(me: int) -> list[Any]:
        rng, got = np.random.default_rng(me), []
        for _ in range(50):
            numbers = rng.integers(0, 1000, rng.integers(1, 20)).tolist()
            key = "ab"[int(rng.integers(2))]
            got.append(
                engine(*numbers, key=key)
                == ([2 * number for number in numbers], [f"{key}{number}" for number in numbers])
            )
        return got

    with ThreadPoolExecutor(12) as threads:
        assert all(all(got) for got in threads.map(caller, range(12)))
    assert max(len(rows) for _, rows in engine.batches) <= MOST
    assert not engine.batcher._waiting and not engine.batcher._led
