"""Memories of a study: one that caches its searches, and one whose index misses some neighbours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from ...calibration.learn import learn
from ...files import digest_records
from ...memory import Fingerprint, Memory, Searches, open_memory
from ...refine import VectorMemory
from ...request import Search
from ...types import Neighbours, Records, Vectors
from .streams import stream

_KEPT_BYTES = 1 << 30


class RememberingMemory:
    """Caches searches, since a study repeats them with many fusions.

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


class ApproximateMemory:
    """An index of a given recall: each true neighbour is missed with probability 1 - recall, the next one moves up.

    The misses depend on the query and the seed alone, so that a lower recall misses the same and more.
    """

    def __init__(self, store: Searches, recall: float, seed: int) -> None:
        self.header = store.header
        self._store, self._recall, self._seed = store, recall, seed

    def search(self, search: Search) -> Neighbours:
        """Search for (B, D), see :meth:`reco_plugin.memory.Searches.search`."""
        k = search.k
        wide = 4 * k + 16  # at recall 0.5, fewer than k of these are kept about once in a million queries
        found = self._store.search(replace(search, k=wide))
        kept = np.stack([self._draw(vector, wide) for vector in search.vectors]) < self._recall  # (B, wide)
        order = np.argsort(~(kept & found.found), axis=1, kind="stable")[:, :k]  # what was kept first, nearest first
        here = np.take_along_axis(kept & found.found, order, axis=1)  # (B, k)
        places = [row[ok].tolist() for row, ok in zip(order, here, strict=True)]
        return replace(
            found,
            ids=[[ids[place] for place in row] for ids, row in zip(found.ids, places, strict=True)],
            similarity=np.where(here, np.take_along_axis(found.similarity, order, axis=1), np.float32(0)),
            witnesses=None
            if found.witnesses is None
            else np.where(here[..., None], np.take_along_axis(found.witnesses, order[..., None], axis=1), np.nan),
            vectors=np.where(
                here[..., None], np.take_along_axis(found.vectors, order[..., None], axis=1), np.float32(0)
            ),
            found=here,
            payloads=None
            if found.payloads is None
            else [[shown[place] for place in row] for shown, row in zip(found.payloads, places, strict=True)],
        )

    def _draw(self, vector: Vectors, wide: int) -> Vectors:
        digest = hashlib.sha256(vector.tobytes()).digest()[:8]
        return stream(self._seed, f"recall of {digest.hex()}").random(wide, np.float32)


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
            self._last = k, VectorMemory(self.store, learn(self.store, k), self.searches)
        return self._last[1]


def ram_memory(pairs: Records, fingerprint: Fingerprint) -> RamMemory:
    """Build a memory of pairs, (N, D) each, with cached searches."""
    store = open_memory(":memory:", fingerprint, kind="exact")
    store.upsert(pairs)
    return RamMemory(pairs, store, RememberingMemory(store))


class Memories:
    """Memories in RAM that are learned once, though several sections need them: learning takes most of a study's time.

    The oldest are dropped when all together, with what they cached, exceed a gigabyte.
    """

    def __init__(self) -> None:
        self._made: dict[str, tuple[RamMemory, VectorMemory]] = {}

    def of(self, pairs: Records, fingerprint: Fingerprint, k: int) -> VectorMemory:
        """The memory of these pairs, (N, D) each, its calibration learned for k neighbours."""
        key = f"{fingerprint.digest} {k} {digest_records(pairs)}"
        if key not in self._made:
            made = ram_memory(pairs, fingerprint)
            self._made[key] = made, made.at(k)
        while len(self._made) > 1 and sum(_bytes(made) for made, _ in self._made.values()) > _KEPT_BYTES:
            self._made.pop(next(one for one in self._made if one != key))
        return self._made[key][1]


def _bytes(memory: RamMemory) -> int:
    return memory.pairs.image.nbytes + memory.pairs.text.nbytes + memory.searches.bytes
