"""The memory for applications: encodes and stores raw pairs, and calibrates the gate."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from .defaults import INGEST_BATCH, MODEL_K, RESULTS
from .encoders.local import Encoder, encode_pairs
from .encoders.preprocess import name_image
from .errors import ConfigError, FingerprintMismatch, ImageError, InputError
from .learning import Calibration
from .learning.tenants import TenantLearner, Tenants
from .learning.trainer import Learner
from .memory import Header, Memory
from .memory.checks import check_pair, check_positive
from .memory.lexical import QueryWords
from .memory.scope import current_scope
from .signals import LEARNED
from .signals.feedback import Feedback
from .signals.opinions import Judgment, Opinion, Opinions, add_opinions, opinions_of, read_judgments, withdraw
from .signals.presence import PresenceState
from .types import Filter, ImageInput, Modality, Neighbours, Pair, Records, Search, Vectors
from .values import check_vectors, each_pair, show


class PairMemory:
    """Pairs that refinement retrieves from.

    Attributes:
        store: the engine; where its server was down before, its next call opens it.
        encoder: makes the vectors of raw images and texts.
        learner: learns from the pairs, at once or behind, see :class:`~reco_plugin.learning.trainer.Learner`.
        kind: of the memory.
        location: folder, ``:memory:`` or URL.
    """

    def __init__(
        self, store: Memory, encoder: Encoder, neighbours: int = MODEL_K, tenant_field: str | None = None
    ) -> None:
        self.kind, self.location = store.kind, store.location
        self._engine, self.encoder = store, encoder
        self._judging = threading.Lock()
        self._learned = (store.header, self._read_calibration(store.header))
        self._version, self._counting = 0, threading.Lock()
        learning = threading.Lock()  # one at a time
        self.learner = Learner(self, neighbours, self._count_change, LEARNED, learning)
        self._tenants = Tenants(
            tenant_field, lambda one: TenantLearner(one, neighbours, self._count_change, LEARNED, learning)
        )

    def __repr__(self) -> str:
        return f"<PairMemory {self.location!r}>"

    @property
    def store(self) -> Memory:
        """The engine, or what the scope of this context shows of it; see :mod:`reco_plugin.memory.scope`."""
        scope = current_scope()
        return self._tenants.of(self._engine, scope).store if scope else self._engine

    @property
    def searches(self) -> Memory:
        """What a refinement searches: the store."""
        return self.store

    def __len__(self) -> int:
        return self.store.count()

    @property
    def alone(self) -> bool:
        """Whether no other process writes to it."""
        return "://" not in self.location

    def answers(self) -> bool:
        """Whether a server has an answer now, within a second or two, or the folder is there; one in RAM always is."""
        return bool(getattr(self.store, "answers", lambda: True)())

    @property
    def missing(self) -> int:
        """Pairs of a folder that were lost before it was opened, because its files are damaged."""
        return int(getattr(self.store, "missing", 0))

    @property
    def calibration(self) -> Calibration | None:
        """What the memory has learned about its pairs; None while it is empty, not calibrated or not reached yet."""
        header, (known, calibration) = self._engine.header, self._learned
        if header is not known:  # reached, calibrated, or another version was put to use
            if calibration is None or header.calibration != known.calibration:
                calibration = self._read_calibration(header)
            elif header.said is not known.said:
                calibration = replace(calibration, feedback=self._read_feedback(header))
            self._learned = (header, calibration)
        if not (scope := current_scope()):
            return calibration

        def own(shown: Header) -> Calibration | None:
            if calibration is None or shown.calibration is not header.calibration:
                return self._read_calibration(shown)
            return replace(calibration, feedback=self._read_feedback(shown))

        return self._tenants.of(self._engine, scope).read(header, own)

    @property
    def version(self) -> int:
        """Changes with each write through this object: vectors refined before may be outdated."""
        return self._version

    def add(
        self, pairs: Iterable[Pair | tuple[Any, ...]], *, batch_size: int = INGEST_BATCH, progress: bool = False
    ) -> int:
        """Encode and store pairs; an id that exists is replaced. Searchable at once, whole batches at a time.

        Then calibration is learned, if the memory is new or a quarter of its pairs have come or gone: at most a minute.

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

        size = check_positive(batch_size, "batch_size")
        total = len(pairs) if isinstance(pairs, Sequence) else None
        with progress_bar(total=total, desc="fill memory", unit="pair", disable=not progress) as bar:
            return self._store(_encode(self.encoder, pairs, size), bar.update, progress=progress)

    def add_records(self, batches: Iterable[Records], *, settle: bool = True, progress: bool = False) -> int:
        """Store pairs that are vectors (N, D) of this encoder already; returns how many.

        Args:
            batches: the pairs.
            settle: also learn from them, see :meth:`settle`; else the caller does that after the last of many calls.
            progress: show a bar on stderr while calibration is learned.
        """
        if isinstance(batches, Records):
            raise InputError("batches must be a list of records, got those of one batch: put it in a list")
        return self._store(batches, learns=settle, progress=progress)

    def remove(self, ids: Sequence[str]) -> int:
        """Delete pairs by id; returns how many existed.

        Where :attr:`learner` learns behind, calibration is then learned anew once a quarter of what it was learned from
        is gone; else with the next pairs that are added, or by :meth:`settle`.
        """
        try:
            removed = self.store.delete(ids)
        finally:
            self._count_change()
        self.learner.after_removal()
        return removed

    def get(self, ids: Sequence[str]) -> Records:
        """The stored pairs of these ids, vectors (N, D); unknown ids are left out.

        Raises:
            InputError: no collection of ids.
        """
        if ids is None:  # a store would read all of its pairs
            raise InputError("ids must be a list of ids, got None")
        return Records.join(list(self.store.scroll(ids=ids)), self.encoder.dimension)

    def search(
        self,
        query: str | ImageInput | Vectors,
        *,
        modality: Modality = "text",
        by: Modality | None = None,
        k: int = RESULTS,
        where: Filter | None = None,
        words: bool = True,
    ) -> Neighbours:
        """Find the pairs nearest to one query, payloads included; captions that have all words of a text come first.

        Args:
            query: a text, an image, or a vector (D,).
            modality: what the query is.
            by: modality of the memory to compare with; None: the query's own.
            k: number of pairs.
            where: conditions on the payload.
            words: also look for captions by the words of a text.
        """
        if isinstance(query, np.ndarray):
            vector = check_vectors(query[None], self.encoder.dimension, "query")
        elif modality == "text":
            vector = self.encoder.texts([query])  # type: ignore[list-item]
        elif modality == "image":
            vector = self.encoder.images([query])
        else:
            raise InputError(f"modality must be 'image' or 'text', got {modality!r}")
        by_words = words and isinstance(query, str) and modality == "text" and by in (None, "text")
        said = [QueryWords.of(query)] if by_words else None  # type: ignore[arg-type]
        return self.store.search(Search(vector, by or modality, modality, k, where=where, payloads=True, words=said))

    def reject(
        self,
        query: str | ImageInput | Vectors,
        pair: str | None = None,
        *,
        modality: Modality = "text",
        answer: str | ImageInput | Vectors | None = None,
        right: bool = False,
        by: str = "",
    ) -> Opinion:
        """Say that an answer to a query is not what was asked for, durably: it no longer moves queries like this one.

        Example::

            reco.memory.reject("fox.jpg", "wolf-17", modality="image", by="ann")

        Args:
            query: a text, an image, or a vector (D,).
            pair: id of the pair that was the answer; it stands for all pairs with its caption, or its picture.
            modality: what the query is.
            answer: in place of a pair, the answer itself: of the other modality, raw or a vector (D,).
            right: True says that it is right, and takes back what was said before: the newest word counts.
            by: who says so.

        Raises:
            InputError: no such pair, neither or both of pair and answer, an item that cannot be encoded, or as many
                opinions as a memory keeps are there.
            MemoryStoreError: it cannot be written.
        """
        return self.judge([Judgment(query, modality, pair, answer, right, by)])[0]

    def judge(self, judgments: Sequence[Judgment]) -> tuple[Opinion, ...]:
        """Store several opinions in one write, all or none; errors as in :meth:`reject`.

        Of several about one query and answer only the last is stored and returned.
        """
        newer = read_judgments(judgments, self.encoder, self.store)
        if len(newer):
            self.keep(newer)
        return newer.words

    def keep(self, newer: Opinions) -> None:
        """Store opinions, in place of those on the same queries and answers; errors as in :meth:`reject`."""
        try:
            with self._judging:
                add_opinions(self.store, newer.to_records())
        finally:
            self._count_change()

    @property
    def opinions(self) -> tuple[Opinion, ...]:
        """All opinions, oldest first.

        Raises:
            ConfigError: one is damaged.
        """
        return opinions_of(self.store.look()).words

    @property
    def opinions_known(self) -> int:
        """How many are known here, without asking the store."""
        return len(self.store.header.said)

    def withdraw(self, ids: Sequence[str]) -> int:
        """Forget opinions by their ids; returns how many there were. Unknown ids are no error.

        Raises:
            InputError: no collection of ids.
        """
        if ids is None or isinstance(ids, str):  # None would be all
            raise InputError(f"ids must be a list of ids of opinions, got {show(ids)}")
        try:
            with self._judging:
                return withdraw(self.store, ids)
        finally:
            self._count_change()

    def calibrate(self, *, progress: bool = False) -> Calibration | None:
        """Learn from the pairs, and store it with the memory; see :func:`reco_plugin.learning.learn.learn`.

        Args:
            progress: show a bar on stderr.
        """
        return self.learner.calibrate(progress=progress)

    def settle(self, *, progress: bool = False) -> None:
        """Make all writes durable, and learn from them: at once, or in a thread, where :attr:`learner` learns behind.

        It is learned anew if a quarter of the pairs have come or gone.

        Args:
            progress: show a bar on stderr where this waits for it.
        """
        self.learner.settle(progress=progress)

    def move_to(self, store: Memory) -> Memory:
        """Search and write another version from now on, and learn from it.

        Learning from the one before stops; no other write may run meanwhile.

        Returns:
            The one before, still open for calls that began earlier.
        """
        with self.learner.moving(), self._judging:  # an opinion in between would be stored in the version before
            add_opinions(store, self.store.header.said.values())
            self._tenants.clear()
            before, self._engine = self._engine, store
            self.kind, self.location = store.kind, store.location
        self._count_change()
        self.settle()
        return before

    def close(self) -> None:
        """Flush and release the store."""
        self.learner.close()
        self._tenants.clear()
        self.store.close()

    def _read_calibration(self, header: Header) -> Calibration | None:
        if not header.calibration:
            return None
        try:
            calibration = Calibration.from_json(header.calibration)
            presence = PresenceState.read(header.calibration)
        except ConfigError as error:
            warnings.warn(f"queries stay plain: {error}", stacklevel=5)
            return None
        return replace(calibration, presence=presence, feedback=self._read_feedback(header))

    def _read_feedback(self, header: Header) -> Feedback | None:
        """What its opinions do; None where there are none, or where one is damaged, which is a warning."""
        try:
            return opinions_of(header).voices() if header.said else None
        except ConfigError as error:
            warnings.warn(f"queries move without feedback: {error}", stacklevel=6)
            return None

    def _store(
        self,
        batches: Iterable[Records],
        count: Callable[[int], object] = int,
        *,
        learns: bool = True,
        progress: bool = False,
    ) -> int:
        """Write batches (N, D); if a later batch fails, the earlier ones stay, learned from unless it was Ctrl-C."""
        stored = 0
        try:
            for records in batches:
                self._refuse_changed()
                self.store.upsert(records)
                stored += len(records)
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

    def _refuse_changed(self) -> None:
        if self.encoder.changed is not None:
            raise FingerprintMismatch(
                f"nothing is stored in {self.location!r}: {self.encoder.changed}. Name the earlier model in "
                "RECO_MODEL, or build a new memory with this one"
            )

    def _count_change(self) -> None:
        with self._counting:  # two writers at once must not give the same number
            self._version += 1


def _encode(encoder: Encoder, pairs: Iterable[Pair | tuple[Any, ...]], size: int) -> Iterator[Records]:
    source, seen = each_pair(pairs), set[str]()
    while batch := list(islice(source, size)):
        _check_pairs(batch, seen)
        try:
            yield encode_pairs(encoder, batch)
        except InputError as error:
            raise _naming(encoder, batch, error) from error


def _naming(encoder: Encoder, batch: Sequence[Pair], error: InputError) -> InputError:
    """The error, with the id of the first pair that cannot be encoded: by its place in a batch nobody finds it."""
    for pair in batch:
        try:
            encoder.preparation.side(pair.image, "image")
            encoder.preparation.side(pair.text, "text")
        except ImageError as unfit:
            return unfit.about(f"the pair {show(pair.id)}: its image ({name_image(pair.image)})")
        except InputError as unfit:
            return type(unfit)(f"the pair {show(pair.id)}: {unfit}")
    return error  # of an API, which refused the whole batch


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
