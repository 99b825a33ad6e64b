"""Fusers: what makes refined vectors of queries and what the memory holds near them (paper, section 3.3).

All have one protocol, :class:`Fuser`: the closed form (:mod:`reco_plugin.fusion.closed_form`), the attention layer
of a model folder (:class:`GraphFuser`), and the mean of the neighbours, where no gate is wanted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..encoders.model_folder import Artifact, fusion_graph
from ..encoders.runtimes.graphs import Graphs
from ..learning.state import Calibration
from ..memory import Memory, Searches
from ..memory.lexical import QueryWords
from ..options import RefineOptions
from ..settings import Settings
from ..types import MODALITIES, Coverage, FuserName, Modality, Neighbours, Refinement, Role, Search, Vectors, other
from ..values import EXCLUSIONS_AT_ONCE

_ROWS = 128  # queries per search and fusion call, at most: others pass a large request after each
_NUMBERS = 2**26  # in the (B, K, D) block of neighbour vectors of one such call: 256 MiB


class Learned(Protocol):
    """A memory with what it has learned about its pairs."""

    @property
    def searches(self) -> Searches:
        """What a refinement searches: the store, or a wrapper of it."""
        ...

    @property
    def calibration(self) -> Calibration | None:
        """What it has learned; None while nothing was added, or where it is not calibrated."""
        ...

    @property
    def store(self) -> Memory:
        """The pairs.

        Raises:
            MemoryStoreError: they cannot be reached yet.
        """
        ...


@dataclass(frozen=True)
class Refining:
    """One refinement: what is refined, how, and through which memory.

    Attributes:
        memory: the pairs.
        queries: (B, D) unit-norm, checked.
        modality, role: of the queries.
        how: all options, checked; each has a value but ``coverage`` and ``where``.
        hidden: B collections of ids that must not be found; None without any.
        texts: of the B queries, to find captions by their words, too; None: by the vectors alone.
        pause: called between blocks; what it raises ends the refinement.
    """

    memory: Learned
    queries: Vectors
    modality: Modality
    role: Role
    how: RefineOptions
    hidden: Sequence[Collection[str]] | None
    texts: Sequence[str | None] | None = None
    pause: Callable[[], object] = int

    def blocks(self) -> Iterator[slice]:
        """Rows per search, so that the vectors and excluded ids of a call stay bounded."""
        k, (rows, dimension) = self.how["k"] or 1, self.queries.shape
        longest = max(map(len, self.hidden), default=0) if self.hidden else 0
        size = max(1, min(_ROWS, _NUMBERS // (k * dimension), EXCLUSIONS_AT_ONCE // max(longest, 1)))
        for start in range(0, max(rows, 1), size):
            if start:
                self.pause()
            yield slice(start, min(start + size, rows))

    def search(self, rows: slice, *, own: bool = False) -> Search:
        """The search for a block: within the queries' modality, for the other one's vectors (paper, section 3.2)."""
        explain = self.how["explain"]
        hidden = self.hidden[rows] if self.hidden else None
        where = self.how.get("where")
        return Search(
            self.queries[rows],
            self.modality,
            other(self.modality),
            self.how["k"] or 1,
            hidden,
            where,
            payloads=explain,
            ids=explain,
            checked=hidden is None and where is None,
            words=self._words(rows),
            own=own,
        )

    def _words(self, rows: slice) -> list[QueryWords | None] | None:
        """The words of a block's queries; none of one of whose answers somebody said that they are wrong."""
        if self.texts is None or self.modality != "text":
            return None
        state, texts = self.memory.calibration, self.texts[rows]
        told = None if state is None or state.feedback is None else state.feedback.refused("text", self.queries[rows])
        said = [None if text is None else QueryWords.of(text) for text in texts]
        if told is not None:
            said = [None if no else one for one, no in zip(said, told.tolist(), strict=True)]
        return said

    def explained(
        self,
        refined: Refinement,
        found: Neighbours,
        reliability: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float32],
    ) -> Refinement:
        """A refined block with what was found and used, reliability and weights (B, K), where that is asked for."""
        if not self.how["explain"]:
            return refined
        return replace(refined, neighbours=found, reliability=reliability, weights=weights)


class Fuser(Protocol):
    """Something that refines."""

    @property
    def name(self) -> str:
        """Kind of the fusion: reco, paper or mean."""
        ...

    def refine(self, asked: Refining) -> Refinement:
        """Refine (B, D); a row that finds nothing stays bit for bit."""
        ...


class Fused(NamedTuple):
    """Refined vectors (B, D), unit-norm, and the share of each neighbour in them (B, K)."""

    vectors: Vectors
    weights: npt.NDArray[np.float32]


class StayPlain:
    """Leaves vectors that are compared with their own modality where they are."""

    name = "plain"

    def refine(self, asked: Refining) -> Refinement:
        """Return (B, D) as they are, with the reason."""
        plain = stays_plain(asked, "of these, only queries move, by the fuser reco with its gate")
        coverage = Coverage(len(asked.queries), 0, plain=plain)
        return Refinement(asked.queries.copy(), asked.queries, coverage=coverage)


def stays_plain(asked: Refining, why: str) -> str:
    """Say why vectors stay plain that are compared with their own modality, or with both."""
    target = asked.how["target"]
    among, what = "images and texts" if target == "both" else f"{target}s", asked.modality
    kind = "queries" if asked.role == "query" else "candidates"
    return f"{what} {kind} that are compared with {among} stay plain: {why}"


class NeighbourFuser(ABC):
    """A fuser that needs nothing but the neighbours of each query."""

    name: str
    timed: Callable[[], AbstractContextManager[object]] = nullcontext
    """Around each call of :meth:`fuse`."""

    @abstractmethod
    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Refine (B, D) by (B, K, D) with trust (B, K), 0 where padded; a row without any stays bit for bit."""

    def refine(self, asked: Refining) -> Refinement:
        """Refine (B, D), block by block."""
        parts = []
        for rows in asked.blocks():
            plain, found = asked.queries[rows], asked.memory.searches.search(asked.search(rows))
            queries = plain if found.asked is None else found.asked
            here, trust = np.asarray(found.found.any(axis=1)), found.found.astype(np.float32)
            vectors, weights = queries.copy(), np.zeros_like(trust)
            if here.any():
                with self.timed():
                    vectors, weights = self.fuse(asked.modality, queries, found, trust)
            coverage = Coverage(len(queries), int(here.sum()))
            refined = Refinement(vectors, plain, coverage=coverage, retrieved=here, words=found.words or None)
            refined = replace(refined, word_ids=found.word_ids or None)
            parts.append(asked.explained(refined, found, trust, weights))
            del found  # up to 256 MiB, before the next search
        return Refinement.join(parts)


class NeighbourMean(NeighbourFuser):
    """The mean of the neighbours, of length 1, added to the query: the closed form without gate and calibration."""

    name = "mean"

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Add the mean of (B, K, D) to (B, D)."""
        total = trust.sum(axis=1, keepdims=True)
        found_or_one: npt.NDArray[np.float32] = np.maximum(total, 1.0)  # numpy's types lose it
        weights = trust / found_or_one
        mean = np.matmul(weights[:, None], neighbours.vectors)[:, 0]
        moved = vectors + mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        refined = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
        return Fused(np.where(total > 0, refined, vectors).astype(np.float32), weights / 2.0)


class GraphFuser(NeighbourFuser):
    """The paper's layer of a model folder; its graphs are loaded at first use."""

    name = "paper"

    def __init__(self, artifact: Artifact, settings: Settings) -> None:
        self._names = {side: fusion_graph(side) for side in MODALITIES}
        self._graphs = Graphs(artifact, settings)

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Run the modality's fusion graph on (B, D), (B, K, D) and (B, K)."""
        inputs = {
            "query": vectors,
            "neighbours": neighbours.vectors,
            "similarity": neighbours.similarity,
            "trust": trust,
        }
        outputs = self._graphs[self._names[modality]].run(inputs)
        return Fused(outputs["refined"].astype(np.float32), outputs["weights"].astype(np.float32))


def open_fusers(artifact: Artifact, settings: Settings) -> Mapping[FuserName, NeighbourFuser]:
    """The fusions of a model folder besides the closed form, which needs no graph in this process."""
    return {"paper": GraphFuser(artifact, settings)} if "paper" in artifact.manifest.fusers else {}
