"""A :class:`~.lesson.Lesson` in a process of its own: the one that serves goes on as if nothing were learned.

That process is given the pairs, takes one core at low priority, and gives back what it learned. It is killed at the
end, and ends by itself with the process that began it: then its pipe closes.
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
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from ..config import environment
from ..errors import LearningDied, as_sent
from ..types import Records
from .extra import Extra
from .lesson import COMPARED, FITTED, Lesson, Taught

log = logging.getLogger(__name__)
_NICE = 10  # how far it stands back: a tenth of a core that others want, so that it ends on a busy machine, too
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


class LessonApart(Lesson):
    """Asks the other process, one thing at a time."""

    def __init__(self, process: subprocess.Popen[bytes], progress: Callable[[int], object]) -> None:
        """``progress`` is called ten times a second; what it raises ends the call."""
        super().__init__(progress)
        self._process, self._thread = process, ThreadPoolExecutor(1, "reco-apart")

    def learn(self, pairs: Records, k: int, extras: Sequence[Extra] = ()) -> Taught | None:
        """Learn there."""
        found = self._ask("learn", pairs, k, extras)
        self._progress((COMPARED + FITTED) * len(pairs))
        return cast(Taught | None, found)

    def _ask(self, what: str, *given: Any) -> Any:
        answer = self._thread.submit(self._exchange, (what, given))
        while True:
            with suppress(NotYet):
                done, told = answer.result(_LOOK_S)
                break
            self._progress(0)
        if done:
            return told
        raise told

    def _exchange(self, asked: Any) -> tuple[bool, Any]:
        try:
            pickle.dump(asked, cast(IO[bytes], self._process.stdin), protocol=5)
            cast(IO[bytes], self._process.stdin).flush()
            return cast(tuple[bool, Any], pickle.load(cast(IO[bytes], self._process.stdout)))  # noqa: S301 - our own
        except (EOFError, OSError, pickle.UnpicklingError):
            return False, LearningDied(self._how_it_ended())

    def close(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        self._thread.shutdown()
        with suppress(OSError):  # what is left in the buffer has no reader any more
            cast(IO[bytes], self._process.stdin).close()
        cast(IO[bytes], self._process.stdout).close()

    def _how_it_ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDS_S)
        code = self._process.poll()
        ended = f"exited with {code}, see above" if code is None or code >= 0 else f"was killed by signal {-code}"
        return (
            f"the process that learned {ended}. It is not begun again by itself: run `reco memory build --relearn`, if "
            "memory (RAM) ran out on a machine with more of it"
        )


@contextmanager
def lesson_apart(progress: Callable[[int], object]) -> Iterator[Lesson]:
    """A lesson in a process of its own, or in this one where none can be started.

    Its calls raise LearningDied where the other process ends without a result.
    """
    try:
        if "py" not in Path(sys.executable or "").name.lower():
            raise OSError(f"{sys.executable!r} is no Python, but a program that holds one")
        with _without_signals():
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE.format(path=sys.path, nice=_NICE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"),
                creationflags=getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),  # Windows has no nice
            )
    except OSError as error:  # too many processes, or no RAM to start one
        log.warning("no process of its own can be started to learn, which this one does instead: %s", error)
        yield Lesson(progress)
        return
    lesson = LessonApart(process, progress)
    try:
        yield lesson
    finally:
        lesson.close()


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


def work() -> None:
    """Be the other process: read what is asked from standard input, answer over standard output."""
    reads, writes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    if sys.platform == "linux":  # it wakes nobody up, and goes first where RAM runs out
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    lesson = Lesson()
    with suppress(EOFError):
        while True:
            what, given = pickle.load(reads)  # noqa: S301 - of our own process
            try:
                answer = True, getattr(lesson, what)(*given)
            except Exception as error:
                answer = False, as_sent(error)
            pickle.dump(answer, writes, protocol=5)
            writes.flush()


def _end_with(parent: int) -> None:
    """End this process once the one that began it is gone, also amid a product."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)
