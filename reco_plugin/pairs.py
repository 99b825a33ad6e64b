"""The memory for applications: encodes and stores raw pairs, and calibrates the gate."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from .defaults import INGEST_BATCH, POLICY_NEIGHBOURS, RESULTS
from .encode import Encoder, encode_pairs
from .errors import ConfigError, InputError, MemoryStoreError
from .learn import STEPS, learn, witness
from .memory import Header, LazyMemory, Memory
from .memory.checks import check_pair
from .request import Search
from .trust import State
from .trust.calibrate import ENOUGH
from .types import Filter, ImageInput, Modality, Neighbours, Pair, Records, Vectors
from .values import show
from .vectors import check_vectors

_GROWTH = 2.0  # calibrate again when the memory has grown, or shrunk, by this factor
_WITHOUT = 0.25  # of the pairs lack witnesses: learning anew then takes less time than two searches for each
_BEHIND = 64  # new pairs whose surroundings are searched in one go by a thread


class PairMemory:
    """Pairs that refinement retrieves from.

    Attributes:
        searches: the engine, or a memory that could not be reached yet.
        encoder: makes the vectors of raw images and texts.
        kind: of the memory.
        location: folder, ``:memory:`` or URL.
        learns_behind: whether writes leave learning to a thread, as in a service; else they wait for it.
    """

    def __init__(self, store: Memory | LazyMemory, encoder: Encoder, neighbours: int = POLICY_NEIGHBOURS) -> None:
        self.kind, self.location = store.kind, store.location
        self.searches, self.encoder, self._neighbours = store, encoder, neighbours
        self._learned = (store.header, _read_trust(store.header))
        self._version, self._counting = 0, threading.Lock()
        self.learns_behind, self._closing = False, threading.Event()
        self._learning, self._starting = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._new, self._tried = list[str](), 0  # pairs without witnesses; pairs of the last attempt to learn

    def __len__(self) -> int:
        return self.store.count()

    @property
    def store(self) -> Memory:
        """The engine; one that was down before is opened now.

        Raises:
            FingerprintMismatch: it is of another encoder.
            MemoryStoreError: it is still down.
        """
        return self.searches.ensure_open() if isinstance(self.searches, LazyMemory) else self.searches

    @property
    def trust(self) -> State | None:
        """What the memory has learned about its pairs; None while it is empty, not calibrated or not reached yet."""
        header, (known, trust) = self.searches.header, self._learned
        if header is not known:  # reached, calibrated, or another version was put to use
            trust = _read_trust(header)
            self._learned = (header, trust)
        return trust

    @property
    def version(self) -> int:
        """Changes with each write through this object: vectors refined before may be outdated."""
        return self._version

    def add(
        self, pairs: Iterable[Pair | tuple[Any, ...]], *, batch_size: int = INGEST_BATCH, progress: bool = False
    ) -> int:
        """Encode and store pairs; an id that exists is replaced. Searchable at once, whole batches at a time.

        Then trust is learned, if the memory is new or has doubled, or a quarter of its pairs are new: minutes from
        100,000 pairs on.

        Args:
            pairs: :class:`~reco_plugin.types.Pair` or tuples ``(id, image, text[, payload])``; each side raw or
                a CLIP vector (D,).
            batch_size: pairs per write.
            progress: show a bar with pairs/s on stderr, or a line now and then if it is no terminal.

        Returns:
            How many pairs were stored.

        Raises:
            InputError: a duplicate id within this call, or an invalid side; nothing of its batch is stored.
        """
        from .progress import progress_bar

        total = len(pairs) if isinstance(pairs, Sequence) else getattr(pairs, "total", None)
        with progress_bar(total=total, desc="fill memory", unit="pair", disable=not progress) as bar:
            return self._store(_encode(self.encoder, pairs, batch_size), bar.update, progress=progress)

    def add_records(self, batches: Iterable[Records], *, progress: bool = False) -> int:
        """Store pairs that are vectors (N, D) of this encoder already; returns how many.

        Args:
            batches: the pairs.
            progress: show a bar on stderr while trust is learned.
        """
        return self._store(batches, progress=progress)

    def remove(self, ids: Sequence[str]) -> int:
        """Delete pairs by id; returns how many existed."""
        try:
            return self.store.delete(ids)
        finally:
            self._count_change()

    def get(self, ids: Sequence[str]) -> Records:
        """The stored pairs of these ids, vectors (N, D); unknown ids are left out."""
        return Records.join(list(self.store.scroll(ids=ids)), self.encoder.dimension)

    def search(
        self,
        query: str | ImageInput | Vectors,
        *,
        modality: Modality = "text",
        by: Modality | None = None,
        k: int = RESULTS,
        where: Filter | None = None,
    ) -> Neighbours:
        """Find the pairs nearest to one query, payloads included.

        Args:
            query: a text, an image, or a vector (D,).
            modality: what the query is.
            by: modality of the memory to compare with; None: the query's own.
            k: number of pairs.
            where: conditions on the payload.
        """
        if isinstance(query, np.ndarray):
            vector = check_vectors(query[None], self.encoder.dimension, "query")
        elif modality == "text":
            vector = self.encoder.texts([query])  # type: ignore[list-item]
        elif modality == "image":
            vector = self.encoder.images([query])
        else:
            raise InputError(f"modality must be 'image' or 'text', got {modality!r}")
        return self.store.search(Search(vector, by or modality, modality, k, where=where, payloads=True))

    def calibrate(self, *, progress: bool = False) -> State | None:
        """Learn trust from the pairs, and store it with the memory; see :func:`reco_plugin.learn.learn`.

        Args:
            progress: show a bar on stderr.
        """
        with self._learning, _learning_bar(STEPS * len(self), "step", show=progress) as bar:
            return self._fit(bar.update)

    def settle(self, *, progress: bool = False) -> None:
        """Make all writes durable, and learn from them: at once, or in a thread where :attr:`learns_behind`.

        Trust is learned anew if the memory has grown or shrunk much, or a quarter of the pairs lack witnesses; else
        those get them.

        Args:
            progress: show a bar on stderr where this waits for it.
        """
        self.store.flush()
        if not self.learns_behind or len(self) < ENOUGH:
            try:
                with self._learning:
                    size = (STEPS * len(self), "step") if self._due() else (len(self._new), "pair")
                    with _learning_bar(*size, show=progress) as bar:
                        self._learn(around=False, progress=bar.update)
            except MemoryStoreError as error:
                if self._due():
                    raise
                warnings.warn(f"pairs are stored, but their honesty was not measured: {error}", stacklevel=2)
            return
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._learn_behind, name="reco-trust", daemon=True)
                self._thread.start()

    def witness_later(self, ids: Sequence[str]) -> None:
        """Let the stored pairs of these ids that have no witnesses get them when the writes are settled."""
        if self.trust is not None:  # else it is learned from all pairs
            without = ~np.isfinite(self.store.witnesses(ids)).all(axis=1)
            self._new += [ids[row] for row in np.flatnonzero(without).tolist()]

    def close(self) -> None:
        """Flush and release the store."""
        self._closing.set()
        if (thread := self._thread) is not None:
            thread.join()
        self.searches.close()

    def _due(self) -> bool:
        """Whether trust must be learned anew; where nothing could be learned, the last attempt counts."""
        trust, pairs = self.trust, len(self)
        known = self._tried if trust is None else trust.pairs
        if (trust is None and pairs < ENOUGH) or not known / _GROWTH < pairs < known * _GROWTH:
            return True
        return trust is not None and len(self._new) > _WITHOUT * pairs

    def _learn(self, most: int | None = None, *, around: bool, progress: Callable[[int], object]) -> None:
        """Learn anew, or witness so many of the new pairs."""
        if self._due():
            self._fit(progress)
            return
        new = self._new[:most]
        del self._new[: len(new)]  # in place: another thread may add to it
        if new and (trust := self.trust) is not None:
            witness(self.store, trust, new, self._neighbours, around=around, progress=progress)
            self.store.flush()
            self._count_change()

    def _fit(self, progress: Callable[[int], object]) -> State | None:
        self._new.clear()  # it witnesses all that it reads
        try:
            state = learn(self.store, self._neighbours, progress=progress)
            self._tried = len(self)
            return state
        finally:
            self._count_change()

    def _learn_behind(self) -> None:
        """Learn until nothing is left to do; a failure is a warning, and the next write begins anew."""
        try:
            while self._goes_on():
                begun = time.monotonic()
                with self._learning:
                    self._learn(_BEHIND, around=True, progress=self._refuse_closed)
                self._closing.wait(time.monotonic() - begun)  # half of the time belongs to queries
        except Exception as error:
            self._thread = None
            if not self._closing.is_set():
                warnings.warn(f"trust was not learned from the latest pairs, which are stored: {error}", stacklevel=2)

    def _goes_on(self) -> bool:
        with self._starting:  # no write may come between the last look and the end
            if not (goes_on := not self._closing.is_set() and (bool(self._new) or self._due())):
                self._thread = None
            return goes_on

    def _refuse_closed(self, _: int) -> None:
        if self._closing.is_set():
            raise InterruptedError("the memory is closed")

    def _store(
        self, batches: Iterable[Records], count: Callable[[int], object] = int, *, progress: bool = False
    ) -> int:
        """Write batches (N, D); if a later batch fails, the earlier ones stay, learned from unless it was Ctrl-C."""
        stored, learns = 0, True
        try:
            for records in batches:
                self.store.upsert(records)
                stored += len(records)
                self.witness_later(records.ids)
                count(len(records))
        except KeyboardInterrupt:
            learns = False  # it may take minutes
            raise
        finally:
            try:
                if stored and learns:
                    self.settle(progress=progress)
                elif stored:
                    self.store.flush()
            finally:
                self._count_change()  # at the end, so that no answer from before gets the new number
        return stored

    def _count_change(self) -> None:
        with self._counting:  # two writers at once must not give the same number
            self._version += 1


def _learning_bar(total: int, unit: str, *, show: bool) -> Any:
    from .progress import progress_bar

    return progress_bar(total=total, desc="learn trust", unit=unit, disable=not (show and total))


def _encode(encoder: Encoder, pairs: Iterable[Pair | tuple[Any, ...]], size: int) -> Iterator[Records]:
    if isinstance(pairs, Pair):
        raise InputError(f"pairs must be a list of pairs, got the single pair {pairs.id!r}: put it in a list")
    source, seen = iter(pairs), set[str]()
    while batch := [pair if isinstance(pair, Pair) else _pair(pair) for pair in islice(source, size)]:
        _check_pairs(batch, seen)
        yield encode_pairs(encoder, batch)


def _pair(parts: tuple[Any, ...]) -> Pair:
    if not isinstance(parts, tuple) or not 3 <= len(parts) <= 4:
        raise InputError(
            f"a pair is Pair(...) or (id, image, text[, payload]), got {type(parts).__name__}: {parts!r:.80}"
        )
    return Pair(*parts)


def _check_pairs(batch: Sequence[Pair], seen: set[str]) -> None:
    for pair in batch:
        if not isinstance(pair.id, str) or not pair.id:
            raise InputError(f"a pair's id must be a non-empty text, got {pair.id!r}")
        if pair.id in seen:
            raise InputError(f"id {pair.id!r} comes twice in one call: make ids unique, or add the second one later")
        try:
            check_pair(pair.id, pair.text, pair.payload)
        except InputError as error:
            raise InputError(f"the pair {show(pair.id)}: {error}") from None
        seen.add(pair.id)


def _read_trust(header: Header) -> State | None:
    if not header.trust:
        return None
    try:
        return State.from_json(header.trust)
    except ConfigError as error:
        warnings.warn(f"the memory is not refined by: {error}", stacklevel=5)
        return None
