"""Stages side by side: order, bounds, errors and early ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest
from live_service import wait_until

from reco_plugin.errors import DataError
from reco_plugin.ingest.prepare import make_chunks, map_in_order, read_ahead


def counting(end: int, made: list[int], closed: threading.Event) -> Generator[int, None, None]:
    try:
        for number in range(end):
            made.append(number)
            yield number
    finally:
        closed.set()


def test_ahead_keeps_order_and_runs_ahead_only_so_far() -> None:
    made, closed = list[int](), threading.Event()
    items = read_ahead(counting(50, made, closed), 3)
    assert next(items) == 0
    wait_until(lambda: len(made) >= 5)
    time.sleep(0.05)
    assert len(made) == 5  # one taken, three waiting, one in hand
    assert [0, *items] == list(range(50))
    assert closed.is_set()


def test_an_error_ahead_is_raised_to_the_reader_in_its_place() -> None:
    def fails() -> Generator[int, None, None]:
        yield 1
        raise KeyError("there")

    items = read_ahead(fails(), 2)
    assert next(items) == 1
    with pytest.raises(KeyError, match="there"):
        next(items)


def test_closing_closes_the_source_and_ends_its_thread() -> None:
    made, closed, before = list[int](), threading.Event(), threading.active_count()
    items = read_ahead(read_ahead(counting(10**9, made, closed), 2), 2)
    assert next(items) == 0
    items.close()
    wait_until(lambda: closed.is_set() and threading.active_count() <= before)
    assert closed.is_set()
    assert threading.active_count() <= before


def test_what_came_before_an_error_of_ours_is_a_chunk() -> None:
    def fails() -> Generator[int, None, None]:
        yield from range(5)
        raise DataError("no more of them")

    chunks = make_chunks(fails(), 3)
    assert [next(chunks), next(chunks)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(DataError, match="no more"):
        next(chunks)


def test_a_pool_keeps_order_whoever_is_first() -> None:
    def slow_if_even(number: int) -> int:
        time.sleep(0.002 * (number % 2 == 0))
        return number

    with ThreadPoolExecutor(4) as pool:
        done = list(map_in_order(pool, slow_if_even, make_chunks(range(100), 7), window=3))
    assert [len(chunk) for chunk in done] == [7] * 14 + [2]
    assert [number for chunk in done for number in chunk] == list(range(100))


def test_an_error_in_a_pool_ends_it() -> None:
    def fails_at_20(number: int) -> int:
        if number == 20:
            raise KeyError("twenty")
        return number

    with ThreadPoolExecutor(2) as pool, pytest.raises(KeyError, match="twenty"):
        list(map_in_order(pool, fails_at_20, make_chunks(range(1000), 7), window=3))
