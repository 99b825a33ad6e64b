"""Exact memories of some pairs, in RAM, to measure with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from ..calibration import Calibration
from ..calibration.learn import learn
from ..extras.presence import LearnsPresence, PresenceState
from ..memory import Fingerprint, Memory, Searches, open_memory
from ..refine import VectorMemory
from ..types import Neighbours, Records, Search

_KEPT_BYTES = 1 << 30


class RememberingMemory:
    """Caches searches, since many fusions repeat them.

    The store is filled before it is searched, and never changed afterwards. The oldest results are dropped when all
    together exceed a gigabyte.
    """

    def __init__(self, store: Searches) -> None:
        self.header = store.header
        self._store = store
        self._answers: dict[str, Neighbours] = {}
        self.bytes = 0
        """Of the cached vectors."""

    def search(self, search: Search) -> Neighbours:
        """Search for (B, D), see :meth:`reco_plugin.memory.Searches.search`."""
        asked = hashlib.sha256(np.ascontiguousarray(search.vectors).tobytes())
        hidden = None if search.exclude is None else [sorted(ids) for ids in search.exclude]
        asked.update(repr(replace(search, vectors=search.vectors.shape, exclude=hidden)).encode())  # type: ignore[arg-type]
        key = asked.hexdigest()
        if key in self._answers:
            return self._answers[key]
        found = self._store.search(search)
        self._answers[key] = found
        self.bytes += found.vectors.nbytes
        while self.bytes > _KEPT_BYTES and len(self._answers) > 1:
            self.bytes -= self._answers.pop(next(iter(self._answers))).vectors.nbytes
        return found


@dataclass
class RamMemory:
    """An exact memory of some pairs in RAM, with its calibration for any number of neighbours."""

    pairs: Records
    store: Memory  # of the pairs
    searches: RememberingMemory  # of the store
    _last: tuple[int, VectorMemory] | None = None

    @property
    def plain(self) -> VectorMemory:
        """The memory without calibration, which only the closed form needs."""
        return VectorMemory(self.store, None, self.searches)

    def at(self, k: int) -> VectorMemory:
        """The memory, calibrated for k neighbours; another k replaces what the store holds of each pair."""
        if self._last is None or self._last[0] != k:
            self._last = k, VectorMemory(self.store, self._learn(k), self.searches)
        return self._last[1]

    def _learn(self, k: int) -> Calibration | None:
        state = learn(self.store, k, extras=(LearnsPresence(),))
        return state and replace(state, presence=PresenceState.read(self.store.header.calibration))


def ram_memory(pairs: Records, fingerprint: Fingerprint) -> RamMemory:
    """Build a memory of pairs, (N, D) each, with cached searches."""
    store = open_memory(":memory:", fingerprint)
    store.upsert(pairs)
    return RamMemory(pairs, store, RememberingMemory(store))
