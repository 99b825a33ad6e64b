"""Counts and histograms."""

from __future__ import annotations

import json
import threading
from typing import get_args

import numpy as np
import pytest

from reco_plugin.counters import DISTANCES, SECONDS, Counters, Histogram, Tally
from reco_plugin.types import Degraded


def test_a_bound_belongs_to_its_own_bucket():
    """As Prometheus counts: a bucket holds all values up to and with its bound."""
    one, many = Histogram([1.0, 2.0, 4.0]), Histogram([1.0, 2.0, 4.0])
    values = [0.5, 1.0, 1.5, 4.0, 9.0]
    for value in values:
        one.observe(value)
    many.observe_all(np.array(values[:2], np.float32))
    many.observe_all(np.array(values[2:], np.float32))
    assert one.to_dict() == {"count": 5, "sum": 16.0, "buckets": [[1.0, 2], [2.0, 3], [4.0, 4]]}
    assert many.to_dict() == one.to_dict()


def test_a_block_is_timed_also_when_it_raises():
    histogram = Histogram(SECONDS)
    with histogram.timed():
        pass
    with pytest.raises(KeyError), histogram.timed():
        raise KeyError
    assert histogram.to_dict()["count"] == 2
    assert histogram.to_dict()["sum"] > 0


def test_threads_lose_no_count():
    tally, histogram = Tally(), Histogram([1.0])

    def count() -> None:
        for _ in range(2000):
            tally.add("a")
            histogram.observe(0.5)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert tally.to_dict() == {"a": 8000}
    assert histogram.to_dict() == {"count": 8000, "sum": 4000.0, "buckets": [[1.0, 8000]]}


def test_everything_is_json_and_bounds_rise():
    told = Counters().to_dict()
    assert json.loads(json.dumps(told)) == told
    assert set(told) == set(vars(Counters()))
    assert told["refined"] == {"image": 0, "text": 0}, "a series that begins with its first success has no rate"
    assert (told["degraded"]["memory_error"], set(told["failed"])) == (0, set(get_args(Degraded)))
    assert list(SECONDS) == sorted(set(SECONDS))
    assert list(DISTANCES) == sorted(set(DISTANCES))
