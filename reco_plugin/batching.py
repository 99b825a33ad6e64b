"""Batches across callers: what several threads ask for at the same time is run together.

A caller that finds nothing running runs its rows at once. Those that come meanwhile wait, and then the first of them
runs the rows of all, up to a cap, and so on: nobody waits while nothing runs, no thread is needed, none to stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

Columns: TypeAlias = tuple[Any, ...]
"""Arrays (B, ...) and lists of length B: rows that can be cut and joined."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(eq=False)
class _Job(Generic[Key]):
    """The rows of one caller."""

    key: Key
    columns: Columns
    begun: int = 0  # rows that are in a batch, or were
    answers: list[Columns] = field(default_factory=list)  # in the order of the rows
    error: Exception | None = None
    leads: bool = False  # whether its thread runs the batches now
    woken: threading.Event = field(default_factory=threading.Event)  # it is answered, or leads

    @property
    def rows(self) -> int:
        return len(self.columns[0])

    @property
    def done(self) -> int:
        """How many rows have their answer: the first ones."""
        return sum(len(part[0]) for part in self.answers)

    @property
    def answered(self) -> bool:
        return self.error is not None or self.done == self.rows


@dataclass(frozen=True)
class _Part(Generic[Key]):
    """Some rows of a job, for one batch."""

    job: _Job[Key]
    rows: slice

    @property
    def done(self) -> bool:
        """Whether it needs no other batch."""
        return self.job.error is not None or self.job.done >= self.rows.stop

    @property
    def columns(self) -> Columns:
        return tuple(column[self.rows] for column in self.job.columns)


class Batcher(Generic[Key]):
    """Runs rows of several threads in batches, one batch at a time."""

    def __init__(
        self,
        run: Callable[[Key, Columns], Columns],
        most: int,
        shared: tuple[type[Exception], ...] = (),
        waits_s: float | None = None,
    ) -> None:
        """Run nothing yet.

        Args:
            run: computes a batch, row by row; the answer to a row must not depend on the others.
            most: rows of a batch.
            shared: errors that say nothing about the rows: all callers of a batch get them. After any other one, the
                rows of each caller are run alone, so that only those that are wrong fail.
            waits_s: how long a caller waits for its turn; None: as long as it takes.
        """
        self._run, self._most, self._shared, self._waits_s = run, most, shared, waits_s
        self._lock = threading.Lock()
        self._waiting: list[_Job[Key]] = []  # those with rows that are not begun, oldest first
        self._led = False

    @property
    def load(self) -> int:
        """Callers that it runs or that wait for it, of which those that share a running batch count as one."""
        return len(self._waiting) + self._led

    def __call__(self, key: Key, columns: Columns) -> Columns:
        """Wait for the answers to the rows of one caller.

        Args:
            key: rows of different keys are never in one batch.
            columns: B rows, one at least.

        Raises:
            TimeoutError: others kept it waiting for too long, and nothing of it was run.
            Exception: whatever the run of its rows raised.
        """
        job = _Job(key, columns)
        try:
            with self._lock:
                waits = self._led or job.rows > self._most
                if waits:
                    self._waiting.append(job)
                job.leads = not self._led
                self._led = True
            return self._wait(job) if waits else self._run(key, columns)  # nothing else runs
        finally:  # also where the thread is interrupted
            with self._lock:
                if job in self._waiting:
                    self._waiting.remove(job)
            if job.leads:
                self._lead_on()

    def _wait(self, job: _Job[Key]) -> Columns:
        if not job.leads and not job.woken.wait(self._waits_s):
            with self._lock:
                if not (job.begun or job.leads):
                    self._waiting.remove(job)
                    raise TimeoutError
            job.woken.wait()
        while not job.answered:
            self._run_one_batch()  # it leads
        if job.error is not None:
            raise job.error
        return _join(job.answers)

    def _lead_on(self) -> None:
        """Let the one that waits longest run the next batch."""
        with self._lock:
            self._led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].woken.set()

    def _run_one_batch(self) -> None:
        batch: list[_Part[Key]] = []
        try:
            with self._lock:
                self._take(batch)
            self._answer(batch)
        except Exception as error:
            for part in batch:
                if len(batch) == 1 or isinstance(error, self._shared):
                    part.job.error = error
                else:
                    self._answer_alone(part)
        finally:  # also where this thread is interrupted, which the others are not
            with self._lock:
                left = [part.job for part in batch if not part.done]
                for job in left:
                    job.begun = job.done
                waiting = dict.fromkeys([*left, *self._waiting])
                self._waiting = [job for job in waiting if job.error is None]
            for part in batch:
                if part.job.answered:
                    part.job.woken.set()

    def _take(self, batch: list[_Part[Key]]) -> None:
        """Rows of the oldest job's key: equally many of each job, and the rest in the order of arrival."""
        key = self._waiting[0].key
        jobs = [job for job in self._waiting if job.key == key][: self._most]
        share = self._most // len(jobs)
        sizes = [min(share, job.rows - job.begun) for job in jobs]
        for place, job in enumerate(jobs):
            sizes[place] += min(self._most - sum(sizes), job.rows - job.begun - sizes[place])
        for job, size in zip(jobs, sizes, strict=True):
            batch.append(_Part(job, slice(job.begun, job.begun + size)))
            job.begun += size
        unbegun = [job for job in self._waiting if job.begun < job.rows]
        self._waiting = sorted(unbegun, key=lambda job: job in jobs)  # those that had no turn come first

    def _answer(self, batch: Sequence[_Part[Key]]) -> None:
        answers = self._run(batch[0].job.key, _join([part.columns for part in batch]))
        start = 0
        for part in batch:
            stop = start + part.rows.stop - part.rows.start
            part.job.answers.append(tuple(column[start:stop] for column in answers))
            start = stop

    def _answer_alone(self, part: _Part[Key]) -> None:
        try:
            self._answer([part])
        except Exception as error:
            part.job.error = error


def _join(parts: Sequence[Columns]) -> Columns:
    """Rows below one another."""
    if len(parts) == 1:
        return parts[0]
    return tuple(
        np.concatenate(column) if isinstance(column[0], np.ndarray) else [row for part in column for row in part]
        for column in zip(*parts, strict=True)
    )
