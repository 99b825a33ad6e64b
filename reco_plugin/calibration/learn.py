"""Learn calibration from a memory's pairs and store it with them; judge pairs that come later."""

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
from ..types import MODALITIES, Modality, Records, Search, Vectors, other
from .apart import lesson_apart
from .extra import Extra
from .lesson import COMPARED, FITTED, Lesson
from .note import BEGUN
from .reliability import Judges, judge
from .state import ENOUGH, FEWEST, Calibration

log = logging.getLogger(__name__)
Part = TypeVar("Part")
LEARNED_FROM = 20_000
"""Pairs that are learned from, at most: with all of 60,000, nothing gains more (``docs/measurements.md``)."""
STEPS = 1 + COMPARED + FITTED + 1
"""Progress per pair: it is read, compared, fitted to, and written."""
_AT_ONCE, _AT_ONCE_BEHIND = 256, 32  # pairs: behind a service, since Qdrant Edge holds Python's lock meanwhile
_PAUSE = 4.0  # behind a service, in the time that a part took
_IDS_AT_ONCE = 1_000
_IDS_AHEAD = 50_000  # a search for pairs that are not judged looks at all


def learn(
    store: Memory,
    k: int,
    *,
    extras: Sequence[Extra] = (),
    apart: bool = False,
    progress: Callable[[int], object] = int,
) -> Calibration | None:
    """Learn calibration from a memory's pairs; each pair's caption scores and the state are stored with it.

    Of more than :data:`LEARNED_FROM` pairs, so many are drawn at random and are learned from. The others are judged
    beside those once the state is stored; until then they count as average, or as before. Where that was interrupted,
    the next call goes on with those that have no caption scores.

    While it runs, the memory notes that it does, see :func:`~.note.unfinished`.

    Args:
        store: the pairs.
        k: neighbours of the searches to come.
        extras: learn too; what they learn is stored with the state, by name.
        apart: learn in a process of its own, and read and write a little at a time, with pauses.
        progress: gets a number of pairs, for each pair :data:`STEPS` times; what it raises ends this.

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
        for rows in _parts(len(pairs), progress, apart):
            store.set_caption_scores(pairs.ids[rows], learned.caption_scores[rows])
            progress(len(pairs.ids[rows]))
        store.flush()
        state = replace(learned.state, pairs=count)
        store.set_calibration({**state.to_json(), **learned.extras})
        if count > len(pairs):
            _judge_others(store, lesson, count - len(pairs), progress, apart)
    return state


def _judge_others(store: Memory, lesson: Lesson, others: int, progress: Callable[[int], object], apart: bool) -> None:
    """Judge those pairs that have no caption scores yet, beside those that were learned from."""
    left = min(store.count_unjudged(), others)
    progress((STEPS - 1) * (others - left))
    while left > 0 and (ids := store.unjudged(min(_IDS_AHEAD, left))):
        for records in _paced(store.scroll(_AT_ONCE_BEHIND if apart else _AT_ONCE, ids), progress, apart):
            store.set_caption_scores(records.ids, lesson.judge(records.image, records.text))
            progress((STEPS - 1) * len(records))
        left -= len(ids)
        store.flush()


def _parts(count: int, progress: Callable[[int], object], apart: bool) -> Iterator[slice]:
    """Rows of so many, a part at a time."""
    size = _AT_ONCE_BEHIND if apart else _AT_ONCE
    return _paced((slice(start, start + size) for start in range(0, count, size)), progress, apart)


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
        drawn = _draw(store, count, LEARNED_FROM, progress)
    size, batches = _AT_ONCE_BEHIND if apart else _AT_ONCE, list[Records]()
    for batch in _paced(store.scroll(size, drawn) if count else (), progress, apart):
        batches.append(replace(batch, payloads=[{}] * len(batch)))
        progress(0 if drawn else len(batch))
    pairs = Records.join(batches, store.header.fingerprint.dimension)
    return pairs.take(sorted(range(len(pairs)), key=pairs.ids.__getitem__)[:count])  # some may be added meanwhile


def _draw(store: Memory, count: int, wanted: int, progress: Callable[[int], object]) -> list[str]:
    """Ids of so many of the pairs, at random; no vectors are read."""
    chosen = np.zeros(count, np.bool_)
    chosen[np.random.default_rng(0).choice(count, wanted, replace=False)] = True
    drawn, last, seen = list[str](), None, 0
    while seen < count and (ids := store.ids_after(last, _IDS_AT_ONCE)):
        here = chosen[seen : seen + len(ids)]  # shorter than the page where pairs were added meanwhile
        drawn += [ids[row] for row in np.flatnonzero(here).tolist()]
        progress(len(here))
        seen, last = seen + len(ids), ids[-1]
    return drawn


def score_captions(
    store: Memory,
    state: Calibration,
    ids: Sequence[str],
    k: int,
    *,
    around: bool,
    progress: Callable[[int], object] = int,
) -> None:
    """Score the captions of stored pairs by their neighbours of now; unknown ids are left out.

    Args:
        store: the memory.
        state: learned from it.
        ids: of the pairs.
        k: neighbours.
        around: whether also those that they found are scored anew: the new pairs may be among their nearest.
        progress: gets the number of pairs after each batch of two searches a pair.
    """
    found = set[str]()
    for start in range(0, len(ids), _AT_ONCE):
        for records in store.scroll(ids=ids[start : start + _AT_ONCE]):
            found |= _score_captions(store, state, records, k)
            progress(len(records))
    if around:
        score_captions(store, state, sorted(found.difference(ids)), k, around=False, progress=progress)


def _score_captions(store: Memory, state: Calibration, records: Records, k: int) -> set[str]:
    """Score the captions of pairs (N, D); returns the ids of those that they found."""
    near, found, alone = dict[Modality, Judges](), set[str](), [[name] for name in records.ids]
    for modality in MODALITIES:
        search = Search(records.side(modality), modality, other(modality), k, exclude=alone, caption_scores=True)
        hits = store.search(search)
        similarity = np.where(hits.found, hits.similarity, np.float32(-2.0))
        near[modality] = Judges(similarity, hits.vectors, state.reliability_of(hits))
        found.update(*hits.ids)
    spreads = {modality: state.sides[modality].spread for modality in MODALITIES}
    pairs: dict[Modality, Vectors] = {"image": records.image, "text": records.text}
    store.set_caption_scores(records.ids, judge(state.values, spreads, pairs, near))
    return found
