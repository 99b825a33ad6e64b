"""The closed form: what was found, by its reliability, moves a vector as far as the memory's own pairs justify."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..memory import Searches
from ..request import Search
from ..retrieve import Retrieval
from ..types import Caution, Coverage, FuserName, Mass, Modality, Moves, Neighbours, Role, Vectors, other
from . import Calibration
from .calibrate import FEWEST
from .coverage import MAJORITY, RIVALS, find_covered, nearest_rival
from .gate import Applied, features, step
from .reasons import reasons
from .scores import to_vectors
from .signals import Evidence
from .why import Why

SHARPEST = 8.0
"""Sharpness of scores, in standard deviations, at most; and that of plain scores where mass is compared."""
NOT_CALIBRATED = f"the memory is not calibrated: it needs {FEWEST} pairs, then reco memory calibrate"


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


@dataclass(frozen=True)
class RefinedBlock:
    """One refined block.

    Attributes:
        vectors: (B, D) unit-norm.
        reliability, weights: (B, K) how well each neighbour's caption fits, and its share.
        coverage: of the block.
        moves: how each vector moves; None without a gate.
        why: how far each moves and why, on request; None where it found nothing.
    """

    vectors: Vectors
    reliability: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    coverage: Coverage
    moves: Moves | None
    why: Sequence[Why | None] | None = None


@dataclass(frozen=True)
class Request:
    """One refinement: what is refined, and how."""

    modality: Modality
    role: Role
    how: Retrieval
    fuser: FuserName
    caution: Caution | float
    answered: float | None  # share of the candidates that the memory knows, where queries are compared with a known set
    gated: bool
    explain: bool


class Closed:
    """The closed form for one request."""

    def __init__(self, memory: Learned, request: Request) -> None:
        """Refine by one state of the memory as a whole: the one after the first search.

        Without a gate, and for a search or fusion other than the paper's, the neighbours' mean is added as it is.
        """
        self._memory, self._modality, self._how, self._caution = memory, request.modality, request.how, request.caution
        self._explain, self._candidate = request.explain, request.role == "candidate"
        self._gated = request.gated and request.how.is_paper
        self._answered = request.answered

    def cover(
        self, vectors: Vectors, hidden: Sequence[Collection[str]] | None, size: int
    ) -> npt.NDArray[np.bool_] | None:
        """Say which text candidates (C, D) of one set the memory knows, ``size`` per search; None for all else."""
        if not self._gated or not self._candidate or self._modality != "text":
            return None
        captions, similarity = np.zeros_like(vectors), np.full(len(vectors), -2.0, np.float32)
        rival = np.ones(len(vectors), np.float32)
        for start in range(0, len(vectors), size):
            rows = slice(start, start + size)
            kept = hidden[rows] if hidden else None
            found = self._search(vectors[rows], 1, kept)  # before the state is read: it may be reached only now
            if (state := self._state) is None:
                return None
            here, captions[rows] = found.found[:, 0], found.vectors[:, 0]
            similarity[rows] = np.where(here, found.similarity[:, 0], np.float32(-2.0))
            around = self._search(np.where(here[:, None], captions[rows], vectors[rows]), RIVALS, kept)
            rival[rows] = nearest_rival(around.similarity, around.found, state.same_caption)
        covered = find_covered(vectors, captions, similarity, rival)
        self._answered = float(covered.mean())
        return covered

    def refine(
        self, queries: Vectors, found: Neighbours, covered: npt.NDArray[np.bool_] | None, rows: slice
    ) -> RefinedBlock:
        """Refine one block of (B, D); ``covered`` is of all rows, the block's are ``rows``."""
        here = np.asarray(found.found.any(axis=1))
        asked = Coverage(len(queries), int(here.sum()))
        if not self._gated:
            return _add_mean(queries, found, asked)
        gate = self._gate()
        if self._state is None or gate is None:
            plain = NOT_CALIBRATED if self._state is None else self._state.why_plain(self._modality, self._candidate)
            plain = plain if asked.found else ""  # without pairs there is nothing to calibrate
            nothing = np.zeros_like(found.similarity)
            known = () if covered is None else tuple(covered[rows].tolist())
            coverage = Coverage(asked.asked, asked.found, answered=self._answered, covered=known, plain=plain)
            return RefinedBlock(queries.copy(), nothing, nothing, coverage, None)
        return self._move(self._state, gate, queries, found, asked, None if covered is None else covered[rows])

    def to_vectors(self, moves: Moves) -> Vectors:
        """Candidates (C, D) of one set as single vectors."""
        assert self._state is not None  # noqa: S101 - moves come from a state
        return to_vectors(moves, self._state.values[other(self._modality)])

    @cached_property
    def _state(self) -> Calibration | None:
        """Read once, after the first search, since only that may reach the memory: all blocks are refined alike."""
        return self._memory.calibration

    def _gate(self) -> Applied | None:
        """The gate for the caution; where the candidates are known, the share that the memory does not know counts."""
        if self._state is None:
            return None
        caution = self._caution if self._answered is None else self._state.assume(self._answered, self._caution)
        among = self._answered is not None
        return self._state.gate(self._modality, caution, candidate=self._candidate, among=among)

    def _move(
        self,
        state: Calibration,
        applied: Applied,
        queries: Vectors,
        found: Neighbours,
        asked: Coverage,
        covered: npt.NDArray[np.bool_] | None,
    ) -> RefinedBlock:
        side, here = state.sides[self._modality], np.asarray(found.found.any(axis=1))
        evidence = state.weigh(self._modality, queries, found, applied)
        constants = np.tile(applied.gate.constants(side.spread, side.unit), (len(queries), 1))
        refined, factor = step(queries, evidence.direction, evidence.signals, constants)
        added = factor * evidence.direction
        strength = factor[:, 0] * evidence.length / np.float32(side.unit)  # in standard deviations of a plain score
        far = np.linalg.norm(added, axis=1)  # (B,)
        coverage = Coverage(
            asked.asked,
            asked.found,
            answered=self._answered,
            needed=MAJORITY if covered is not None else 0.0,
            strength=float(far.mean()) if len(far) else 0.0,
            covered=() if covered is None else tuple(covered.tolist()),
        )
        moves = Moves(
            queries,
            added,
            np.sqrt(np.maximum(1.0 + strength**2 + 2.0 * strength * evidence.correlation, 1e-6)),
            state.values[other(self._modality)].mean,
            here if covered is None else np.asarray(covered & here),
            Mass(
                float(min(np.exp(applied.gate.temperature), SHARPEST) / side.unit),
                SHARPEST / side.unit,
                state.known(self._modality),
            ),
        )
        return RefinedBlock(
            np.where(here[:, None], refined, queries).astype(np.float32),
            state.shown(found),
            (evidence.weights * (far / (1.0 + far))[:, None]).astype(np.float32),
            coverage,
            moves,
            self._why(applied, evidence, side.spread, far, here) if self._explain else None,
        )

    @staticmethod
    def _why(
        applied: Applied,
        evidence: Evidence,
        spread: float,
        far: npt.NDArray[np.float32],
        here: npt.NDArray[np.bool_],
    ) -> list[Why | None]:
        said = reasons(applied, evidence.signals, features(evidence.signals, spread), far, evidence.weights)
        return [one if seen else None for one, seen in zip(said, here, strict=True)]

    def _search(self, vectors: Vectors, k: int, hidden: Sequence[Collection[str]] | None) -> Neighbours:
        """Captions near (C, D)."""
        return self._memory.searches.search(
            Search(vectors, "text", "text", k, exclude=hidden, where=self._how.where, ids=False)
        )


def _add_mean(queries: Vectors, found: Neighbours, asked: Coverage) -> RefinedBlock:
    """Add the mean of the neighbours, of length 1, to each query."""
    present = found.found.astype(np.float32)
    total = present.sum(axis=1, keepdims=True)
    found_or_one: npt.NDArray[np.float32] = np.maximum(total, 1.0)  # numpy's types lose it
    weights = present / found_or_one
    mean = np.matmul(weights[:, None], found.vectors)[:, 0]
    moved = queries + mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    refined = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
    return RefinedBlock(np.where(total > 0, refined, queries).astype(np.float32), present, weights / 2.0, asked, None)
