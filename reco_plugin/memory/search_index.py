"""The search index beside the embedded store: made in the background after the first search, in RAM.

It only names candidates: the store scores them with its own vectors, so what is found is there and its similarity is
exact, also with conditions and after deletions. Until it is ready, and for queries for which it names too few, the
store compares with every pair. It is not saved: 100,000 pairs of 512 dimensions take half a minute of one core, and
what is not saved cannot be stale.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..cpu import cores
from ..types import Modality, Vectors
from .checks import CheckedSearch

if TYPE_CHECKING:
    from .ann import Built
    from .edge import EdgeMemory

LEAST = 10_000
"""Pairs from which an index is made: fewer are compared in a few milliseconds."""
_NEIGHBOURS, _EXCLUDED = 50, 500
"""With more neighbours or exclusions every pair is compared: the lists are measured for ten neighbours."""
log = logging.getLogger(__name__)


class Stopped(Exception):
    """The memory is being closed."""


class SearchIndex:
    """The index of an embedded memory."""

    def __init__(self, store: EdgeMemory, *, enabled: bool) -> None:
        """Read nothing before the first search."""
        self._store = store
        self._enabled = enabled and importlib.util.find_spec("faiss") is not None
        self._lock = threading.RLock()
        """Held by searches, too: FAISS neither adds while it searches nor searches while it adds."""
        self._built: Built | None = None
        self._late: list[str] | None = None  # written while a thread makes an index; None: no thread does
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._missing = 0  # pairs to be written until there may be enough

    @property
    def state(self) -> str:
        """One of "in use", "being made" and "" (there is none)."""
        return "in use" if self._built else "being made" if self._late is not None else ""

    def candidates(self, by: Modality, wanted: CheckedSearch) -> list[list[str]] | None:
        """Points among which the nearest of each query are, without regard to conditions and exclusions.

        None: compare with every pair.
        """
        if not self._enabled or self._missing > 0 or wanted.k > _NEIGHBOURS or not len(wanted.vectors):
            return None
        if (excluded := max(map(len, wanted.exclude), default=0)) > _EXCLUDED:
            return None
        times, wider = (16, 2) if wanted.conditions else (4, 1)
        with self._lock:
            if self._built is None:
                self._start()
                return None
            try:
                return self._built.nearest(by, wanted.vectors, times * wanted.k + 20 + excluded, wider)
            except Exception as error:  # as when RAM runs out
                self._give_up(error)
                return None

    def add(self, points: Sequence[str], vectors: Mapping[Modality, Vectors]) -> None:
        """Add points that the store wrote, vectors (N, D)."""
        with self._lock:
            self._missing -= len(points)
            if self._late is not None:
                self._late.extend(points)
            if self._built is None:
                return
            try:
                self._built.append(points, vectors)
            except Exception as error:  # the store has them
                self._give_up(error)

    def close(self) -> None:
        """Stop working on it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._built = None

    def _start(self) -> None:
        """Let a thread make it, unless one does, or there are too few pairs."""
        if not self._enabled or self._late is not None or self._stop.is_set():
            return
        self._missing = LEAST - self._store.count()
        if self._missing <= 0:
            self._late = []
            self._thread = threading.Thread(target=self._make, name="reco-index", daemon=True)
            self._thread.start()

    def _make(self) -> None:
        from .ann import build, use_threads

        try:
            use_threads(max(1, cores() // 2))
            built = build(self._store, self._check)
            while True:
                with self._lock:
                    late, self._late = self._late or [], []
                    if not late:
                        self._built, self._late = built, None
                        return
                built.append_from(self._store, list(dict.fromkeys(late)), self._check)
        except Stopped:
            pass
        except Exception as error:  # whatever it is, the store serves without
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            self._built, self._late, self._enabled = None, None, False
        log.warning("every pair of %s is compared until it is opened again: %r", self._store.location, error)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped
