"""Learn calibration from a memory's pairs, and store it with them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..memory import Memory
from ..types import Records
from .calibrate import calibrate
from .extra import Extra
from .state import FEWEST, Calibration

log = logging.getLogger(__name__)
LEARNED_FROM = 20_000
"""Pairs that are learned from, at most: with all of 60,000, nothing gains more (``docs/measurements.md``)."""
STEPS = 4
"""Progress per pair that is learned from: it is read, compared, and fitted to, by image and by text."""
_AT_ONCE = 64  # pairs: Qdrant Edge holds Python's lock while it reads them
_IDS_AT_ONCE = 10_000


def learn(
    store: Memory,
    k: int,
    *,
    extras: Sequence[Extra] = (),
    progress: Callable[[int], object] = int,
) -> Calibration | None:
    """Learn calibration from a memory's pairs, at most :data:`LEARNED_FROM` drawn ones, and store it with them.

    Args:
        store: the pairs.
        k: neighbours of the searches to come.
        extras: learn too; what they learn is stored with the state, by name.
        progress: gets a number of steps, of :func:`steps_of` in all; what it raises ends this.

    Returns:
        None where there are too few pairs, or too equal ones; then the memory holds no state either.

    Raises:
        MemoryStoreError: reading or writing failed.
    """
    count = store.count()
    pairs = read_pairs(store, count if count >= FEWEST else 0, progress)
    learned = calibrate(pairs.image, pairs.text, k=k, progress=progress) if len(pairs) else None
    if learned is None:
        if store.header.calibration:  # learned of pairs that are no longer there
            store.set_calibration({})
        return None
    told = dict[str, Mapping[str, Any]]()
    for extra in extras if learned.state.fitted else ():
        if (found := extra.learn(learned, pairs, k, progress)) is not None:
            told[extra.name] = found
    state = replace(learned.state, pairs=count)
    store.set_calibration({**state.to_json(), **told})
    return state


def steps_of(pairs: int) -> int:
    """The steps of learning from a memory of so many pairs."""
    return STEPS * min(pairs, LEARNED_FROM)


def read_pairs(store: Memory, count: int, progress: Callable[[int], object] = int) -> Records:
    """The pairs without payloads, or a random choice of them, in order of their ids: not by the store's order."""
    drawn = None
    if count > LEARNED_FROM:
        log.warning("learning from %d of %d pairs, drawn at random", LEARNED_FROM, count)
        drawn = _draw(store, count, LEARNED_FROM)
    batches = list[Records]()
    for batch in store.scroll(_AT_ONCE, drawn) if count else ():
        batches.append(replace(batch, payloads=[{}] * len(batch)))
        progress(len(batch))
    pairs = Records.join(batches, store.header.fingerprint.dimension)
    return pairs.take(sorted(range(len(pairs)), key=pairs.ids.__getitem__)[:count])  # some may be added meanwhile


def _draw(store: Memory, count: int, wanted: int) -> list[str]:
    """Ids of so many of the pairs, at random; no vectors are read."""
    chosen = np.zeros(count, np.bool_)
    chosen[np.random.default_rng(0).choice(count, wanted, replace=False)] = True
    drawn, last, seen = list[str](), None, 0
    while seen < count and (ids := store.ids_after(last, _IDS_AT_ONCE)):
        here = chosen[seen : seen + len(ids)]  # shorter than the page where pairs were added meanwhile
        drawn += [ids[row] for row in np.flatnonzero(here).tolist()]
        seen, last = seen + len(ids), ids[-1]
    return drawn
