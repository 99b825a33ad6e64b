"""A memory that another process of the same service has open: searched and written there, encoded here."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ...calibration.feedback import Feedback, Opinion
from ...calibration.learner import AskedRuns
from ...defaults import SCROLL_BATCH
from ...encode import Encoder
from ...errors import MemoryStoreError
from ...memory import Header
from ...memory.checks import check_ids, check_positive, chunks
from ...memory.said import SaidRecord, change_said
from ...pairs import PairMemory
from ...types import Neighbours, Payload, Records, Search
from ..in_use import InUse
from .line import OwnerLine

MOVED = "another version of the memory was put to use meanwhile: give the same command again"
_READ_AT_ONCE = 1000
_meant: ContextVar[str | None] = ContextVar("meant", default=None)


class MemoryMoved(MemoryStoreError):
    """A write was meant for a version of the memory that is not in use any more."""


@contextmanager
def meant_for(state: str | None) -> Iterator[None]:
    """Let writes of a block count only for this state of the memory; None: for any."""
    token = _meant.set(state)
    try:
        yield
    finally:
        _meant.reset(token)


@dataclass(frozen=True)
class HeaderNews:
    """What is new of a header that a worker knows: mostly an opinion, beside thousands that it has.

    Attributes:
        since: revision of the header that it knows.
        header: the new one, without what people said, and without what was learned where that is as before.
        same_learned: whether it is.
        added: of what people said.
        gone: ids.
    """

    since: int
    header: Header
    same_learned: bool
    added: list[SaidRecord]
    gone: list[str]

    @classmethod
    def between(cls, since: int, before: Header, now: Header) -> HeaderNews:
        """What to tell whoever knows the one before."""
        same = now.calibration == before.calibration
        added = [one for name, one in now.said.items() if before.said.get(name) is not one]
        gone = [name for name in before.said if name not in now.said]
        calibration = {} if same else now.calibration
        return cls(since, replace(now, calibration=calibration, said={}), same, added, gone)

    def join(self, before: Header) -> Header:
        """The new header."""
        calibration = before.calibration if self.same_learned else self.header.calibration
        said = change_said(before.said, self.added, self.gone) if self.added or self.gone else before.said
        return replace(self.header, calibration=calibration, said=said)


@dataclass(frozen=True)
class MemoryTold:
    """What the process that has the memory tells of it."""

    moves: int  # how often another version was put to use
    revision: int  # of the header
    header: Header | HeaderNews | None  # None: as the worker knows it
    kind: str
    location: str
    state: str  # see :attr:`.VersionInUse.state`
    version: int  # changes with each write
    learning: bool
    unfinished: str


class OwnedMemory:
    """One version of the memory, as long as it is in use; what it learns is learned where it is open."""

    def __init__(self, line: OwnerLine, told: MemoryTold) -> None:
        """Keep what was told; the header must be among it."""
        if not isinstance(told.header, Header):
            raise ValueError("the first that is told of a version is its header")
        self._line, self.told, self.header = line, told, told.header
        self.kind, self.location = told.kind, told.location

    def search(self, search: Search) -> Neighbours:
        """Search with queries (B, D), see :meth:`reco_plugin.memory.Searches.search`."""
        found: Neighbours = self._line.ask("search", self.told.moves, search)
        return found

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Leave learning to the process that has the memory.

        Raises:
            MemoryStoreError: always.
        """
        raise MemoryStoreError(f"the memory at {self.location!r} is learned about by the process that has it open")

    def look(self) -> Header:
        """The header as it was told last."""
        return self.header

    def change_said(self, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        """Let the process that has the memory store what people said, and forget some of it."""
        self._line.ask("change_said", list(added), list(gone))

    def note_learning(self, note: dict[str, Any]) -> None:
        """Nothing to do: the other process learns."""

    def set_witnesses(self, ids: Sequence[str], witnesses: npt.NDArray[np.float32]) -> None:
        """Nothing to do: the other process judges pairs."""

    def witnesses(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """The witnesses (N, 3) of pairs."""
        found: npt.NDArray[np.float32] = self._line.ask("read", "witnesses", list(ids))
        return found

    def count_unjudged(self) -> int:
        """Number of pairs without witnesses."""
        return int(self._line.ask("read", "count_unjudged"))

    def unjudged(self, most: int) -> list[str]:
        """Ids of pairs without witnesses, at most so many."""
        return list(self._line.ask("read", "unjudged", most))

    def count(self) -> int:
        """Number of pairs."""
        return int(self._line.ask("read", "count"))

    def upsert(self, records: Records) -> None:
        """Add or replace pairs, vectors (N, D)."""
        self._line.ask("upsert", _meant.get(), records)

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        return int(self._line.ask("delete", _meant.get(), check_ids(ids, "delete")))

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs, or those of ``ids`` in their order, in batches (N, D)."""
        size = check_positive(batch_size, "batch_size")
        parts = self._all_ids(size) if ids is None else chunks(check_ids(ids, "scroll"), size)
        return (records for part in parts for records in self._line.ask("scroll", list(part)))

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of all pairs, or of the existing ones of ``ids``."""
        parts = self._all_ids(_READ_AT_ONCE) if ids is None else chunks(check_ids(ids, "ids"), _READ_AT_ONCE)
        return (pair for part in parts for pair in self._line.ask("payloads", list(part)))

    def ids_after(self, last: str | None, limit: int) -> list[str]:
        """The next ids behind ``last``."""
        return list(self._line.ask("read", "ids_after", last, limit))

    def flush(self) -> None:
        """Nothing to do: each write waits until it is durable."""

    def close(self) -> None:
        """Nothing to do: the line is of all versions."""

    def _all_ids(self, size: int) -> Iterator[Sequence[str]]:
        last: str | None = None
        while ids := self.ids_after(last, size):
            yield ids
            last = ids[-1]


class OwnedPairs(PairMemory):
    """The pairs of a memory that another process has open, which learns from them."""

    def __init__(self, line: OwnerLine, encoder: Encoder, neighbours: int) -> None:
        """Ask for the memory that is in use."""
        self._line = line
        super().__init__(OwnedMemory(line, line.ask("look", -1, -1)), encoder, neighbours)
        self._adopting = threading.Lock()
        self._moved_at = time.perf_counter()

    @property
    def alone(self) -> bool:
        """Whether no other process writes to it: other workers do."""
        return False

    @property
    def known(self) -> MemoryTold:
        """What was told last."""
        searches: Any = self.searches
        told: MemoryTold = searches.told
        return told

    def adopt(self, told: MemoryTold) -> bool:
        """Take over what was told, of this version or of another one; False where it is news of an older header."""
        with self._adopting:
            known = self.known
            if (told.moves, told.revision, told.version) < (known.moves, known.revision, known.version):
                return True  # a later answer was faster
            searches: Any = self.searches
            if told.moves == known.moves:
                header = told.header or searches.header
                if isinstance(header, HeaderNews):
                    if header.since != known.revision:
                        return False
                    header = header.join(searches.header)
                searches.told, searches.header = told, header
                return True
            self.searches = OwnedMemory(self._line, told)
            self.kind, self.location = told.kind, told.location
            self._moved_at = time.perf_counter()
            return True

    def look(self) -> MemoryTold:
        """Ask for what is new, and take it over."""
        taken = False
        while not taken:  # again where another thread took over something newer meanwhile
            known = self.known
            taken = self.adopt(self._line.ask("look", known.moves, known.revision))
        return self.known

    @property
    def moved_at(self) -> float:
        """Moment of ``time.perf_counter`` at which another version was taken over."""
        return self._moved_at

    @property
    def state(self) -> str:
        """Which version is in use now."""
        return self.look().state

    def use(self, name: str) -> InUse:
        """Put another version to use, see :meth:`.VersionInUse.use`."""
        used: InUse = self._line.ask("use", name)
        self.look()
        return used

    @property
    def version(self) -> int:
        """Changes with each write."""
        return self.known.version

    @property
    def learning(self) -> bool:
        """Whether the other process learns from the pairs now."""
        return self.known.learning

    @property
    def unfinished(self) -> str:
        """Why it does not learn now, see :attr:`.PairMemory.unfinished`."""
        return self.known.unfinished

    @property
    def opinions(self) -> tuple[Opinion, ...]:
        """All that was said, also through other workers just now."""
        self.look()
        return super().opinions

    def keep(self, newer: Feedback) -> None:
        """Let the process that has the memory store opinions: it knows which others they overrule."""
        self._line.ask("keep", newer.to_records())
        self.look()

    def withdraw(self, ids: Sequence[str]) -> int:
        """Forget opinions by their ids, also those of other workers."""
        self.look()
        return super().withdraw(ids)

    def settle(self, *, progress: bool = False) -> None:
        """Let the other process learn from what was written."""
        self._line.ask("settle", _meant.get())

    def ask_to_learn(self) -> AskedRuns:
        """Let the other process learn, though it may not be due."""
        return cast(AskedRuns, self._line.ask("ask_to_learn", _meant.get()))

    @property
    def asked_runs(self) -> AskedRuns:
        """How far that is."""
        return cast(AskedRuns, self._line.ask("asked_runs"))

    def resume(self) -> None:
        """Nothing to do: the other process does."""

    @property
    def learns_behind(self) -> bool:
        """Never: the other process learns, also from what was removed."""
        return False

    @learns_behind.setter
    def learns_behind(self, behind: bool) -> None:
        """It stays so."""

    def _count_change(self) -> None:
        self.look()
