"""Exact memories in RAM to measure with, the draw of queries, and the pairs that are hidden from a query."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..defaults import SAME_IMAGE
from ..fusion.refiner import VectorMemory
from ..learning.learn import learn
from ..memory import Fingerprint, Memory, Searches, open_memory
from ..signals.presence import LearnsPresence, PresenceState
from ..types import Records, Search, Vectors

_NEIGHBOURS, _ROWS = 16, 4096  # that are searched for copies, and queries a search


def uniform_hash(name: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends on name and seed alone.

    >>> round(uniform_hash("fox"), 3), round(uniform_hash("fox", 1), 3)
    (0.32, 0.547)
    """
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8]) / 2.0**64


def draw_queries(
    ids: Sequence[str], labels: Sequence[str], most: int, seed: int = 0
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Draw at most ``most`` queries from N pairs: of half of the labels, and about half of the pairs of each.

    The first drawn pair of a label is a query. If it is the only one, the memory holds nothing of that label. The draw
    of a pair does not change when others are added.

    Returns:
        (N,) whether a pair is a query, and (N,) whether its label is in the part that tests a tuned policy.
    """
    drawn = np.array([uniform_hash(f"asks\0{id_}", seed) for id_ in ids])
    of_label = {label: uniform_hash(label, seed) for label in set(labels)}
    place = np.array([of_label[label] for label in labels])
    number = np.unique(np.asarray(labels), return_inverse=True)[1]
    order = np.lexsort((drawn, number))
    first = np.flatnonzero(np.diff(number[order], prepend=-1))  # row in `order` of each label's first pair
    last = np.append(first[1:], len(order)) - 1
    is_query = drawn < 0.5
    is_query[order[last[last > first]]] = False
    is_query[order[first]] = True
    is_query &= place < 0.5
    if (count := int(is_query.sum())) > most:  # keep whole labels
        limit = np.sort(place[is_query])[most - 1]
        is_query &= place <= limit
        return is_query, place * 2.0 >= float(limit)
    return is_query, place >= 0.25 if count else is_query


def find_copies(memory: Searches, images: Vectors, excluded: Sequence[Collection[str]]) -> list[set[str]]:
    """Add the ids of near-duplicate images to the ids that are excluded from each of N queries (N, D)."""
    found: list[set[str]] = []
    for start in range(0, len(images), _ROWS):
        rows = slice(start, start + _ROWS)
        copies = _search_copies(memory, images[rows], _NEIGHBOURS)
        found += [ids | set(more) for ids, more in zip(copies, excluded[rows], strict=True)]
    return found


def _search_copies(memory: Searches, images: Vectors, limit: int) -> list[set[str]]:
    neighbours = memory.search(Search(images, "image", "text", limit, ids=True))
    copies = [
        {id_ for id_, cosine in zip(ids, similarity, strict=False) if cosine >= SAME_IMAGE}
        for ids, similarity in zip(neighbours.ids, neighbours.similarity, strict=True)
    ]
    full = [row for row, ids in enumerate(copies) if len(ids) == limit]
    if full:
        for row, ids in zip(full, _search_copies(memory, images[full], 4 * limit), strict=True):
            copies[row] = ids
    return copies


@dataclass
class RamMemory:
    """An exact memory of some pairs in RAM, which learns for the number of neighbours that is used."""

    pairs: Records
    store: Memory
    _last: tuple[int, VectorMemory] | None = None

    @property
    def plain(self) -> VectorMemory:
        """The memory without what it learned, for fusers other than the closed form."""
        return VectorMemory(self.store, None)

    def at(self, k: int) -> VectorMemory:
        """The memory, learned for k neighbours."""
        if self._last is None or self._last[0] != k:
            state = learn(self.store, k, extras=(LearnsPresence(),))
            state = state and replace(state, presence=PresenceState.read(self.store.header.calibration))
            self._last = k, VectorMemory(self.store, state)
        return self._last[1]


def ram_memory(pairs: Records, fingerprint: Fingerprint) -> RamMemory:
    """Build a memory of pairs, (N, D) each."""
    store = open_memory(":memory:", fingerprint)
    store.upsert(pairs)
    return RamMemory(pairs, store)
