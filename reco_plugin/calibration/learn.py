"""Learn calibration from a memory's pairs, and store it with them."""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np

from ..errors import LearningDied, MemoryStoreError
from ..memory import Memory
from ..types import Records
from .apart import lesson_apart
from .extra import Extra
from .lesson import COMPARED, FITTED, Lesson
from .note import BEGUN
from .state import ENOUGH, FEWEST, Calibration

log = logging.getLogger(__name__)
Part = TypeVar("Part")
LEARNED_FROM = 20_000
"""Pairs that are learned from, at most: with all of 60,000, nothing gains more (``docs/measurements.md``)."""
STEPS = 1 + COMPARED + FITTED
"""Progress per pair that is learned from: it is read, compared, and fitted to."""
_AT_ONCE, _AT_ONCE_BEHIND = 256, 32  # pairs: behind a service, since Qdrant Edge holds Python's lock meanwhile
_PAUSE = 4.0  # behind a service, in the time that a part took
_IDS_AT_ONCE = 1_000


def learn(
    store: Memory,
    k: int,
    *,
    extras: Sequence[Extra] = (),
    apart: bool = False,
    progress: Callable[[int], object] = int,
) -> Calibration | None:
    """Learn calibration from a memory's pairs, at most :data:`LEARNED_FROM` drawn ones, and store it with them.

    While it runs, the memory notes that it does, see :func:`~.note.unfinished`.

    Args:
        store: the pairs.
        k: neighbours of the searches to come.
        extras: learn too; what they learn is stored with the state, by name.
        apart: learn in a process of its own, and read a little at a time, with pauses.
        progress: gets a number of steps, of :func:`steps_of` in all; what it raises ends this.

    Returns:
        None where there are too few pairs, or too equal ones; then the memory holds no state either.

    Raises:
        LearningDied: the process of its own ended without a result; the memory keeps the note that it began.
        MemoryStoreError: reading or writing failed.
    """
    count = store.count()
    with noted(store, count), lesson_apart(progress) if apart else nullcontext(Lesson(progress)) as lesson:
        pairs = read_pairs(store, count if count >= FEWEST else 0, progress, apart=apart)
        learned = lesson.learn(pairs, k, extras) if len(pairs) else None
        if learned is None:
            if store.header.calibration:  # learned of pairs that are no longer there
                store.set_calibration({})
            return None
        state = replace(learned.state, pairs=count)
        store.set_calibration({**state.to_json(), **learned.extras})
    return state


def steps_of(pairs: int) -> int:
    """The steps of learning from a memory of so many pairs."""
    return STEPS * min(pairs, LEARNED_FROM)


def _paced(parts: Iterable[Part], progress: Callable[[int], object], apart: bool) -> Iterator[Part]:
    """Parts of work; behind a service, with a pause after each."""
    begun = time.thread_time()
    for part in parts:
        yield part
        if apart:
            time.sleep(_PAUSE * (time.thread_time() - begun))
            progress(0)
        begun = time.thread_time()


@contextmanager
def noted(store: Memory, pairs: int) -> Iterator[None]:
    """Let the memory hold a note while something is learned from so many pairs; a process that is killed leaves it."""
    if pairs < ENOUGH:  # it takes no RAM
        yield
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    BEGUN.add(name := uuid.uuid4().hex)
    store.note_learning({"id": name, "since": now, "host": socket.gethostname(), "pairs": pairs})
    try:
        yield
    except LearningDied:
        BEGUN.discard(name)  # the note stays, as of any process that was killed
        raise
    except BaseException:
        _forget(store)
        raise
    _forget(store)


def _forget(store: Memory) -> None:
    """Take the note back."""
    try:
        store.note_learning({})
    except MemoryStoreError as error:  # what ended the learning counts
        log.warning("the memory still says that it is being learned from: %s", error)


def read_pairs(store: Memory, count: int, progress: Callable[[int], object] = int, *, apart: bool = False) -> Records:
    """The pairs without payloads, or a random choice of them, in order of their ids: not by the store's order."""
    drawn = None
    if count > LEARNED_FROM:
        log.warning("learning from %d of %d pairs, drawn at random", LEARNED_FROM, count)
        drawn = _draw(store, count, LEARNED_FROM)
    size, batches = _AT_ONCE_BEHIND if apart else _AT_ONCE, list[Records]()
    for batch in _paced(store.scroll(size, drawn) if count else (), progress, apart):
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
