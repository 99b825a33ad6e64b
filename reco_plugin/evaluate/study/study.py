"""Everything that the sections of a study share, made once and when it is first needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ...data import Captioned, Labelled
from ...refine import VectorMemory
from ...types import Records
from ..intervals import Interval
from ..measure import Measured, gain, measure
from ..methods import Measures, Method
from ..task import Mask, Task
from .choice import Chosen, choose
from .config import StudyConfig
from .membership import Membership
from .memories import ram_memory
from .pictures import Thumbnails
from .streams import folds
from .subject import Subject

T = TypeVar("T")


class StudyProgress(Protocol):
    """Passes items on and shows how far it is."""

    def __call__(self, items: Iterable[T], what: str, /) -> Iterable[T]:
        """The items, one by one."""
        ...


@dataclass(frozen=True)
class Study:
    """What is studied, and on what.

    Attributes:
        config: what was asked for.
        subject: memory and models.
        labelled: the set as it was read.
        whole, dev, test: its task; what baselines are chosen on; what everything but the main table reports.
        records: the memory's pairs in RAM, at most ``config.memory_limit``.
        shows: which of them belong to which classes of the whole set.
        distractors: pairs of another domain, if any were given.
        captioned: retrieval set of vectors, if one was given.
        pictures: where thumbnails go.
        watch: shows progress.
    """

    config: StudyConfig
    subject: Subject
    labelled: Labelled
    whole: Task
    dev: Task
    test: Task
    records: Records
    shows: Membership
    distractors: Records | None
    captioned: Captioned | None
    pictures: Thumbnails
    watch: StudyProgress

    @property
    def ours(self) -> Method:
        """How the models refine."""
        return self.subject.ours

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.pictures.folder.parent

    @cached_property
    def frozen(self) -> Measured:
        """The test task without refinement."""
        return measure(self.test)

    @cached_property
    def full(self) -> VectorMemory:
        """All pairs in RAM."""
        return self.memory(self.records)

    @cached_property
    def baselines(self) -> tuple[Chosen, ...]:
        """Of every kind the best on the development task, the best of all first."""
        return choose(self.dev, self.full, self.ours, self.watch)

    @property
    def best_baseline(self) -> Chosen:
        """The best of all on the development task."""
        return self.baselines[0]

    def memory(self, records: Records, k: int | None = None) -> VectorMemory:
        """A memory in RAM, calibrated anew; k is that of ``ours`` when left out."""
        return ram_memory(records, self.subject.fingerprint).at(k or self.ours.how.k)

    def without(self, numbers: npt.NDArray[np.int64]) -> VectorMemory:
        """A memory in RAM without the pairs of these classes."""
        return self.memory(self.records.take(~self.shows.of(numbers)))

    def halves(self) -> list[tuple[Mask, VectorMemory]]:
        """The queries (N,) of each half of the test classes, and a memory in RAM without the pairs of that half."""
        labels, left_out = self.test.queries.labels, folds(self.test, self.config.seed)
        return [(fold[labels], self.without(np.flatnonzero(fold))) for fold in left_out]

    def measure_halves(self, method: Measures, halves: Sequence[tuple[Mask, VectorMemory]]) -> Measured:
        """What a method makes of the test task when each half of the queries has a memory of its own."""
        asked = [(mask, memory, self.test.only(mask)) for mask, memory in halves if mask.any()]
        return Measured.merge([(mask, self.measure(method, memory, task)) for mask, memory, task in asked])

    def measure(self, method: Measures, memory: VectorMemory | None = None, task: Task | None = None) -> Measured:
        """What a method makes of the test task, with all pairs unless another memory is given."""
        return method.measure(task or self.test, memory or self.full)

    def gain(self, outcome: Measured, before: Measured | None = None, task: Task | None = None) -> Interval:
        """Difference in top-1, by default to frozen, with its interval over groups."""
        groups, drawn = (task or self.test).groups, {"samples": self.config.draws, "seed": self.config.seed}
        return gain(outcome, before or self.frozen, groups, **drawn)
