"""The search index beside the embedded store: made in the background, loaded and saved as one file.

It only names candidates: the store scores them with its own vectors, so what is found is there and its similarity is
exact, also with conditions and after deletions; a stale index could only miss neighbours. Until it is ready, and for
queries for which it names too few, the store compares with every pair.

``index.npz`` fits the store or is not there: it is taken into RAM and removed before the first write, and saved again
when the memory is closed. After a kill it is made anew.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MemoryStoreError
from ..files import write_whole
from ..machine.cores import cores
from ..types import Modality, Vectors
from .checks import CheckedSearch
from .disk import check_room

if TYPE_CHECKING:
    from .edge import EdgeMemory
    from .index_faiss import Built

LEAST = 10_000
"""Pairs from which an index is made: fewer are compared in a few milliseconds."""
INDEX_NAME = "index.npz"
_NEIGHBOURS, _EXCLUDED = 50, 500
"""With more neighbours or exclusions every pair is compared: the lists are measured for ten neighbours."""
_DAMAGED = (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile)
log = logging.getLogger(__name__)


class Stopped(Exception):
    """The memory is being closed."""


class SearchIndex:
    """The index of an embedded memory."""

    def __init__(self, store: EdgeMemory, folder: Path, *, enabled: bool) -> None:
        """Read nothing before the first search; one that is not enabled is removed before the first write."""
        self._store, self._file = store, folder / INDEX_NAME
        self._enabled = enabled and importlib.util.find_spec("faiss") is not None
        self._lock = threading.RLock()
        """Held by searches, too: FAISS neither adds while it searches nor searches while it adds."""
        self._built: Built | None = None
        self._saved = self._file.exists()
        self._late: list[str] | None = None  # written while a thread works on the index; None: no thread does
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._missing = 0  # pairs to be written until there may be enough
        self._writing = False  # the store may have pairs that this has not been given
        self._failed = False
        self.idle = not self._enabled
        """Whether there is nothing to ask it: it is not enabled, or there were too few pairs at the last search."""

    @property
    def state(self) -> str:
        """One of "in use", "being made", "stored" and "" (there is none)."""
        if self._built:
            return "in use"
        return "being made" if self._late is not None else "stored" if self._saved else ""

    def candidates(self, by: Modality, wanted: CheckedSearch) -> list[list[str]] | None:
        """Points among which the nearest of each query are, without regard to conditions and exclusions.

        None: compare with every pair.
        """
        if self.idle or wanted.k > _NEIGHBOURS or not len(wanted.vectors):
            return None
        if (excluded := max(map(len, wanted.exclude), default=0)) > _EXCLUDED:
            return None
        times, wider = (16, 2) if wanted.conditions else (4, 1)
        with self._lock:
            if self._built is None:
                self._start()
                return None
            try:
                return self._built.nearest(by, wanted.vectors, times * wanted.k + 20 + excluded, wider)
            except Exception as error:  # as when RAM runs out
                self._drop(error)
                return None

    def before_write(self) -> None:
        """Take what is stored into RAM, and remove the file, which the write would make stale."""
        with self._lock:
            self._writing = True
            if not self._saved:
                return
            if self._enabled and self._built is None and self._late is None:
                self._built = self._load()
            try:
                self._file.unlink(missing_ok=True)
            except OSError as error:
                raise MemoryStoreError(f"cannot write to the memory, since {self._file} stays: {error}") from error
            self._saved = False

    def add(self, points: Sequence[str], vectors: Mapping[Modality, Vectors]) -> None:
        """Add points that the store wrote, vectors (N, D); none after a deletion. Without it, a write has failed."""
        with self._lock:
            self._writing = False
            self._missing -= len(points)
            self.idle = not self._enabled or self._missing > 0
            if self._late is not None:
                self._late.extend(points)
            if self._built is None or not points:
                return
            try:
                self._built.append(points, vectors)
            except Exception as error:  # the store has them
                self._drop(error)

    def close(self) -> None:
        """Stop working on it, and save what is in use."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._save()
            self._built = None

    def _start(self) -> None:
        """Let a thread load or make it, unless one does, or did in vain, or there are too few pairs."""
        if self._late is not None or self._failed or self._stop.is_set():
            return
        self._missing = LEAST - self._store.count()
        self.idle = self._missing > 0
        if not self.idle:
            self._late = []
            self._thread = threading.Thread(target=self._work, name="reco-index", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        try:
            self._replace()
        except Stopped:
            pass
        except Exception as error:  # whatever it is, the store serves without
            self._failed = True
            log.warning("no new search index at %s: %r", self._file, error)
        finally:
            with self._lock:
                self._late = None

    def _replace(self) -> None:
        """Load the index, or make it, and put it to use."""
        from .index_faiss import build, use_threads

        use_threads(max(1, cores() // 2))
        built = self._load()
        if built is None:
            built = build(self._store, self._check)
        while True:
            with self._lock:
                late, self._late = self._late or [], []
                if not late:
                    self._built = built
                    self._save()
                    return
            built.append_from(self._store, list(dict.fromkeys(late)), self._check)

    def _load(self) -> Built | None:
        """The stored index; None without, or if it does not fit the store."""
        from .index_faiss import Built

        if not self._saved:
            return None
        try:
            with self._file.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                built = Built.of({name: arrays[name] for name in arrays.files})
            if built.pairs != (pairs := self._store.count()) or built.outgrown(pairs):
                raise ValueError("it is not of these pairs, or was made for few of them")
        except _DAMAGED as error:
            log.warning("the search index at %s is made again: %r", self._file, error)
            return None
        return built

    def _save(self) -> None:
        """Save what is in use; on a full disk it serves, and is made again next time."""
        if self._built is None or self._saved or self._writing:
            return
        try:
            self._built.pairs = self._store.count()
            arrays = self._built.arrays()
            check_room(self._file.parent, "save the index of", sum(array.nbytes for array in arrays.values()))
            write_whole(self._file, lambda file: np.savez(file, allow_pickle=False, **arrays))
            self._saved = True
        except (OSError, MemoryStoreError) as error:
            log.warning("the search index at %s is not saved: %s", self._file, error)

    def _drop(self, error: Exception) -> None:
        self._built, self._failed = None, True
        log.warning(
            "the search index at %s fails, every pair is compared until it is opened again: %r", self._file, error
        )

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped
