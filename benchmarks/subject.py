"""One data set under one encoder: its memories, and zero-shot hits with and without refinement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from reco_plugin.evaluate.measure import measure, refine_task
from reco_plugin.evaluate.methods import grid
from reco_plugin.evaluate.study.memories import ram_memory
from reco_plugin.evaluate.task import Task, TaskItems
from reco_plugin.fuse import Fuser
from reco_plugin.quickstart.dataset import EntitySplit
from reco_plugin.refine import Refiner, VectorMemory
from reco_plugin.types import Caution, Fingerprint, Modality, Records

from .sets.vectors import VectorSet

K = 10
Hits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Way:
    """One way to refine.

    Attributes:
        memory: to retrieve from.
        fuser: to fuse with; None: the closed form.
        gate: whether the closed form moves only as far as the memory's own pairs justify.
        k: neighbours.
        sides: which sides are refined.
        caution: of the gate.
    """

    memory: VectorMemory
    fuser: Fuser | None = None
    gate: bool = True
    k: int = K
    sides: tuple[Modality, ...] = ("image", "text")
    caution: Caution = "balanced"


class Subject:
    """A data set under an encoder."""

    def __init__(self, data: VectorSet, fingerprint: Fingerprint) -> None:
        self.data, self.fingerprint = data, fingerprint
        self.split_of_pair = np.array(data.splits)[data.memory_entity]
        self.split_of_query = np.array(data.splits)[data.truth]

    @cached_property
    def full(self) -> VectorMemory:
        """A memory of all pairs."""
        return self.memory(range(len(self.data.memory)))

    def rows(self, splits: Iterable[EntitySplit]) -> npt.NDArray[np.int64]:
        """Rows of the memory's pairs of these splits."""
        return np.flatnonzero(np.isin(self.split_of_pair, list(splits)))

    def memory(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> VectorMemory:
        """An exact memory of some pairs, its calibration learned from them."""
        return ram_memory(self.data.memory.take(rows), self.fingerprint).at(K)

    def with_wrong_captions(self, share: float) -> VectorMemory:
        """All pairs, a share of which have traded their captions."""
        return ram_memory(with_traded_captions(self.data.memory, share), self.fingerprint).at(K)

    def hits(self, group: Sequence[EntitySplit], way: Way | None, queries: Sequence[EntitySplit] = ()) -> Hits:
        """Whether each query of a group, or of some of its splits, is classified right among the group's labels."""
        found, prompts = self.data.queries, self.data.prompts
        whole = Task(
            TaskItems(found.image, "image", self.data.truth),
            TaskItems(prompts, "text", np.arange(len(prompts))),
            self.data.truth,
        )
        asking = whole.only(np.isin(self.split_of_query, list(queries or group)))
        task = asking.among(np.isin(self.data.splits, list(group)))
        refined = None if way is None else [refine_task(refiner(way), task, way.sides)]
        hits: Hits = measure(task, refined).ranks[0] < 1
        return hits

    def text_to_image(self, split: EntitySplit, way: Way | None) -> Hits:
        """Whether the first image that each worded caption finds shows its entity; the index is plain."""
        found, truth = self.data.queries, self.data.truth
        whole = Task(TaskItems(found.text, "text", truth), TaskItems(found.image, "image", truth), truth)
        task = whole.among(np.array(self.data.splits) == split)
        refined = None if way is None else [refine_task(refiner(way), task, {"text"})]
        hits: Hits = measure(task, refined).ranks[0] < 1
        return hits

    def entities_of(self, queries: Sequence[EntitySplit]) -> npt.NDArray[np.int64]:
        """Entity of each query of some splits, to draw confidence intervals over."""
        return self.data.truth[np.isin(self.split_of_query, list(queries))]

    def best_baseline(self, memory: VectorMemory) -> Way:
        """The mean of neighbours, with 5 or 10 of them, that is best on the development entities with this memory."""
        ways = [Way(memory, fuser, gate=False, k=k) for k in (5, 10) for fuser in grid()]
        return max(ways, key=lambda way: self.hits(["dev"], way).mean())


def with_traded_captions(records: Records, share: float) -> Records:
    """The same pairs, a random share of which have traded their texts."""
    rng, place = np.random.default_rng(1), np.arange(len(records))
    wrong = np.flatnonzero(rng.random(len(place)) < share)
    place[wrong] = rng.permutation(wrong)
    return replace(records, text=records.text[place])


def refiner(way: Way) -> Refiner:
    """What refines in this way."""
    return Refiner(way.memory, way.fuser, k=way.k, gate=way.gate, caution=way.caution)
