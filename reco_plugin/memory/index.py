"""The search index beside the embedded store, made and kept up to date in the background while the store serves.

It only names candidates: the store scores them with its own vectors, so what is found is there and its similarity is
exact, also with conditions and after deletions; a stale index could only miss neighbours. Until it is ready, and for
queries for which it names too few, the store compares with every pair.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MemoryStoreError
from ..machine.cores import cores
from ..types import Modality, Vectors
from .checks import CheckedSearch
from .disk import check_room
from .index_files import DAMAGED, IndexFiles, to_ids

if TYPE_CHECKING:
    from .edge_reading import ShardReader
    from .index_build import Built

LEAST = 10_000
"""Pairs from which an index is made: fewer are compared in a few milliseconds."""
_NEIGHBOURS, _EXCLUDED = 50, 500
"""With more neighbours or exclusions every pair is compared: the lists are measured for ten neighbours."""
_TRIES = 20
_STALE = 0.05
"""Share of the pairs in the journal from which a new snapshot is saved; reading them again takes .1 s per 1,000."""
_LATE = 256
"""Pairs that are added at once, while writers wait, when the index is put to use."""
_SAMPLE = 64
log = logging.getLogger(__name__)


class _Cancelled(Exception):
    """The memory is being closed."""


class SearchIndex:
    """The index of an embedded memory."""

    def __init__(self, store: ShardReader, folder: Path, *, writable: bool, enabled: bool) -> None:
        """Read nothing before the first search; if it is not enabled, writes are noted for those who use it."""
        self._store, self._files, self._folder = store, IndexFiles(folder), folder
        self._writable = writable
        self._enabled = enabled and importlib.util.find_spec("faiss") is not None
        self._lock, self._gate = threading.Lock(), _Gate()
        self._built: Built | None = None
        self._late: list[str] | None = None  # written while a thread works on the index; None: no thread does
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._missing = 0  # pairs to be written until there may be enough
        self._failed = False
        self.idle = not self._enabled
        """Whether there is nothing to ask it: it is not enabled, or there were too few pairs at the last search."""

    @property
    def rows(self) -> int:
        """Pairs in the index in use, those included that were replaced or deleted since; 0: none is in use."""
        return self._built.rows if self._built else 0

    def state(self) -> dict[str, Any] | None:
        """What is known of it; None if there is none and none is being made.

        Returns:
            ``state``: in use, being made, or stored; of a stored one also ``pairs`` (then), ``written_since``,
            ``bytes``, and ``lists`` (of each modality: how many are looked through, for its own queries and for the
            other's).
        """
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):  # a thread has put a newer one in the place of what was read
                return self._read_state()
        return self._read_state()

    def _read_state(self) -> dict[str, Any] | None:
        state, doing = self._files.state(), "being made" if self._late is not None else "stored"
        known = {"state": "in use" if self._built else doing}
        if state is None:
            return None if known["state"] == "stored" else known
        since = len(self._files.read_noted(state))
        return {
            **known,
            "pairs": state["pairs"],
            "written_since": since,
            "bytes": self._files.bytes(),
            "lists": state["lists"],
        }

    def candidates(self, by: Modality, wanted: CheckedSearch) -> list[list[str]] | None:
        """Points among which the nearest of each query are, without regard to conditions and exclusions.

        None: compare with every pair.
        """
        excluded = max(map(len, wanted.exclude), default=0)
        if not self._enabled or wanted.k > _NEIGHBOURS or excluded > _EXCLUDED or not len(wanted.vectors):
            return None
        if self._built is None:
            self._start(threads=1)
            return None
        times, wider = (16, 2) if wanted.conditions else (4, 1)
        try:
            with self._gate.shared():
                built = self._built
                rows = built.sides[by].nearest(wanted.vectors, times * wanted.k + 20 + excluded, wider)
                return [to_ids(built.points[some[some >= 0]]) for some in rows]
        except Exception as error:  # as when RAM runs out
            self._drop(error)
            return None

    def note(self, points: Sequence[str]) -> None:
        """Note points that the store is about to write or delete."""
        if self._writable:
            with self._lock:
                self._files.note(points)

    def add(self, points: Sequence[str], vectors: Mapping[Modality, Vectors]) -> None:
        """Add points that the store wrote, vectors (N, D)."""
        with self._lock:
            self._missing -= len(points)
            self.idle = not self._enabled or self._missing > 0
            if self._late is not None:
                self._late.extend(points)
            if self._built is None:
                return
            try:
                with self._gate.alone():
                    self._built.append(points, vectors)
            except Exception as error:  # the store has them
                self._drop(error)
                return
            outgrown = self._late is None and self._built.rows > 2 * self._built.made_for
        if outgrown and self._writable:
            self._start(threads=1)

    def flush(self) -> None:
        """Make the journal durable."""
        with self._lock:
            self._files.sync()

    def build(self) -> bool:
        """Load the index or make it, and wait; False if there is none: not enabled, too few pairs, or it failed."""
        if self._enabled and self._writable:
            self._missing, self.idle = 0, False
            self._start(threads=cores())
            if self._thread is not None:
                self._thread.join()
        return self._built is not None

    def close(self) -> None:
        """Stop working on it; what is not saved is made again from store and journal."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._files.close()

    def _start(self, threads: int) -> None:
        """Let a thread load or make it, unless one does, or did in vain, or there are too few pairs."""
        with self._lock:
            if self._late is not None or self._missing > 0 or self._failed or self._stop.is_set():
                return
            if (pairs := self._store.count()) < LEAST:
                self._missing, self.idle = LEAST - pairs, True
                return
            self._late = []
            self._thread = threading.Thread(target=self._work, args=(threads,), name="reco-index", daemon=True)
            self._thread.start()

    def _work(self, threads: int) -> None:
        try:
            self._replace(threads)
        except _Cancelled:
            pass
        except Exception as error:  # whatever it is, the store serves without
            self._failed = True
            log.warning("no new search index at %s: %r", self._folder, error)
        finally:
            with self._lock:
                self._late = None

    def _drop(self, error: Exception) -> None:
        self._built, self._failed = None, True
        log.warning(
            "the search index at %s fails, every pair is compared until it is opened again: %r", self._folder, error
        )

    def _replace(self, threads: int) -> None:
        """Load the index, or make it, and put it to use."""
        from .index_build import build, use_threads

        use_threads(threads)
        built = None if self._built else self._load()
        if built is None or built.outgrown(self._store.count()):
            if not self._writable:
                raise MemoryStoreError("it is out of date, and the folder cannot be written")
            with self._lock:
                number = self._files.begin()
            built = build(self._store, self._check)
            self._save(built, number)
        while True:
            with self._lock:
                late, self._late = self._late or [], []
                if len(late) <= _LATE:
                    built.append_from(self._store, list(dict.fromkeys(late)), self._check)
                    with self._gate.alone():
                        self._built = built
                    return
            built.append_from(self._store, list(dict.fromkeys(late)), self._check)

    def _load(self) -> Built | None:
        """The stored index with what was written since; None without, or if it does not fit the store."""
        from .index_build import Built

        state = self._files.state()
        if state is None:
            return None
        noted = self._files.read_noted(state)
        try:
            built = Built.of(self._files.read(state))
        except DAMAGED as error:
            log.warning("the search index at %s is damaged and made again: %r", self._folder, error)
            return None
        pairs = self._store.count()
        if abs(pairs - state["pairs"]) > len(noted) or not self._fits(built, pairs):
            log.warning("the search index at %s is not of this store and made again", self._folder)
            return None
        number = None
        if len(noted) > _STALE * pairs and self._writable:
            with self._lock:
                number = self._files.begin()
        built.append_from(self._store, noted, self._check)
        if number is not None and not built.outgrown(pairs):
            self._save(built, number)
        return built

    def _fits(self, built: Built, pairs: int) -> bool:
        """Whether about as many of its points are in the store as its rows allow: others were deleted or replaced."""
        sample = to_ids(built.points[:: max(1, built.rows // _SAMPLE)])
        return len(self._store.point_vectors(sample)[0]) >= 0.8 * len(sample) * min(1.0, pairs / built.rows)

    def _save(self, built: Built, number: int) -> None:
        """Save it; on a full disk it serves, and is made again next time."""
        try:
            arrays = built.arrays()
            check_room(self._folder, "save the index of", sum(array.nbytes for array in arrays.values()))
            lists = {m: list(side.probes) for m, side in built.sides.items()}
            self._files.finish(number, arrays, {"pairs": self._store.count(), "lists": lists})
        except (OSError, MemoryStoreError) as error:
            log.warning("the search index at %s is not saved: %s", self._folder, error)

    def _check(self) -> None:
        if self._stop.is_set():
            raise _Cancelled


class _Gate:
    """Lets many searches in at once, or one change alone, which does not wait for later searches."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside, self._closed = 0, False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._closed = True
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()
