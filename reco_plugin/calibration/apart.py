"""Learn in a process of its own: the one that serves goes on as if nothing were learned.

Arrays and products are in the other process, on one core, at low priority. The memory stays open where it is: the other
process asks this one, over two pipes, to read, search and write, a little at a time, with pauses while others ask this
process for something. The same functions run there as here, so what is learned is the same, bit for bit.

It ends with this process, however that ends: then its pipe closes.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from ..config import environment
from ..errors import LearningDied, RecoError, as_sent
from ..memory import Header, Memory
from ..types import Neighbours, Payload, Records, Search
from .learn import learn_noted, noted
from .state import Calibration

log = logging.getLogger(__name__)
APART = 1_000
"""Pairs from which a process of its own pays: it takes half a core second to start; of fewer, learning takes little."""
NICE = 10
"""How far it stands back: a tenth of a core that another thread wants, so that it ends on a busy machine, too."""
PAUSE = 24.0
"""Pause after each thing it asks for, in the time which that took: so it takes a twenty-fifth of what others want."""
_LEAST_PAUSE = 0.5  # of it, where nobody else asks for anything
_READ, _WRITTEN = 32, 32  # pairs at a time: Qdrant Edge holds Python's lock for some milliseconds then
_LOOK_S = 0.1  # after which it is looked whether the memory was closed
_ENDS_S = 5.0
_CODE = """
import os, sys
if hasattr(os, "nice"):
    os.nice({nice})  # before its imports, which take a second of a core
sys.path[:] = {path!r}
from reco_plugin.calibration.apart import work
work()
"""
_CLOSED = ("closed",)


def learn_apart(store: Memory, k: int, *, progress: Callable[[int], object] = int) -> Calibration | None:
    """Learn as :func:`~reco_plugin.calibration.learn.learn` does, in a process of its own.

    Where none can be started, it is learned in this one.

    Args:
        store: the pairs; only this thread may learn from them meanwhile.
        k: neighbours of the searches to come.
        progress: called at least every tenth of a second, with 0 if nothing was done; what it raises ends the other
            process and this call.

    Raises:
        LearningDied: the other process ended without a result; the memory then keeps the note that it began.
        MemoryStoreError: reading or writing failed.
    """
    with noted(store, store.count()), _started() as process:
        if process is None:
            return learn_noted(store, k, progress)
        line = _Pipes(cast(IO[bytes], process.stdout), cast(IO[bytes], process.stdin))
        answers, pauses = _Answers(store), _Pauses(progress)
        try:
            line.send(k)
            while True:
                what, *given = line.take(progress)
                if what == "learned":
                    return cast(Calibration | None, given[0])
                if what == "failed":
                    raise given[0]
                if what == "progress":
                    progress(given[0])
                elif what == "log":
                    logging.getLogger(given[0]).log(given[1], "%s", given[2])
                elif what == _CLOSED[0]:
                    raise EOFError
                else:
                    line.send(*pauses.after(answers.answer, what, given))
        except (EOFError, BrokenPipeError) as error:
            raise LearningDied(_how_it_ended(process)) from error


@contextmanager
def _started() -> Iterator[subprocess.Popen[bytes] | None]:
    """The other process, killed at the end; None where the system has no room for one, or no Python to start."""
    try:
        if "py" not in Path(sys.executable or "").name.lower():
            raise OSError(f"{sys.executable!r} is no Python, but a program that holds one")
        with _without_signals():
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE.format(path=sys.path, nice=NICE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"),
                creationflags=getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),  # Windows has no nice
            )
    except OSError as error:  # too many processes, or no RAM to start one
        log.warning("no process of its own can be started to learn, which this one does instead: %s", error)
        yield None
        return
    try:
        yield process
    finally:
        process.kill()
        with suppress(OSError, ValueError):  # what is left in the buffer has no reader any more
            cast(IO[bytes], process.stdin).close()
        process.wait()
        cast(IO[bytes], process.stdout).close()


@contextmanager
def _without_signals() -> Iterator[None]:
    """Let a process that begins in the block get no signal that a group of processes is ended with.

    Else it ends before this one has taken its note back, as by Ctrl-C or systemd, and counts as one that died.
    """
    if sys.platform == "win32":  # where a new process has no signals to inherit
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    with suppress(subprocess.TimeoutExpired):
        process.wait(_ENDS_S)
    code = process.poll()
    ended = f"exited with {code}, see above" if code is None or code >= 0 else f"was killed by signal {-code}"
    return (
        f"the process that learned {ended}. It is not begun again by itself: run `reco memory calibrate`, if memory "
        "(RAM) ran out on a machine with more of it"
    )


class _Pipes:
    """Sends objects over one stream of bytes, and takes those that come over another."""

    def __init__(self, reads: IO[bytes], writes: IO[bytes], closed: Callable[[], object] = int) -> None:
        """Read in a thread; ``closed`` is called there when the other side is gone."""
        self._reads, self._writes, self._closed = reads, writes, closed
        self._came, self._sending = SimpleQueue[tuple[Any, ...]](), threading.Lock()
        threading.Thread(target=self._read, name="reco-line", daemon=True).start()

    def send(self, *what: Any) -> None:
        """Send a tuple; one thread may tell of its progress while another asks."""
        with self._sending:
            pickle.dump(what, self._writes, protocol=5)
            self._writes.flush()

    def take(self, progress: Callable[[int], object] | None = None) -> tuple[Any, ...]:
        """Wait for the next tuple; ``progress`` is called meanwhile."""
        while True:
            try:
                return self._came.get(timeout=None if progress is None else _LOOK_S)
            except Empty:
                if progress is not None:
                    progress(0)

    def _read(self) -> None:
        try:
            while True:
                self._came.put(pickle.load(self._reads))  # noqa: S301 - of our own process
        except Exception as error:
            if not isinstance(
                error, EOFError | OSError | ValueError | pickle.UnpicklingError
            ):  # of an end, amid a tuple
                log.error("what the other process of learning sent cannot be read: %r", error)
            self._came.put(_CLOSED)  # whatever it was: nobody may wait for what no thread reads
            self._closed()


class _Pauses:
    """Pauses between pieces of work, long while other threads of this process are busy."""

    def __init__(self, progress: Callable[[int], object]) -> None:
        self._progress, self._busy = progress, 1.0
        self._before = (time.perf_counter(), time.process_time(), time.thread_time())

    def after(self, work: Callable[..., Any], *given: Any) -> Any:
        """What the work returns, after its pause."""
        wall, all_, own = (now - then for now, then in zip(_clocks(), self._before, strict=True))
        others = min(max(all_ - own, 0.0) / max(wall, 1e-6), 1.0)  # cores that they took since the last piece
        self._busy += 0.5 * (others - self._busy)
        begun = time.thread_time()
        done = work(*given)
        pause = (time.thread_time() - begun) * max(PAUSE * self._busy, _LEAST_PAUSE)
        self._before = _clocks()  # while the work ran, others may have waited for Python's lock
        until = time.perf_counter() + pause
        while (left := until - time.perf_counter()) > 0.0:
            time.sleep(min(left, _LOOK_S))
            self._progress(0)
        return done


def _clocks() -> tuple[float, float, float]:
    return time.perf_counter(), time.process_time(), time.thread_time()


class _Answers:
    """Does with the memory what the other process asks for."""

    def __init__(self, store: Memory) -> None:
        self._store = store
        self._pages = dict[str, Iterator[Any]]()  # pairs and payloads may be read in turns

    def answer(self, what: str, given: Sequence[Any]) -> tuple[bool, Any]:
        """Whether it was done, and what it returned or raised."""
        try:
            own = getattr(self, f"_{what}", None)
            return True, (own or getattr(self._store, what))(*given)
        except RecoError as error:
            return False, as_sent(error)

    def _header(self) -> Header:
        return replace(self._store.header, said={})  # which nobody learns from, and may be much

    def _scroll(self, ids: Sequence[str] | None) -> None:
        self._pages["pairs"] = ((page.ids, page.image, page.text) for page in self._store.scroll(_READ, ids))

    def _payloads(self) -> None:
        self._pages["payloads"] = self._store.payloads()

    def _page(self, of: str) -> Any:
        return next(self._pages[of], None)


class _AskedMemory:
    """The memory as the other process sees it: all that learning calls, done by the process that has it open."""

    def __init__(self, line: _Pipes) -> None:
        self._line, self._asking = line, threading.Lock()

    def _ask(self, what: str, *given: Any) -> Any:
        with self._asking:  # one thread reads ahead and writes, while another stores what was learned
            self._line.send(what, *given)
            done, told = self._line.take()
        if done:
            return told
        raise told

    @property
    def header(self) -> Header:
        return cast(Header, self._ask("header"))

    def count(self) -> int:
        return int(self._ask("count"))

    def count_unjudged(self) -> int:
        return int(self._ask("count_unjudged"))

    def unjudged(self, most: int) -> list[str]:
        return list(self._ask("unjudged", most))

    def ids_after(self, last: str | None, limit: int) -> list[str]:
        return list(self._ask("ids_after", last, limit))

    def scroll(self, ids: Sequence[str] | None = None) -> Iterator[Records]:
        self._ask("scroll", ids)
        while (page := self._ask("page", "pairs")) is not None:
            ids, image, text = page
            yield Records(ids, image, text, [{}] * len(ids))

    def payloads(self) -> Iterator[tuple[str, Payload]]:
        self._ask("payloads")
        while (pair := self._ask("page", "payloads")) is not None:
            yield pair

    def search(self, search: Search) -> Neighbours:
        return cast(Neighbours, self._ask("search", search))

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        self._ask("set_calibration", calibration)

    def set_witnesses(self, ids: Sequence[str], witnesses: npt.NDArray[np.float32]) -> None:
        for start in range(0, len(ids), _WRITTEN):
            rows = slice(start, start + _WRITTEN)
            self._ask("set_witnesses", ids[rows], witnesses[rows])

    def flush(self) -> None:
        self._ask("flush")


class _ToldLog(logging.Handler):
    """Tells the other process what is logged."""

    def __init__(self, line: _Pipes) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        self._line.send("log", record.name, record.levelno, record.getMessage())


def work() -> None:
    """Learn, as the other process: ask over standard output, read the answers from standard input."""
    reads, writes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    stand_back()
    line = _Pipes(reads, writes, closed=lambda: os._exit(1))
    logging.basicConfig(handlers=[_ToldLog(line)], level=logging.INFO)
    (k,) = line.take()
    try:
        # learning calls no other method of a memory
        learned = learn_noted(cast(Memory, _AskedMemory(line)), k, lambda steps: line.send("progress", steps))
        line.send("learned", learned)
    except Exception as error:
        line.send("failed", as_sent(error))
    line.take()  # until it is killed, or the pipe closes


def stand_back() -> None:
    """Let this process wake nobody up, and be the first that goes where RAM runs out; no Ctrl-C ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
