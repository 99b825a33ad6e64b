"""Counters and histograms of a running process, without a dependency; exporters read a dict."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from .types import MODALITIES, Degraded

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, from half a millisecond to ten seconds."""
DISTANCES = (1e-6, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
"""Upper bounds of cosine distances; the first one counts vectors that did not move."""


class Histogram:
    """Counts of values per upper bound; safe to use from several threads."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._array = np.asarray(bounds, np.float32)
        self._lock = threading.Lock()
        self._counts = [0] * (len(self._bounds) + 1)  # the last one is for values above all bounds
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        place = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[place] += 1
            self._sum += value

    def observe_all(self, values: npt.NDArray[np.float32]) -> None:
        """Count values (B,)."""
        places = np.searchsorted(self._array, values)
        found = np.bincount(places, minlength=len(self._counts)).tolist()
        with self._lock:
            self._counts = [old + new for old, new in zip(self._counts, found, strict=True)]
            self._sum += float(values.sum())

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds that a block takes, also when it raises."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - started)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like: count, sum, and cumulative buckets (upper bound, values up to it), as in Prometheus.

        >>> histogram = Histogram([1.0, 5.0])
        >>> for value in (1.0, 3.0, 8.0):
        ...     histogram.observe(value)
        >>> histogram.to_dict()
        {'count': 3, 'sum': 12.0, 'buckets': [[1.0, 1], [5.0, 2]]}
        """
        with self._lock:
            counts, total = list(self._counts), self._sum
        upto = np.cumsum(counts).tolist()
        buckets = [[bound, count] for bound, count in zip(self._bounds, upto, strict=False)]
        return {"count": upto[-1], "sum": total, "buckets": buckets}


class Tally:
    """Counts per word; safe to use from several threads.

    Words that are named in advance begin at 0: what is first seen at 1 has no rate in Prometheus.
    """

    def __init__(self, words: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._counts = Counter(dict.fromkeys(words, 0))

    def add(self, word: str, count: int = 1) -> None:
        """Count a word, once or several times."""
        with self._lock:
            self._counts[word] += count

    def to_dict(self) -> dict[str, int]:
        """Word -> count, of the words that were named or counted."""
        with self._lock:
            return dict(self._counts)


class Counters:
    """All counters of a Reco.

    Attributes:
        encode_s: modality -> seconds per call of the encoder.
        retrieve_s: seconds per search of the memory, answered or not.
        fuse_s: seconds per fusion, answered or not.
        moved: cosine distance between frozen and refined, per vector.
        refined: calls of which some vector moved, by modality.
        left_plain: calls that were to be refined and of which none did, by modality.
        degraded: calls answered with frozen vectors after a failure, by reason.
        failed: calls that raised a failure, by reason.
    """

    def __init__(self) -> None:
        self.encode_s = {"image": Histogram(SECONDS), "text": Histogram(SECONDS)}
        self.retrieve_s = Histogram(SECONDS)
        self.fuse_s = Histogram(SECONDS)
        self.moved = Histogram(DISTANCES)
        self.refined = Tally(MODALITIES)
        self.left_plain = Tally(MODALITIES)
        self.degraded = Tally(get_args(Degraded))
        self.failed = Tally(get_args(Degraded))

    def to_dict(self) -> dict[str, Any]:
        """JSON-like, by the names of the attributes."""
        return {
            name: {part: one.to_dict() for part, one in counted.items()}
            if isinstance(counted, dict)
            else counted.to_dict()
            for name, counted in vars(self).items()
        }
