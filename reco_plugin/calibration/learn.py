"""Learn calibration from a memory's pairs and store it with them; witness pairs that come later."""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from ..defaults import NEIGHBOURS, PAIRS_IN_RAM
from ..errors import ConfigError, InputError, LearningDied, MemoryStoreError
from ..fuse import Refining
from ..machine.blas import one_thread_each, threads_at_most
from ..machine.ram import free_bytes
from ..memory import Memory, Searches
from ..options import RefineOptions
from ..types import MODALITIES, Modality, Records, Refinement, Search, Vectors, other
from .calibrate import Calibrated, calibrate
from .closed_form import ClosedForm
from .in_ram import PairsInRam
from .match import FEWEST_THINGS, MatchState
from .note import BEGUN
from .probes import MANY
from .questions import RefineHidden, ask_own
from .reliability import Judges, judge
from .state import ENOUGH, FEWEST, Calibration

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")
_COMPARED, _FITTED = 2, 3
STEPS = 1 + _COMPARED + _FITTED + 1
"""Progress per pair: it is read, compared by image and by text, fitted to, by either and in the self-check, and
written."""
_AT_ONCE = 256
_IDS_AT_ONCE = 1_000
_BESIDE_AT_ONCE = 100_000  # of long lists, in products of some hundred rows; 0.4 GB of D = 512
_EVENLY = 40_000  # of which each of two or four threads gets as many, see :mod:`.probes`
_IDS_AHEAD = 10  # times so many ids are asked for: a search for pairs that are not judged looks at all
_SHARE = 0.5  # of the free RAM that learning may take: the rest is for those who ask meanwhile
_VECTORS, _BESIDE = 3, 1_200  # of a pair: vectors, with those of one side while it is sorted; bytes beside them
_PRODUCTS, _MOMENTS = 128 * 2**20, 400_000  # bytes for products of a thread; for moments, of a dimension
_LEAST = 5_000  # pairs that are learned from, whatever room there is


def learn(store: Memory, k: int, *, asks: bool = True, progress: Callable[[int], object] = int) -> Calibration | None:
    """Learn calibration from a memory's pairs; each pair's witnesses and the state are stored with it.

    Of more than :data:`~reco_plugin.defaults.PAIRS_IN_RAM` pairs, or than the free RAM holds, so many are drawn at
    random and are learned from. The others are judged beside those once the state is stored; until then they count as
    average, or as before. Where that was interrupted, the next call goes on with those that have no witnesses.

    While it runs, the memory notes that it does, see :func:`~.note.unfinished`.

    Args:
        store: the pairs.
        k: neighbours of the searches to come.
        asks: whether its pairs also ask how sure an answer is; a memory that only refines does without.
        progress: gets a number of pairs, for each pair :data:`STEPS` times.

    Returns:
        None where there are too few pairs, or too equal ones; then the memory holds no state either.
    """
    with noted(store, store.count()):
        return learn_noted(store, k, progress, asks=asks)


def learn_noted(store: Memory, k: int, progress: Callable[[int], object], *, asks: bool = True) -> Calibration | None:
    """Learn, see :func:`learn`, where the note is there already."""
    count = store.count()
    pairs = _read(store, count if count >= FEWEST else 0, progress)
    if not len(pairs):
        _unlearn(store)
        return None
    with _thread_beside() as beside, one_thread_each():
        writing = list[Future[None]]()

        def write(witnesses: npt.NDArray[np.float32]) -> None:
            writing.extend(_set_witnesses(store, pairs.ids, witnesses, beside))

        learned = _calibrate(pairs, k, progress, write)
        if learned is None:
            _unlearn(store)
            return None
        for one in writing:
            one.result()
        progress(len(pairs))
        store.flush()
        state = replace(learned.state, pairs=count)
        before = _stored_match(store.header.calibration)
        group = str(before.get("group", ""))
        kept = before if state.fitted else _only_group(group)  # what is known of matches counts until they asked again
        # after those that it was learned from: until then, the old state counts
        store.set_calibration({**state.to_json(), **({"match": dict(kept)} if kept else {})})
        others = _Others(store, beside, len(pairs), count - len(pairs)) if count > len(pairs) else None
        if asks and state.fitted:
            _ask(store, pairs, learned.witnesses, state, k, group, progress)
        if others is not None:
            _witness_others(store, learned, others, beside, progress)
    return state


def _unlearn(store: Memory) -> None:
    """Drop what was learned of pairs that are no longer there."""
    if store.header.calibration:
        store.set_calibration({})


def _ask(
    store: Memory,
    pairs: Records,
    witnesses: npt.NDArray[np.float32],
    state: Calibration,
    k: int,
    group: str,
    progress: Callable[[int], object],
) -> None:
    """Store what the pairs' questions say of how sure an answer is; a store that fails now has the state anyway."""
    try:
        refine = _refining(store, state, k, pairs, witnesses)
        groups, in_threads = _groups(store, pairs.ids, group), len(pairs) > MANY
        matches = ask_own(pairs, refine, groups, in_threads=in_threads, progress=progress)
        known = _only_group(group) if matches is None else replace(matches, group=group, k=k).to_json()
        store.set_calibration({**state.to_json(), **({"match": known} if known else {})})
    except MemoryStoreError as error:
        log.warning("how sure an answer is was not learned, which `reco memory calibrate` does again: %s", error)


def ask_again(store: Memory, group: str) -> MatchState:
    """Ask with things that a field of the payload names, and store what that says; calibration keeps to it from then.

    Args:
        store: a memory that was calibrated.
        group: the field; empty: pairs of one caption are a thing.

    Raises:
        InputError: no pair has this field, or there are too few things; what is stored stays.
        ConfigError: the memory is not calibrated.
    """
    calibration = store.header.calibration
    if not calibration:
        raise ConfigError("the memory is not calibrated: run `reco memory calibrate`")
    state, k = Calibration.from_json(calibration), int(_stored_match(calibration).get("k", NEIGHBOURS))
    pairs = _read(store, store.count(), int)
    groups = _groups(store, pairs.ids, group)
    if groups == list(pairs.ids):
        raise InputError(f"no pair has a field {group!r} in its payload; `reco memory search` shows what there is")
    refine = _refining(store, state, k, pairs, store.witnesses(pairs.ids))
    with one_thread_each():
        matches = ask_own(pairs, refine, groups)
    if matches is None:
        raise InputError(f"too few things to ask of, by {group or 'caption'}: {FEWEST_THINGS} must be there")
    matches = replace(matches, group=group, k=k)
    store.set_calibration({**calibration, "match": matches.to_json()})
    return matches


def _only_group(group: str) -> dict[str, Any]:
    """What is stored of matches where nothing is known of them: by which field the pairs will ask."""
    return {"group": group} if group else {}


def _stored_match(calibration: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is stored of matches, unread."""
    stored = calibration.get("match")
    return stored if isinstance(stored, Mapping) else {}


def _groups(store: Memory, ids: Sequence[str], group: str) -> list[str] | None:
    """The thing of each pair by a field of its payload, its id where it has none; None: by captions."""
    if not group:
        return None
    named = {id_: payload.get(group) for id_, payload in store.payloads()}
    return [id_ if named.get(id_) is None else str(named[id_]) for id_ in ids]


def _calibrate(
    pairs: Records,
    k: int,
    progress: Callable[[int], object],
    witnessed: Callable[[npt.NDArray[np.float32]], object],
) -> Calibrated | None:
    """Learn from pairs (N, D); a memory that is too small for a self-check counts its steps at once."""
    left = (_COMPARED + _FITTED) * len(pairs)

    def count(steps: int) -> None:
        nonlocal left
        left -= steps
        progress(steps)

    learned = calibrate(pairs.image, pairs.text, k=k, progress=count, witnessed=witnessed)
    progress(left)
    return learned


@dataclass(frozen=True)
class _Learned:
    """A memory with what was just learned of it, see :class:`~reco_plugin.fuse.Learned`, and what is searched."""

    store: Memory
    calibration: Calibration | None
    searches: Searches


def _refining(
    store: Memory, state: Calibration, k: int, pairs: Records, witnesses: npt.NDArray[np.float32]
) -> RefineHidden:
    """Refines as a memory of these pairs (N, D) alone would by default.

    So thousands of questions take seconds, and a store is not kept busy. Of a memory of more pairs than are learned
    from, most others are not judged yet then.
    """
    how = RefineOptions(k=k, gate=True, target=None, caution="balanced", fuser="reco", explain=False)
    fuser, learned = ClosedForm(), _Learned(store, state, PairsInRam(store.header, pairs, witnesses))

    def refine(queries: Vectors, modality: Modality, hidden: Sequence[Collection[str]]) -> Refinement:
        blocks = (slice(start, start + _AT_ONCE) for start in range(0, len(queries), _AT_ONCE))
        asked = (Refining(learned, queries[rows], modality, "query", how, hidden[rows]) for rows in blocks)
        return Refinement.join([fuser.refine(one) for one in asked])

    return refine


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


def _pairs_that_fit(dimension: int, count: int) -> int:
    """Pairs that are learned from at most, of so many; few are, whatever room there is."""
    if count <= min(_LEAST, PAIRS_IN_RAM):
        return count
    if (free := free_bytes()) is None:
        return PAIRS_IN_RAM
    a_pair, always = 4 * dimension * _VECTORS + _BESIDE, _PRODUCTS * threads_at_most() + _MOMENTS * dimension
    return int(np.clip((_SHARE * free - always) / a_pair, _LEAST, PAIRS_IN_RAM))


def _read(store: Memory, count: int, progress: Callable[[int], object]) -> Records:
    """The pairs without payloads, or a random choice of them, in order of their ids: not by the store's order."""
    dimension = store.header.fingerprint.dimension
    wanted = min(count, _pairs_that_fit(dimension, count))
    if wanted < count:
        why = "" if wanted == PAIRS_IN_RAM else f", as the free RAM of {(free_bytes() or 0) / 2**20:,.0f} MiB allows"
        log.warning("learning from %d of %d pairs, drawn at random%s", wanted, count, why)
        return _join(store.scroll(ids=_draw(store, count, wanted, progress)), wanted, dimension)

    def batches() -> Iterator[Records]:
        left = count
        for batch in store.scroll() if count else ():
            yield batch.take(np.arange(min(len(batch), left)))  # pairs may be added meanwhile
            progress(min(len(batch), left))
            left -= min(len(batch), left)

    return _join(batches(), wanted, dimension, ordered=True)


def _draw(store: Memory, count: int, wanted: int, progress: Callable[[int], object]) -> list[str]:
    """Ids of so many of the pairs, at random, sorted; no other vectors are read."""
    chosen = np.zeros(count, np.bool_)
    chosen[np.random.default_rng(0).choice(count, wanted, replace=False)] = True
    drawn, last, seen = list[str](), None, 0
    while seen < count and (ids := store.ids_after(last, _IDS_AT_ONCE)):
        here = chosen[seen : seen + len(ids)]  # shorter than the page where pairs were added meanwhile
        drawn += [ids[row] for row in np.flatnonzero(here).tolist()]
        progress(len(here))
        seen, last = seen + len(ids), ids[-1]
    return sorted(drawn)


def _join(batches: Iterable[Records], most: int, dimension: int, *, ordered: bool = False) -> Records:
    """Batches (N, D) of so many pairs at most, without payloads, in arrays that are made once; ordered by id or not."""
    sides: dict[Modality, Vectors] = {m: np.empty((most, dimension), np.float32) for m in MODALITIES}
    ids = list[str]()
    for batch in batches:
        for m in MODALITIES:
            sides[m][len(ids) : len(ids) + len(batch)] = batch.side(m)
        ids += batch.ids
    if ordered:
        order = np.asarray(sorted(range(len(ids)), key=ids.__getitem__), np.intp)
        ids = [ids[row] for row in order.tolist()]
        for m in MODALITIES:  # one after the other: both at once would be held twice
            sides[m] = sides[m][order]
    return Records(ids, sides["image"][: len(ids)], sides["text"][: len(ids)], [{}] * len(ids))


class _Here(Executor):
    """Does what it is given at once, in the thread that gives it."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Do it; what it raises is raised by the result."""
        done = Future[R]()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


@contextmanager
def _thread_beside() -> Iterator[Executor]:
    """A thread that reads and writes; where the system refuses one, by a limit of a container, this one does.

    Of what it was given, it begins nothing more once the block ends, as by Ctrl-C.
    """
    beside: Executor = ThreadPoolExecutor(1, "reco-beside")
    try:
        beside.submit(int)  # begins the thread, as nothing later does
    except RuntimeError:
        beside.shutdown(cancel_futures=True)
        beside = _Here()
    try:
        yield beside
    finally:
        beside.shutdown(cancel_futures=True)


def _submit(beside: Executor, what: Callable[P, R], *given: P.args, **named: P.kwargs) -> Future[R]:
    """Let the thread do this as part of what this one does, such as a write that waits for a server."""
    context = copy_context()
    return beside.submit(lambda: context.run(what, *given, **named))


class _Others:
    """Pairs that have no witnesses yet, part by part: a thread reads one part ahead of what is worked on.

    Which they are is asked of the store, so an interrupted learning goes on where it was.
    """

    def __init__(self, store: Memory, beside: Executor, learned_from: int, others: int) -> None:
        """Begin to read; ``others`` pairs at most, of which those that are judged already are left out."""
        self._store, self._beside, self._ids, self._at_work = store, beside, list[str](), set[str]()
        self._left = min(store.count_unjudged(), others)
        self.judged_before = others - self._left
        size = min(_BESIDE_AT_ONCE, max(learned_from // 4, 1))  # those at hand take no more RAM than learning did
        self._size = size - size % _EVENLY if size > _EVENLY else size
        self._coming = _submit(beside, self._read)

    def __iter__(self) -> Iterator[Records]:
        """Pairs (N, D) without payloads; what a reading raised is raised here."""
        while (records := self._coming.result()) is not None:
            self._coming = _submit(self._beside, self._read)
            yield records

    def _read(self) -> Records | None:
        """The next part, in the thread: the part before the last is written then, as that was handed to it earlier."""
        if not self._ids and self._left:
            found = self._store.unjudged(min(_IDS_AHEAD * self._size, self._left) + len(self._at_work))
            self._ids = [name for name in found if name not in self._at_work]
        ids = self._ids[: min(self._size, self._left)]
        self._ids, self._left, self._at_work = self._ids[len(ids) :], self._left - len(ids), set(ids)
        return _join(self._store.scroll(ids=ids), len(ids), self._store.header.fingerprint.dimension) if ids else None


def _witness_others(
    store: Memory, learned: Calibrated, others: _Others, beside: Executor, progress: Callable[[int], object]
) -> None:
    """Witness those pairs that have no witnesses yet, many at once: what is near is compared in one product.

    The next are read, and the last ones written, in the thread meanwhile.
    """
    progress((STEPS - 1) * others.judged_before)
    writing = list[Future[None]]()

    def finish() -> None:
        for one in writing:
            one.result()

    try:
        for records in others:
            witnesses = learned.witness(records.image, records.text, progress)
            progress(_FITTED * len(records))
            finish()
            writing = [*_set_witnesses(store, records.ids, witnesses, beside), _submit(beside, store.flush)]
            progress(len(records))
    except BaseException:  # Ctrl-C, too: to judge pairs takes far longer than to write it
        with suppress(Exception):  # what ended it counts
            finish()
        raise
    finish()


def _set_witnesses(
    store: Memory, ids: Sequence[str], witnesses: npt.NDArray[np.float32], beside: Executor
) -> list[Future[None]]:
    """Let the thread write the witnesses (N, 3), some at a time."""
    parts = (slice(start, start + _AT_ONCE) for start in range(0, len(ids), _AT_ONCE))
    return [_submit(beside, store.set_witnesses, ids[rows], witnesses[rows]) for rows in parts]


def witness(
    store: Memory,
    state: Calibration,
    ids: Sequence[str],
    k: int,
    *,
    around: bool,
    progress: Callable[[int], object] = int,
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


def _witness(store: Memory, state: Calibration, records: Records, k: int) -> set[str]:
    """Witness pairs (N, D); returns the ids of those that they found."""
    near, found, alone = dict[Modality, Judges](), set[str](), [[name] for name in records.ids]
    for modality in MODALITIES:
        search = Search(records.side(modality), modality, other(modality), k, exclude=alone, witnesses=True)
        hits = store.search(search)
        similarity = np.where(hits.found, hits.similarity, np.float32(-2.0))
        counts = state.reliability_of(hits) if state.reliability.alike else np.ones_like(similarity)
        near[modality] = Judges(similarity, hits.vectors, counts)
        found.update(*hits.ids)
    spreads = {modality: state.sides[modality].spread for modality in MODALITIES}
    pairs: dict[Modality, Vectors] = {"image": records.image, "text": records.text}
    store.set_witnesses(records.ids, judge(state.values, spreads, pairs, near, alike=state.reliability.alike))
    return found
