"""What the workers of one service share: the memory that one process alone may have open, and what each tells."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from ...calibration.feedback import Feedback
from ...calibration.learner import AskedRuns
from ...config import Settings
from ...errors import MemoryUnavailable
from ...memory import Header, Memory
from ...memory.said import SaidRecord
from ...pairs import PairMemory
from ...types import Neighbours, Payload, Records, Search
from ..in_use import InUse, VersionInUse
from ..logs import LOGGER
from .owned import MOVED, HeaderNews, MemoryMoved, MemoryTold
from .sums import add_up, counted

log = logging.getLogger(LOGGER)
_READS = ("count", "count_unjudged", "unjudged", "witnesses", "ids_after")
_FOLLOW_S = 1.0
_LOOK_S = 0.05
_REMEMBERED = 64
"""Headers of which workers are told what is new since; they share what people said."""


@dataclass(frozen=True)
class Beat:
    """What a worker tells of itself, twice a second."""

    number: int
    moves: int  # the version of the memory that it uses for new requests
    finishes: bool  # whether requests that began with another version are not answered yet
    ready: bool
    hangs: bool
    families: list[Metric]


@dataclass
class _KnownWorker:
    """What is known of a worker that runs."""

    beat: Beat | None = None
    at: float = field(default_factory=time.monotonic)


class Owner:
    """The memory of a service of several workers; its methods are called for them by :class:`.Answering`."""

    def __init__(self, settings: Settings, pairs: PairMemory | None, deadline_s: float) -> None:
        """Keep a memory in a folder or in RAM; None: it is on a server, and each worker opens it."""
        self._pairs, self._deadline_s = pairs, deadline_s
        self._lock, self._writing = threading.Lock(), threading.RLock()
        self._workers: dict[int, _KnownWorker] = {}
        self._gone: list[Metric] = []
        self._replaced, self._wanted = 0, 0
        self._began = False
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        self._headers = dict[int, Header]()  # by revision, the latest
        self._ended = threading.Event()
        self._stores: dict[int, Memory] = {}
        self.in_use: VersionInUse | None = None
        if pairs is not None:
            pairs.learns_behind = True  # no request waits for a fit
            self.in_use = VersionInUse(settings, pairs, self._wait_for_older)
            self._stores[0] = pairs.store

    def functions(self) -> dict[str, Callable[..., Any]]:
        """What workers may call, by name."""
        memory = (self.look, self.search, self.read, self.scroll, self.payloads, self.upsert, self.delete, self.settle)
        more = (self.keep, self.change_said, self.use, self.ask_to_learn, self.asked_runs)
        return {each.__name__: each for each in (*memory, *more, self.beat, self.leave, self.of_all)}

    def follow(self) -> None:
        """Learn what an earlier process left, and follow the link to the memory's folder, in threads, until closed."""
        if self._pairs is not None:
            self._pairs.resume()
            threading.Thread(target=self._follow, name="reco-follow", daemon=True).start()

    def close(self) -> None:
        """Close the memory."""
        self._ended.set()
        if self._pairs is not None and self.in_use is not None:
            with self._writing:
                self.in_use.leave()
                self._pairs.close()

    # the memory

    def look(self, moves: int, revision: int) -> MemoryTold:
        """What is new of the memory for a worker that knows so much."""
        pairs, in_use = self._memory()
        with self._lock:
            version = pairs.version  # before the header, which is at least as new then
            now, store = max(self._stores.items())
            header = store.header
            number = next(reversed(self._headers), 0)
            if self._headers.get(number) is not header:
                number += 1
                self._headers[number] = header
                self._headers.pop(number - _REMEMBERED, None)
            before = self._headers.get(revision) if moves == now else None
        return MemoryTold(
            moves=now,
            revision=number,
            header=None if before is header else HeaderNews.between(revision, before, header) if before else header,
            kind=store.kind,
            location=store.location,
            state=f"{in_use.name}.{now}",
            version=version,
            learning=pairs.learning,
            unfinished=pairs.unfinished,
        )

    def search(self, moves: int, search: Search) -> Neighbours:
        """Search the version that a worker uses."""
        store = self._stores.get(moves)
        if store is None:
            raise MemoryUnavailable("another version of the memory was put to use long ago: try again")
        return store.search(search)

    def read(self, what: str, *given: Any) -> Any:
        """Call a method of the memory that only reads and returns little."""
        if what not in _READS:
            raise ValueError(f"workers may not call {what!r}")
        return getattr(self._memory()[0].store, what)(*given)

    def scroll(self, ids: list[str]) -> list[Records]:
        """Pairs by id, in batches."""
        return list(self._memory()[0].store.scroll(ids=ids))

    def payloads(self, ids: list[str]) -> list[tuple[str, Payload]]:
        """Payloads by id."""
        return list(self._memory()[0].store.payloads(ids))

    def upsert(self, meant: str | None, records: Records) -> None:
        """Write pairs, durably."""
        with self._writing:
            self._check(meant).add_records([records], settle=False)

    def delete(self, meant: str | None, ids: list[str]) -> int:
        """Remove pairs; returns how many existed."""
        with self._writing:
            return self._check(meant).remove(ids)

    def settle(self, meant: str | None) -> None:
        """Make writes durable, and learn from them in a thread."""
        with self._writing:
            self._check(meant).settle()

    def ask_to_learn(self, meant: str | None) -> AskedRuns:
        """Learn in a thread, though it may not be due."""
        with self._writing:
            return self._check(meant).ask_to_learn()

    def asked_runs(self) -> AskedRuns:
        """How far that is."""
        return self._memory()[0].asked_runs

    def keep(self, records: list[SaidRecord]) -> None:
        """Store opinions."""
        with self._writing:
            pairs = self._memory()[0]
            pairs.keep(Feedback.from_records(records, pairs.store.header.fingerprint.dimension))

    def change_said(self, added: list[SaidRecord], gone: list[str]) -> None:
        """Store what people said, and forget some of it."""
        with self._writing:
            self._memory()[0].change_said(added, gone)

    def use(self, name: str) -> InUse:
        """Put another version to use."""
        with self._writing:
            return self._memory()[1].use(name)

    # the workers

    def expect(self, workers: int) -> None:
        """Be told how many workers there are to be."""
        self._wanted = workers

    def started(self, number: int) -> None:
        """Be told that a worker was started."""
        with self._lock:
            self._workers[number] = _KnownWorker()

    def ended(self, number: int, *, replaced: bool) -> bool:
        """Be told that a worker ended; what it counted stays counted, and what it wrote last is judged.

        Returns:
            Whether it had said that it was ready.
        """
        with self._lock:
            worker = self._workers.pop(number, None)
            if worker is not None and worker.beat is not None:
                self._gone = add_up([self._gone, counted(worker.beat.families)])
            self._replaced += replaced
        if replaced and self._pairs is not None:
            self._pairs.resume()  # as after a restart: it may have died between a write and its end
        return worker is not None and worker.beat is not None and worker.beat.ready

    def hangs(self, number: int, most_s: float) -> bool:
        """Whether a worker says that it hangs, or says nothing for so long; one that has not begun loads its model."""
        with self._lock:
            worker = self._workers.get(number)
        if worker is None or worker.beat is None:
            return False
        return worker.beat.hangs or time.monotonic() - worker.at > most_s

    @property
    def all_ready(self) -> bool:
        """Whether all workers were ready at the same time at least once."""
        if not self._began:
            with self._lock:
                told = [worker.beat for worker in self._workers.values()]
            self._began = len(told) == self._wanted and all(beat is not None and beat.ready for beat in told)
        return self._began

    def beat(self, beat: Beat, revision: int) -> tuple[bool, MemoryTold | None]:
        """Take what a worker tells; whether all workers were ready, and what is new of the memory."""
        with self._lock:
            if beat.number in self._workers:
                self._workers[beat.number] = _KnownWorker(beat)
        return self.all_ready, None if self._pairs is None else self.look(beat.moves, revision)

    def leave(self, beat: Beat) -> None:
        """Take the last that a worker tells."""
        with self._lock:
            if beat.number in self._workers:  # else it was killed meanwhile
                self._workers[beat.number] = _KnownWorker(beat)

    def of_all(self, number: int, families: list[Metric]) -> list[Metric]:
        """The metrics of all workers, and of those that are gone; one of them is asked, and gives its own."""
        with self._lock:
            others = {name: one.beat.families for name, one in self._workers.items() if one.beat is not None}
            running, replaced, gone = len(self._workers), self._replaced, self._gone
        own: list[Metric] = [GaugeMetricFamily("reco_workers", "processes that serve", running)]
        own.append(CounterMetricFamily("reco_workers_replaced", "of those that died or hung", replaced))
        return add_up([*(others | {number: families}).values(), gone, list(self._process.collect()), own])

    def _memory(self) -> tuple[PairMemory, VersionInUse]:
        if self._pairs is None or self.in_use is None:
            raise MemoryUnavailable("the memory is on a server, and each worker has its own connection")
        return self._pairs, self.in_use

    def _check(self, meant: str | None) -> PairMemory:
        """The memory to write to."""
        pairs, in_use = self._memory()
        if meant not in (None, in_use.state):
            raise MemoryMoved(MOVED)
        return pairs

    def _follow(self) -> None:
        _, in_use = self._memory()
        while not self._ended.wait(_FOLLOW_S):
            if in_use.moved is not None:
                with self._writing:
                    in_use.follow()

    def _wait_for_older(self) -> None:
        """Let workers take the version over that was put to use just now, and answer what began with the one before."""
        pairs, in_use = self._memory()
        with self._lock:
            self._stores[in_use.moves] = pairs.store
        latest = time.monotonic() + self._deadline_s
        while time.monotonic() < latest and any(self._still_older(in_use.moves)):
            time.sleep(_LOOK_S)
        with self._lock:
            self._stores = {in_use.moves: self._stores[in_use.moves]}

    def _still_older(self, moves: int) -> Iterator[bool]:
        with self._lock:
            beats = [worker.beat for worker in self._workers.values()]
        return (beat is not None and (beat.moves != moves or beat.finishes) for beat in beats)
