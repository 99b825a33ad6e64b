"""The process that starts the workers of a service, has their memory, and starts others in place of those that die."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from math import ceil
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Literal

from ...api_encoder import open_encoder
from ...artifact import Artifact
from ...config import Settings
from ...errors import ConfigError, MissingExtra
from ...machine.cores import cores, share_cores
from ...machine.ram import free_bytes
from ...memory import memory_of
from ...pairs import PairMemory
from ...sessions.opening import check_settings
from ..health import HOPELESS
from ..logs import LOGGER
from ..note import Note
from ..run import DOOR, PLACE, check_address, end_on_hang_up, places, remove_abandoned, shown_url, warn_of_open_door
from ..settings import ServeSettings
from .line import Answering
from .owner import Owner
from .worker import NOT_STARTED, ListenPlace, WorkerJob, listen_at, work

log = logging.getLogger(LOGGER)
_LOOK_S = 0.1
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_SOUND_S = 60.0  # after which a worker that dies counts as one that was sound, if it was never ready
_SILENT_S = 60.0  # that a busy machine may keep a worker from saying anything
_GRACE_S = 10.0  # beyond the settings, until what does not end is killed
_BESIDE = 250_000_000  # bytes that a worker takes beside its model: Python, packages, requests
_COPIES = 2  # of a model's files in RAM, in an engine's own layout
_ONE_LINE = "calls"


def how_many(asked: int | Literal["auto"], settings: Settings) -> int:
    """The number of workers: one per core, if it is left to this machine, but no more models than fit into RAM.

    One on a GPU, which has no second core to use, and where a system gives all connections to one process.
    """
    if asked != "auto":
        return asked
    if not sys.platform.startswith("linux"):
        return 1
    if settings.provider == "cuda" or (settings.provider == "auto" and _has_cuda()):
        return 1
    if (free := free_bytes()) is None:
        return cores()
    artifact = Artifact.load(settings.model, settings)
    here = settings.triton_url is None and artifact.manifest.api is None
    files = sum(file.stat().st_size for file in artifact.folder.rglob("*") if file.is_file()) if here else 0
    return max(1, min(cores(), free // (_COPIES * files + _BESIDE), 64))


def share_of(settings: ServeSettings, workers: int) -> ServeSettings:
    """The limits of one worker of so many: those of a service are divided, those of a request stay."""
    divided = ("queue", "max_pending_bytes", "max_connections")
    shares = {name: ceil(getattr(settings, name) / workers) for name in divided}
    return settings.model_copy(update=shares)


def serve_together(settings: Settings, serve: ServeSettings, workers: int) -> None:
    """Serve by several processes until SIGINT, SIGTERM or SIGHUP; requests in flight are answered first.

    Raises:
        ConfigError: this system does not give connections to one of several processes; or the page's index is a folder.
        ArtifactError: no usable model.
        MemoryStoreError: no usable memory.
    """
    if not sys.platform.startswith("linux"):
        raise ConfigError("workers: only Linux gives each connection to one of several processes: serve with 1 worker")
    if serve.page_index is not None and "://" not in settings.memory:
        raise ConfigError("page_index is a folder, which one process opens alone: serve with 1 worker, or without it")
    check_settings(settings)  # else each worker would find it
    warn_of_open_door(serve)
    threads = max(1, cores() // workers)
    share_cores(threads)
    owner = Owner(settings, _pairs_of(settings) if "://" not in settings.memory else None, serve.deadline_s)
    try:
        with _reserved(serve) as reserved, _folder() as folder:
            job = WorkerJob(
                number=0,
                name=uuid.uuid4().hex if owner.in_use is None else owner.in_use.name,
                settings=settings.model_copy(update={"threads": settings.threads or threads}),
                serve=share_of(serve, workers),
                line=str(folder / _ONE_LINE),
                places=reserved,
                door=_door(folder),
                owned=owner.in_use is not None,
                first=True,
            )
            _Crew(owner, job, workers, serve).run(folder)
    finally:
        owner.close()


def _pairs_of(settings: Settings) -> PairMemory:
    """The memory of the settings; its encoder only says what it encodes, and loads no graph here."""
    artifact = Artifact.load(settings.model, settings)
    neighbours = settings.refining.get("k") or artifact.manifest.policy.k
    store = memory_of(settings, artifact.manifest.fingerprint)
    return PairMemory(store, open_encoder(artifact, settings), neighbours)


@dataclass
class _Post:
    """The place of a worker."""

    number: int
    process: BaseProcess | None = None
    began: float = 0.0  # moments of time.monotonic
    again_at: float = 0.0
    pause_s: float = _FIRST_PAUSE_S


class _Crew:
    """The workers, watched until all have ended."""

    def __init__(self, owner: Owner, job: WorkerJob, workers: int, serve: ServeSettings) -> None:
        self._owner, self._job, self._serve = owner, job, serve
        self._posts = [_Post(number) for number in range(workers)]
        self._signals: list[int] = []
        self._stopping, self._failed, self._said = False, False, False
        self._latest: float | None = None
        self._hopeless_s = max(_SILENT_S, HOPELESS * serve.deadline_s)

    def run(self, folder: Path) -> None:
        """Start them, and return when they have ended after a signal; exits where they cannot serve at all."""
        for sent in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sent, self._note)
        end_on_hang_up()
        answering = Answering(self._job.line, self._owner.functions())
        host, port = self._job.places[0][1][:2]
        url = shown_url(host, port)
        try:
            if self._owner.in_use is not None and self._owner.in_use.in_folder:
                self._owner.in_use.announce(Note(self._owner.in_use.name, url, str(folder / DOOR), os.getpid()))
            self._owner.expect(len(self._posts))
            self._owner.follow()
            while not (self._stopping and all(post.process is None for post in self._posts)):
                self._look(url)
                running = [post.process.sentinel for post in self._posts if post.process is not None]
                wait(running, timeout=_LOOK_S)
        finally:
            answering.close()
            for post in self._posts:
                if post.process is not None:
                    post.process.kill()
        if self._failed:
            sys.exit(NOT_STARTED)

    def _note(self, sent: int, _: FrameType | None) -> None:
        self._signals.append(sent)

    def _look(self, url: str) -> None:
        now = time.monotonic()
        while self._signals:
            self._stop(self._signals.pop(0))
        for post in self._posts:
            if post.process is not None and not post.process.is_alive():
                self._has_ended(post, post.process, now)
            elif post.process is not None and self._is_lost(post, now):
                post.process.kill()
            elif post.process is None and not self._stopping and now >= post.again_at:
                self._start(post, now)
        if self._owner.all_ready and not self._said:
            self._said = True
            for line in places(self._serve, url):
                log.info(line)
            log.info("%d workers serve", len(self._posts))

    def _start(self, post: _Post, now: float) -> None:
        self._owner.started(post.number)
        job = replace(self._job, number=post.number, first=not self._said)
        post.process = multiprocessing.get_context("spawn").Process(
            target=work, args=(job,), name=f"reco-worker-{post.number}"
        )
        post.began = now
        post.process.start()

    def _has_ended(self, post: _Post, process: BaseProcess, now: float) -> None:
        """Note the end of a worker, and when another one takes its place."""
        code = process.exitcode
        process.join()
        post.process = None
        was_ready = self._owner.ended(post.number, replaced=not self._stopping)
        if self._stopping:
            return
        if code == NOT_STARTED and not self._said:  # the others would fail in the same way
            self._failed = True
            self._stop(signal.SIGTERM)
            return
        # only those that cannot begin are tried ever more rarely: the others' loading alone keeps them apart
        is_sound = (was_ready and code != NOT_STARTED) or now - post.began > _SOUND_S
        post.pause_s = _FIRST_PAUSE_S if is_sound else min(2 * post.pause_s, _LONGEST_PAUSE_S)
        post.again_at = now + post.pause_s
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        log.warning(
            "worker %d ended %s: its requests failed, and another one begins in %g s", post.number, how, post.pause_s
        )

    def _is_lost(self, post: _Post, now: float) -> bool:
        """Whether a worker has hung for so long, or takes so long to end, that it is killed."""
        if self._latest is not None:
            return now > self._latest
        if hangs := self._owner.hangs(post.number, self._hopeless_s):
            log.error("worker %d hangs, and is killed", post.number)
        return hangs

    def _stop(self, sent: int) -> None:
        """Let the workers end, at once if a person waits; a second signal drops requests in flight."""
        self._stopping = True
        patience = self._serve.drain_s + self._serve.shutdown_s + _GRACE_S
        self._latest = self._latest or time.monotonic() + patience
        for post in self._posts:
            if post.process is not None and post.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(post.process.pid, sent)


@contextmanager
def _reserved(serve: ServeSettings) -> Iterator[Sequence[ListenPlace]]:
    """Hold the port while the block runs; nothing listens by that.

    Raises:
        ConfigError: another program has taken the address meanwhile.
    """
    with ExitStack() as held:
        reserved: list[ListenPlace] = []
        try:
            found = socket.getaddrinfo(serve.host, serve.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, *_, address in found:
                port = reserved[0][1][1] if reserved else serve.port  # one for all, also where any will do
                one = held.enter_context(listen_at((family, (address[0], port, *address[2:]))))
                reserved.append((family, one.getsockname()))
        except OSError:
            check_address(serve)  # which says what is wrong
            raise
        yield reserved


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that only this user may enter, for the sockets of this service."""
    remove_abandoned()
    try:
        folder = Path(tempfile.mkdtemp(prefix=PLACE))
    except OSError as error:
        raise ConfigError(_no_sockets("for them", error)) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _door(folder: Path) -> socket.socket:
    """A socket for commands of this user, from which all workers accept."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(str(folder / DOOR))
    except OSError as error:  # as a path of more than 107 bytes
        made.close()
        raise ConfigError(_no_sockets(f"in {folder}", error)) from error
    made.listen()
    return made


def _no_sockets(where: str, error: OSError) -> str:
    return f"workers: no sockets can be made {where}: {error}. Name another, shorter folder in TMPDIR, or serve with 1"


def _has_cuda() -> bool:
    try:
        from ...sessions.ort import has_cuda
    except MissingExtra:
        return False
    return has_cuda()
