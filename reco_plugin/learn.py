"""Learn trust from a memory's pairs and store it with them; witness pairs that come later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .defaults import PAIRS_IN_RAM
from .memory import Memory
from .request import Search
from .trust import Calibrated, State, calibrate
from .trust.calibrate import FEWEST
from .trust.honesty import predict
from .types import MODALITIES, Records, other

STEPS = 4
"""Progress per pair: it is read, compared by image and by text, and written."""
_AT_ONCE = 256
_BESIDE_AT_ONCE = 100_000  # of long lists, in products of some hundred rows; 0.4 GB of D = 512


def learn(store: Memory, k: int, *, progress: Callable[[int], object] = int) -> State | None:
    """Learn trust from a memory's pairs; each pair's witnesses and the state are stored with it.

    Of more than :data:`~reco_plugin.defaults.PAIRS_IN_RAM` pairs, so many are drawn at random and are learned from. The
    others are judged beside those once the state is stored; until then they count as average, or as before. Where that
    was interrupted, the next call goes on with those that have no witnesses.

    Args:
        store: the pairs.
        k: neighbours of the searches to come.
        progress: gets a number of pairs, for each pair :data:`STEPS` times.

    Returns:
        None where there are too few pairs, or too equal ones; then the memory holds no state either.
    """
    count = store.count()
    pairs, others = _read(store, count if count >= FEWEST else 0, progress)
    learned = calibrate(pairs.image, pairs.text, k=k, progress=progress) if len(pairs) else None
    if learned is None:
        if store.header.trust:
            store.set_trust({})
        return None
    _set_witnesses(store, pairs.ids, learned.witnesses, progress)
    store.flush()
    state = replace(learned.state, pairs=count)
    store.set_trust(state.to_json())  # after those that it was learned from: until then, the old state counts
    _witness_others(store, learned, others, progress)
    return state


def _witness_others(store: Memory, learned: Calibrated, ids: Sequence[str], progress: Callable[[int], object]) -> None:
    """Witness those pairs that have no witnesses yet, many at once: those of one list are compared in one product."""
    for start in range(0, len(ids), _BESIDE_AT_ONCE):
        some = ids[start : start + _BESIDE_AT_ONCE]
        missing = ~np.isfinite(store.witnesses(some)).all(axis=1)
        progress((STEPS - 1) * int((~missing).sum()))
        there = store.scroll(ids=[some[row] for row in np.flatnonzero(missing).tolist()])
        records = Records.join(list(there), store.header.fingerprint.dimension)
        witnesses = learned.witness(records.image, records.text, progress)
        _set_witnesses(store, records.ids, witnesses, progress)
    if ids:
        store.flush()


def _set_witnesses(
    store: Memory, ids: Sequence[str], witnesses: npt.NDArray[np.float32], progress: Callable[[int], object]
) -> None:
    for start in range(0, len(ids), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        store.set_witnesses(ids[rows], witnesses[rows])
        progress(len(ids[rows]))


def witness(
    store: Memory, state: State, ids: Sequence[str], k: int, *, around: bool, progress: Callable[[int], object] = int
) -> None:
    """Witness stored pairs by their neighbours of now; unknown ids are left out.

    Args:
        store: the memory.
        state: learned from it.
        ids: of the pairs.
        k: neighbours.
        around: whether also those that they found are witnessed anew: the new pairs may be among their nearest.
        progress: gets the number of pairs after each batch of two searches a pair.
    """
    found = set[str]()
    for start in range(0, len(ids), _AT_ONCE):
        for records in store.scroll(ids=ids[start : start + _AT_ONCE]):
            found |= _witness(store, state, records, k)
            progress(len(records))
    if around:
        witness(store, state, sorted(found.difference(ids)), k, around=False, progress=progress)


def _witness(store: Memory, state: State, records: Records, k: int) -> set[str]:
    """Witness pairs (N, D); returns the ids of those that they found."""
    near, found, alone = {}, set[str](), [[name] for name in records.ids]
    for modality in MODALITIES:
        hits = store.search(Search(records.side(modality), modality, other(modality), k, exclude=alone))
        near[modality] = np.where(hits.found, hits.similarity, np.float32(-2.0)), hits.vectors
        found.update(*hits.ids)
    spreads = {modality: state.sides[modality].spread for modality in MODALITIES}
    said = predict(state.values, spreads, records.image, near)
    store.set_witnesses(records.ids, said.witnesses(state.values, records.image, records.text))
    return found


def _read(store: Memory, count: int, progress: Callable[[int], object]) -> tuple[Records, list[str]]:
    """The pairs without payloads, or a random choice of them, in order of their ids: not by the store's order.

    Returns:
        The pairs, and the ids of those that were not chosen.
    """
    chosen = np.ones(count, np.bool_)
    if count > PAIRS_IN_RAM:
        logging.getLogger(__name__).warning("learning from %d of %d pairs, drawn at random", PAIRS_IN_RAM, count)
        chosen[:] = False
        chosen[np.random.default_rng(0).choice(count, PAIRS_IN_RAM, replace=False)] = True
    parts, others, seen = list[Records](), list[str](), 0
    for batch in store.scroll() if count else ():
        here = chosen[seen : seen + len(batch)]  # shorter than the batch where pairs were added meanwhile
        kept = batch.take(np.flatnonzero(here))
        others += [batch.ids[row] for row in np.flatnonzero(~here).tolist()]
        parts.append(replace(kept, payloads=[{}] * len(kept)))
        seen += len(batch)
        progress(len(here))
    pairs = Records.join(parts, store.header.fingerprint.dimension)
    return pairs.take(np.asarray(sorted(range(len(pairs)), key=pairs.ids.__getitem__), np.intp)), others
