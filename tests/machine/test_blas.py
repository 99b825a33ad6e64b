"""Products by blocks equal whole ones, for every size of batch and block; parts are worked on side by side."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from reco_plugin.machine.blas import multiply, one_thread_each, side_by_side, threads_at_most


def blas_threads() -> int:
    return max(one["num_threads"] for one in ThreadpoolController().select(user_api="blas").info())


@pytest.fixture
def two():
    """BLAS takes two threads, whatever machine this is."""
    with threadpool_limits(2, "blas"):
        if blas_threads() != 2:
            pytest.skip("this machine has one core")
        yield


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 8, 9, 31, 256, 257, 600])
@pytest.mark.parametrize("columns", [1, 16, 128, 512])
def test_blocks_make_the_product(rows, columns):
    rng = np.random.default_rng(rows)
    x, matrix = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, 512), (columns, 512)))
    found = multiply(x, matrix.T)
    assert (found.shape, found.dtype) == ((rows, columns), np.float32)
    np.testing.assert_allclose(found, x.astype(np.float64) @ matrix.T, rtol=0, atol=1e-4)


def test_a_row_is_nearly_the_same_whatever_stands_beside_it():
    rng = np.random.default_rng(0)
    x, matrix = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 512), (512, 128)))
    whole = multiply(x, matrix)
    for row in (0, 3, 63):
        np.testing.assert_allclose(multiply(x[row : row + 1], matrix), whole[row : row + 1], rtol=0, atol=1e-4)


def test_parts_are_worked_on_at_a_time_and_each_product_takes_one_thread(two):
    met, seen = threading.Barrier(2, timeout=10), list[int]()

    def work(part: int) -> int:
        met.wait()  # only two at a time get past it
        seen.append(blas_threads())
        return part * part

    assert side_by_side(work, range(6)) == [0, 1, 4, 9, 16, 25]
    assert set(seen) == {1}
    assert blas_threads() == threads_at_most() == 2


def test_another_thread_waits_less_for_its_turn_while_parts_are_worked_on(two):
    before = sys.getswitchinterval()
    assert max(side_by_side(lambda _: sys.getswitchinterval(), range(4))) < before
    assert sys.getswitchinterval() == before
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda part: 1 // part, [0, 0])
    assert sys.getswitchinterval() == before


def test_the_turns_that_a_service_sets_when_it_starts_stay(two):
    """It starts while a thread learns: what that had found before came back, and stayed."""
    before = sys.getswitchinterval()
    try:
        side_by_side(lambda part: part or sys.setswitchinterval(0.0003), [0, 1])
        assert sys.getswitchinterval() == pytest.approx(0.0003)
    finally:
        sys.setswitchinterval(before)


def test_a_single_part_and_parts_of_a_part_are_worked_on_where_they_are(two):
    here = threading.get_ident()
    assert side_by_side(lambda _: (threading.get_ident(), blas_threads()), [0]) == [(here, 2)]
    inside = side_by_side(
        lambda _: {threading.get_ident(), *side_by_side(lambda _: threading.get_ident(), [1, 2])}, [1, 2]
    )
    assert all(len(threads) == 1 for threads in inside)


def test_in_a_block_of_one_thread_each_a_single_part_has_one_and_many_take_all(two):
    met, here = threading.Barrier(2, timeout=10), threading.get_ident()

    def work(part: int) -> int:
        met.wait()  # only two at a time get past it
        return blas_threads()

    with one_thread_each(), one_thread_each():
        assert side_by_side(lambda _: (threading.get_ident(), blas_threads()), [0]) == [(here, 1)]
        assert side_by_side(work, range(4)) == [1, 1, 1, 1]
        assert blas_threads() == 1
    assert blas_threads() == 2


def test_results_are_told_in_order_and_what_that_raises_ends_all(two):
    told, worked = list[int](), list[int]()

    def work(part: int) -> int:
        worked.append(part)
        time.sleep(0.01 if part > 1 else 0)  # all of them would take a minute
        return part

    def tell(part: int) -> None:
        told.append(part)
        if part == 1:
            raise KeyError(part)

    with pytest.raises(KeyError):
        side_by_side(work, range(10_000), tell)
    assert told == [0, 1]
    assert len(worked) < 10_000
    assert blas_threads() == 2
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda part: 1 // part, [1, 0, 2])
    assert blas_threads() == 2


def test_another_thread_that_works_meanwhile_has_one(two):
    begun, ended = threading.Event(), threading.Event()

    def first(part: int) -> int:
        begun.set()
        assert ended.wait(10)
        return blas_threads()

    def second(part: int) -> int:
        return threading.get_ident()

    found = list[int]()

    def meanwhile() -> None:
        assert begun.wait(10)
        found.extend(side_by_side(second, [1, 2]))
        ended.set()

    other = threading.Thread(target=meanwhile)
    other.start()
    assert side_by_side(first, [1, 2]) == [1, 1]
    other.join()
    assert found == [other.ident] * 2
    assert blas_threads() == 2


@pytest.mark.parametrize("allowed", [0, 1])
def test_where_the_system_refuses_threads_the_caller_does_the_work(two, monkeypatch, allowed):
    """It failed, and with it what a memory learned, in a container with a limit of threads."""
    begin, done = threading.Thread.start, list[int]()

    def start(thread: threading.Thread) -> None:
        if thread.name == f"reco-part_{allowed}":
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    here = (threading.get_ident(), 1)
    found = side_by_side(
        lambda part: (part, threading.get_ident(), blas_threads()), range(5), lambda one: done.append(one[0])
    )
    assert found == [(part, *here) for part in range(5)]
    assert done == [*range(5)]
    assert blas_threads() == 2
    assert not [one.name for one in threading.enumerate() if one.name.startswith("reco-part")]
