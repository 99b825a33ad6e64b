"""When a memory learns from its pairs: with the write, or in a thread behind it, as in a service."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ..memory import Memory, in_scope, part_of_a_write
from .extra import Extra
from .learn import learn, steps_of
from .state import ENOUGH, Calibration

log = logging.getLogger(__name__)
CHANGED = 0.25
"""Share by which the number of pairs has changed since the last time, from which a memory learns anew."""


class LearnsFrom(Protocol):
    """What a :class:`Learner` knows of a memory; the store may be another one after :meth:`Learner.moving`."""

    @property
    def store(self) -> Memory:
        """The pairs."""

    @property
    def calibration(self) -> Calibration | None:
        """What was learned; None while nothing was."""


class Learner:
    """Keeps what a memory has learned up to date with its pairs.

    Attributes:
        behind: whether it learns in a thread; else those wait who call it.
    """

    def __init__(
        self,
        memory: LearnsFrom,
        neighbours: int,
        changed: Callable[[], object],
        extras: Sequence[Extra] = (),
        learning: threading.Lock | None = None,
    ) -> None:
        """``changed`` is called each time that something was learned; ``extras`` learn too; ``learning``: in turn."""
        self._extras = extras
        self._memory, self._neighbours, self._changed = memory, neighbours, changed
        self.behind, self._closing, self._moving = False, threading.Event(), threading.Event()
        self._learning, self._starting = learning or threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._wanted, self._gone = False, False  # whether the thread looks once more; whether many pairs were removed
        self._tried = 0  # pairs of the last attempt to learn

    def calibrate(self, *, progress: bool = False) -> Calibration | None:
        """Learn from the pairs, and store it with the memory; see :func:`reco_plugin.learning.learn.learn`.

        Args:
            progress: show a bar on stderr.
        """
        with in_scope(), self._learning, _learning_bar(steps_of(self._memory.store.count()), show=progress) as bar:
            return self._fit(bar.update)

    def settle(self, *, progress: bool = False) -> None:
        """Make all writes durable, and learn from them if the number of pairs has changed by a quarter.

        At once, or in a thread where :attr:`behind`.

        Args:
            progress: show a bar on stderr where this waits for it.
        """
        with in_scope(), part_of_a_write():  # of all pairs, whoever wrote
            self._memory.store.flush()
            if self.behind and self._memory.store.count() >= ENOUGH:
                self.learn_behind()
            elif self._is_due():
                self.calibrate(progress=progress)

    @property
    def learning(self) -> bool:
        """Whether this process learns from the pairs now."""
        return self._learning.locked()

    def after_removal(self) -> None:
        """Learn anew, with the next write or in the thread, once a quarter of what was learned from is gone."""
        with in_scope():
            self._gone = self._gone or (self._memory.calibration is not None and self._is_due())
            if self._gone and self.behind and self._memory.store.count() >= ENOUGH:
                self.learn_behind()

    @contextmanager
    def moving(self) -> Iterator[None]:
        """End what runs; the memory may put another store to use in the block."""
        self._moving.set()
        try:
            if (thread := self._thread) is not None:
                thread.join()
            yield
            self._tried, self._gone = 0, False
        finally:
            self._moving.clear()

    def stop(self) -> None:
        """Begin nothing any more; what runs ends soon."""
        self._closing.set()

    def close(self) -> None:
        """End what runs, and begin nothing any more."""
        self.stop()
        if (thread := self._thread) is not None:
            thread.join()

    def _is_due(self) -> bool:
        """Whether to learn anew; where nothing could be learned, the last attempt counts."""
        calibration, pairs = self._memory.calibration, self._memory.store.count()
        if calibration is None and pairs < ENOUGH:
            return True
        known = self._tried if calibration is None else calibration.pairs
        return self._gone or known == 0 or abs(pairs - known) >= CHANGED * known

    def _fit(self, progress: Callable[[int], object]) -> Calibration | None:
        try:
            state = learn(self._memory.store, self._neighbours, extras=self._extras, progress=progress)
            self._tried, self._gone = self._memory.store.count(), False
            return state
        finally:
            self._changed()

    def learn_behind(self) -> None:
        """Let the thread look whether to learn, after what it does now."""
        with self._starting:  # no write may come between the thread's last look and its end
            self._wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run_behind, name="reco-calibration", daemon=True)
                self._thread.start()

    def _run_behind(self) -> None:
        """Learn until nobody wants more; a failure is a warning, and the next write begins anew."""
        while self._is_wanted():
            try:
                with self._learning:
                    if self._is_due():
                        self._fit(self._refuse_closed)
            except Exception as error:
                if not self._stops:
                    warnings.warn(
                        f"calibration was not learned from the latest pairs, which are stored: {error}", stacklevel=1
                    )

    def _is_wanted(self) -> bool:
        with self._starting:
            wanted, self._wanted = self._wanted and not self._stops, False
            if not wanted:
                self._thread = None
            return wanted

    @property
    def _stops(self) -> bool:
        """Whether the thread has to end: the memory is closed, or moves to another version."""
        return self._closing.is_set() or self._moving.is_set()

    def _refuse_closed(self, _: int) -> None:
        if self._stops:
            raise InterruptedError("the memory is closed, or another version of it was put to use")


def _learning_bar(total: int, *, show: bool) -> Any:
    if not (show and total):
        from tqdm import tqdm

        return tqdm(disable=True)
    from ..progress import progress_bar

    return progress_bar(total=total, desc="learn calibration", unit="step")
