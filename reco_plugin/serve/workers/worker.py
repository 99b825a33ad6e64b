"""One of several processes that serve on one port."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any, TypeAlias

from prometheus_client.metrics_core import Metric

from ...artifact import Artifact
from ...config import Settings
from ...errors import MemoryUnavailable, RecoError
from ...reco import Reco
from ..edge import Edge
from ..health import HOPELESS, Health, warm_up
from ..logs import LOGGER, log_to_stderr
from ..metrics import Metrics
from ..run import run
from ..settings import ServeSettings
from .line import OwnerLine
from .owned import OwnedPairs
from .owner import Beat

log = logging.getLogger(LOGGER)
NOT_STARTED = 3
"""Exit code of a worker that cannot serve."""
_EVERY_S = 0.5
ListenPlace: TypeAlias = tuple[socket.AddressFamily, Any]
"""Family and address, to listen at."""


@dataclass(frozen=True)
class WorkerJob:
    """What a worker is to do."""

    number: int
    name: str  # of the service
    settings: Settings
    serve: ServeSettings  # with its share of the limits
    line: str  # path of the socket at which calls are answered
    places: Sequence[ListenPlace]
    door: socket.socket  # for commands of this user; all workers accept from it
    owned: bool  # whether the memory is in the process that started this one
    first: bool  # whether the service begins: then it answers probes before it is warm


def work(job: WorkerJob) -> None:
    """Serve until SIGTERM, or until the process that started this one has died."""
    os.setpgrp()  # Ctrl-C is for the process that started this one, which tells it
    threading.Thread(target=_end_with_parent, name="reco-parent", daemon=True).start()
    with log_to_stderr(job.serve.log_format, job.serve.log_level):
        line = OwnerLine(job.line)
        try:
            with _open(job, line) as reco:
                is_warm = not job.first and _warm(reco)
                run(job.serve, reco, Member(job, line, is_warm=is_warm))
        except RecoError as error:
            log.error("worker %d cannot serve: %s", job.number, error)
            sys.exit(NOT_STARTED)


def listen_at(place: ListenPlace) -> socket.socket:
    """A socket that others may listen beside, if they say so, too; the kernel gives each connection to one of them."""
    family, address = place
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


class Member:
    """What a worker has to do with the others."""

    def __init__(self, job: WorkerJob, line: OwnerLine, *, is_warm: bool) -> None:
        """Keep how it reaches the process that started it, and whether the models have run."""
        self._first, self._is_warm = job.first, is_warm
        self.name, self.number, self.places, self.door = job.name, job.number, job.places, job.door
        self._line, self._ended = line, threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self) -> list[socket.socket]:
        """The sockets of this worker."""
        return [listen_at(place) for place in self.places]

    def begin(self, edge: Edge, health: Health, metrics: Metrics) -> None:
        """Tell twice a second how this worker is, and take over what is new, in a thread.

        First now, before it listens: a version of the memory that is given up waits for those that were heard of.
        """
        health.others_begin, health.warm = self._first, self._is_warm
        told = (edge, health, metrics)
        self._tell(*told)
        self._thread = threading.Thread(target=self._run, args=told, name="reco-beat", daemon=True)
        self._thread.start()

    def end(self, edge: Edge, health: Health, metrics: Metrics) -> None:
        """Tell it for the last time: no request is counted any more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._line.ask("leave", self._beat(edge, health, metrics))
        except MemoryUnavailable as error:
            log.warning("what this worker counted last is lost: %s", error)
        self._line.close()

    def of_all(self, metrics: Metrics) -> list[Metric]:
        """The metrics of all workers.

        Raises:
            MemoryUnavailable: the process that started them does not answer.
        """
        found: list[Metric] = self._line.ask("of_all", self.number, list(metrics.registry.collect()))
        return found

    def _run(self, edge: Edge, health: Health, metrics: Metrics) -> None:
        while not self._ended.wait(_EVERY_S):
            self._tell(edge, health, metrics)

    def _tell(self, edge: Edge, health: Health, metrics: Metrics) -> None:
        memory = edge.embedder.reco.memory
        revision = memory.known.revision if isinstance(memory, OwnedPairs) else -1
        try:
            all_ready, told = self._line.ask("beat", self._beat(edge, health, metrics), revision)
        except MemoryUnavailable:  # its end is seen elsewhere
            return
        except Exception:
            log.exception("this worker could not tell how it is, and tries it again")
            return
        health.others_begin = health.others_begin and not all_ready
        if told is not None and isinstance(memory, OwnedPairs):
            memory.adopt(told)

    def _beat(self, edge: Edge, health: Health, metrics: Metrics) -> Beat:
        memory = edge.embedder.reco.memory
        moves, finishes = 0, False
        if isinstance(memory, OwnedPairs):
            moves, finishes = memory.known.moves, edge.pool.has_begun_before(memory.moved_at)
        families = list(metrics.registry.collect())
        return Beat(self.number, moves, finishes, health.warm, edge.pool.hangs(HOPELESS), families)


def _open(job: WorkerJob, line: OwnerLine) -> Reco:
    if not job.owned:
        return Reco.of(job.settings)
    policy = Artifact.load(job.settings.model, job.settings).manifest.policy
    neighbours = job.settings.refining.get("k") or policy.k
    return Reco.of(job.settings, pairs_of=lambda encoder: OwnedPairs(line, encoder, neighbours))


def _warm(reco: Reco) -> bool:
    """Run every graph once, before any connection is taken; whether they run."""
    try:
        if isinstance(reco.memory, OwnedPairs):  # another version may have been put to use while the model was loaded
            reco.memory.look()
        warm_up(reco)
    except Exception:  # which is tried again, and told by readiness
        return False
    return True


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        log.error("the process that started this worker has died")
        os.kill(os.getpid(), signal.SIGTERM)
