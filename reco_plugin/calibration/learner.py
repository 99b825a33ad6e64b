"""When a memory learns from its pairs, and judges new ones: with the write, or in a thread behind it, as in a service.

Which pairs are not judged yet is asked of the store, which also knows what other processes left.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ..errors import MemoryStoreError, MemoryTimeout, MemoryUnavailable
from ..memory import Memory, part_of_a_write
from .extra import Extra
from .learn import STEPS, learn, score_captions
from .note import unfinished
from .state import ENOUGH, Calibration

log = logging.getLogger(__name__)
APART = 1_000
"""Pairs from which a process of its own pays: it takes half a core second to start; of fewer, learning takes little."""
_GROWTH = 2.0  # calibrate again when the memory has grown, or shrunk, by this factor
_WITHOUT = 0.25  # of the pairs lack scores, or are gone: learning anew takes less time than two searches for each
_BEHIND = 64  # new pairs whose surroundings are searched in one go by a thread
_ASKED = 1_000  # pairs that the store is asked for at a time
_AGAIN_S = 60.0  # after which a thread whose search failed asks again


class LearnsFrom(Protocol):
    """What a :class:`Learner` knows of a memory; the store may be another one after :meth:`Learner.moving`."""

    store: Memory

    @property
    def calibration(self) -> Calibration | None:
        """What was learned; None while nothing was."""


class Learner:
    """Keeps what a memory has learned up to date with its pairs.

    Attributes:
        behind: whether it learns in a thread; else those wait who call it.
    """

    def __init__(
        self, memory: LearnsFrom, neighbours: int, changed: Callable[[], object], extras: Sequence[Extra] = ()
    ) -> None:
        """``changed`` is called each time that something was learned; ``extras`` learn too."""
        self._extras = extras
        self._memory, self._neighbours, self._changed = memory, neighbours, changed
        self.behind, self._closing, self._moving = False, threading.Event(), threading.Event()
        self._learning, self._starting = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._wanted: Callable[[], None] | None = None  # what the thread does next
        self._tried, self._told = 0, ""  # pairs of the last attempt to learn; what the log was told of others'
        self._told_left = False  # whether the log was told that too many pairs are not judged

    def calibrate(self, *, progress: bool = False) -> Calibration | None:
        """Learn from the pairs, and store it with the memory; see :func:`reco_plugin.calibration.learn.learn`.

        Args:
            progress: show a bar on stderr.
        """
        with self._learning, _learning_bar(STEPS * self._memory.store.count(), "step", show=progress) as bar:
            return self._fit(bar.update)

    def settle(self, *, progress: bool = False) -> None:
        """Make all writes durable, and learn from them: at once, or in a thread where :attr:`behind`.

        Trust is learned anew if the memory has grown or shrunk much, or a quarter of the pairs are not judged; else
        those are, whoever wrote them: the store knows which.

        Args:
            progress: show a bar on stderr where this waits for it.
        """
        with part_of_a_write():
            self._settle(progress=progress)

    def _settle(self, *, progress: bool) -> None:
        self._memory.store.flush()
        if self.behind and self._memory.store.count() >= ENOUGH:
            self._do_behind(self._learn_behind)
            return
        due = False
        try:
            with self._learning:
                left = self.count_unjudged()
                due = self._due(left)
                size = (STEPS * self._memory.store.count(), "step") if due else (left, "pair")
                with _learning_bar(*size, show=progress) as bar:
                    if due:
                        self._fit(bar.update)
                    while not due and left > 0 and (done := self._judge(_ASKED, around=False, progress=bar.update)):
                        left -= done
        except MemoryStoreError as error:
            if due:
                raise
            warnings.warn(
                f"pairs are stored, but not all are judged, and count as average until the next write: {error}",
                stacklevel=2,
            )

    @property
    def unfinished(self) -> str:
        """Why a service does not learn now, for people: another process began to and has not ended, or died."""
        return unfinished(self._memory.store.header)

    @property
    def learning(self) -> bool:
        """Whether this process learns from the pairs now."""
        return bool(self._memory.store.header.learning) and not self.unfinished

    def resume(self) -> None:
        """Judge, in a thread, what an earlier process stored and did not judge; learn nothing anew."""
        self._tell_unfinished()
        if self._memory.calibration is not None:
            self._do_behind(self._judge_left)

    def count_unjudged(self) -> int:
        """Pairs that are not judged yet, and count as average until they are; 0 without :attr:`calibration`."""
        return 0 if self._memory.calibration is None else self._memory.store.count_unjudged()

    def after_removal(self) -> None:
        """Learn anew in the thread, if there is one, once a quarter of what was learned from is gone."""
        if self.behind and self._shrunk():
            self._do_behind(self._learn_behind)

    @contextmanager
    def moving(self) -> Iterator[None]:
        """End what runs; the memory may put another store to use in the block."""
        self._moving.set()
        try:
            if (thread := self._thread) is not None:
                thread.join()
            yield
            self._tried, self._told_left = 0, False
        finally:
            self._moving.clear()

    def close(self) -> None:
        """End what runs, and begin nothing any more."""
        self._closing.set()
        if (thread := self._thread) is not None:
            thread.join()

    def _due(self, left: int) -> bool:
        """Whether calibration must be learned anew; where nothing could be learned, the last attempt counts.

        ``left`` pairs are not judged yet.
        """
        calibration, pairs = self._memory.calibration, self._memory.store.count()
        known = self._tried if calibration is None else calibration.pairs
        if (calibration is None and pairs < ENOUGH) or pairs >= known * _GROWTH:
            return True
        return left > _WITHOUT * pairs or pairs <= known / _GROWTH or self._shrunk()

    def _shrunk(self) -> bool:
        """Whether a quarter of the pairs that calibration was learned from are gone, and enough are left to learn."""
        calibration, pairs = self._memory.calibration, self._memory.store.count()
        return calibration is not None and pairs >= ENOUGH and pairs < (1.0 - _WITHOUT) * calibration.pairs

    def _judge(self, most: int, *, around: bool, progress: Callable[[int], object]) -> int:
        """Judge some of the pairs that are not judged yet; returns how many."""
        calibration = self._memory.calibration
        new = [] if calibration is None else self._memory.store.unjudged(most)
        if calibration is not None and new:
            score_captions(self._memory.store, calibration, new, self._neighbours, around=around, progress=progress)
            self._memory.store.flush()
            self._changed()
        return len(new)

    def _fit(self, progress: Callable[[int], object]) -> Calibration | None:
        try:
            apart = self.behind and self._memory.store.count() >= APART
            state = learn(self._memory.store, self._neighbours, extras=self._extras, apart=apart, progress=progress)
            self._tried = self._memory.store.count()
            return state
        finally:
            self._changed()

    def _do_behind(self, what: Callable[[], None]) -> None:
        """Let the thread do this, after what it does now."""
        with self._starting:  # no write may come between the thread's last look and its end
            if self._wanted is None or what == self._learn_behind:  # which judges, too
                self._wanted = what
            if self._thread is None:
                self._thread = threading.Thread(target=self._run_behind, name="reco-calibration", daemon=True)
                self._thread.start()

    def _run_behind(self) -> None:
        """Do what is wanted until nothing is; a failure is a warning, and the next write begins anew."""
        while (what := self._next()) is not None:
            try:
                what()
            except Exception as error:
                self._warn(f"calibration was not learned from the latest pairs, which are stored: {error}")

    def _next(self) -> Callable[[], None] | None:
        with self._starting:
            what, self._wanted = None if self._stops else self._wanted, None
            if what is None:
                self._thread = None
            return what

    def _learn_behind(self) -> None:
        with self._learning:
            if self._due(self.count_unjudged()) and not self._tell_unfinished():
                self._fit(self._refuse_closed)
        self._judge_left()

    def _tell_unfinished(self) -> bool:
        """Log, once for each, that another process learns, or died of it."""
        said = self.unfinished
        if said and said != self._told:
            log.warning("%s. Until then, nothing is learned here", said)
        self._told = said
        return bool(said)

    def _judge_left(self) -> None:
        if (left := self.count_unjudged()) <= _WITHOUT * self._memory.store.count():
            self._told_left = False
            self._judge_behind()
        elif not self._told_left:  # else each write would say it again
            self._told_left = True
            log.warning("%d pairs are not judged yet and count as average: run `reco memory build --relearn`", left)

    def _judge_behind(self) -> None:
        """Judge what is not judged yet; what the store does not answer now is asked again later."""
        left = self.count_unjudged()
        while left > 0 and not self._stops:
            begun, pause = time.monotonic(), _AGAIN_S
            try:
                with self._learning:
                    done = self._judge(_BEHIND, around=True, progress=self._refuse_closed)
            except (MemoryUnavailable, MemoryTimeout) as error:
                self._warn(f"pairs are stored, but not all are judged; again in {_AGAIN_S:.0f} s: {error}")
            else:
                left -= done or left
                pause = time.monotonic() - begun  # half of the time belongs to queries
            self._closing.wait(pause)

    @property
    def _stops(self) -> bool:
        """Whether the thread has to end: the memory is closed, or moves to another version."""
        return self._closing.is_set() or self._moving.is_set()

    def _warn(self, said: str) -> None:
        if not self._stops:
            warnings.warn(said, stacklevel=2)

    def _refuse_closed(self, _: int) -> None:
        if self._stops:
            raise InterruptedError("the memory is closed, or another version of it was put to use")


def _learning_bar(total: int, unit: str, *, show: bool) -> Any:
    if not (show and total):
        from tqdm import tqdm

        return tqdm(disable=True)
    from ..progress import progress_bar

    return progress_bar(total=total, desc="learn calibration", unit=unit)
