"""Exact memories of some pairs, in RAM, to measure with; and what is hidden from a query: draws and copies."""

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

_LOOK, _ROWS = 16, 4096
_FOLDS = "asks"


def chance(name: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends on name and seed alone.

    >>> round(chance("fox"), 3), round(chance("fox", 1), 3)
    (0.32, 0.547)
    """
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8]) / 2.0**64


def draw_asking(
    ids: Sequence[str], things: Sequence[str], most: int, seed: int = 0
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which of N pairs ask, and the rest is the memory: half of the things, and about half of the pairs of each.

    The first pair of a thing asks, also where it is the only one: the memory knows nothing of that thing. A growing
    catalogue keeps its draw.

    Args:
        ids: N.
        things: N, what each shows.
        most: pairs that ask.
        seed: of the draw.

    Returns:
        (N,) whether each asks; and (N,) whether its thing is in the part that ``reco eval --tune`` tests on.
    """
    drawn = np.array([chance(f"{_FOLDS}\0{id_}", seed) for id_ in ids])
    of_thing = {thing: chance(thing, seed) for thing in set(things)}
    place = np.array([of_thing[thing] for thing in things])
    number = np.unique(np.asarray(things), return_inverse=True)[1]
    order = np.lexsort((drawn, number))
    first = np.flatnonzero(np.diff(number[order], prepend=-1))  # of each thing, in order
    last = np.append(first[1:], len(order)) - 1
    asks = drawn < 0.5
    asks[order[last[last > first]]] = False
    asks[order[first]] = True
    asks &= place < 0.5
    if (many := int(asks.sum())) > most:  # whole things, the first drawn
        kept = np.sort(place[asks])[most - 1]
        asks &= place <= kept
        return asks, place * 2.0 >= float(kept)
    return asks, place >= 0.25 if many else asks


def find_copies(memory: Searches, images: Vectors, hidden: Sequence[Collection[str]]) -> list[set[str]]:
    """Ids to hide from each of N queries: those that are hidden already, and all pictures that are nearly its own.

    Args:
        memory: that is searched.
        images: (N, D) pictures of the queries.
        hidden: N collections of ids.
    """
    out: list[set[str]] = []
    for start in range(0, len(images), _ROWS):
        rows = slice(start, start + _ROWS)
        near = _near(memory, images[rows], _LOOK)
        out += [ids | set(own) for ids, own in zip(near, hidden[rows], strict=True)]
    return out


def _near(memory: Searches, images: Vectors, look: int) -> list[set[str]]:
    found = memory.search(Search(images, "image", "text", look, ids=True))
    near = [
        {id_ for id_, cosine in zip(ids, similarity, strict=False) if cosine >= SAME_IMAGE}
        for ids, similarity in zip(found.ids, found.similarity, strict=True)
    ]
    crowded = [row for row, ids in enumerate(near) if len(ids) == look]
    if crowded:
        for row, ids in zip(crowded, _near(memory, images[crowded], 4 * look), strict=True):
            near[row] = ids
    return near


@dataclass
class RamMemory:
    """An exact memory of some pairs in RAM, with its calibration for any number of neighbours."""

    pairs: Records
    store: Memory  # of the pairs
    _last: tuple[int, VectorMemory] | None = None

    @property
    def plain(self) -> VectorMemory:
        """The memory without calibration, which only the closed form needs."""
        return VectorMemory(self.store, None)

    def at(self, k: int) -> VectorMemory:
        """The memory, calibrated for k neighbours; another k replaces what the store holds of each pair."""
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
