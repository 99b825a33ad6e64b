"""The closed form: what was found, by its reliability, moves a vector as far as the memory's own pairs justify."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..defaults import COVERAGE
from ..learning.moments import Values, scale_of
from ..learning.state import FEWEST, NEEDED, Calibration
from ..types import Coverage, Moves, Neighbours, Refinement, Search, Vectors, other
from ..vectors import Floats
from .base import Refining, stays_plain
from .coverage import RIVALS, find_covered, nearest_rival
from .evidence import Evidence
from .explain import Why, reasons
from .scores import to_vectors

OWN_KIND = 0.2
"""Length of the move of a query that is compared with vectors of its own modality, in its standard deviations."""
NOT_CALIBRATED = f"the memory is not calibrated: it needs {FEWEST} pairs, then reco memory build --relearn"


class ClosedForm:
    """The default fuser (:class:`~reco_plugin.fusion.base.Fuser`). It has no weights: the memory learns it."""

    name = "reco"

    def __init__(self, timed: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        """Refine by one state of the memory as a whole; ``timed`` is around each move."""
        self._timed = timed

    def refine(self, asked: Refining) -> Refinement:
        """Refine (B, D), block by block; text candidates all move or none does, by the share that the memory knows."""
        among = asked.role == "candidate"
        sets = among and asked.modality == "text"
        state, covered = _cover(asked) if sets else (None, None)
        parts = list[Refinement]()
        for rows in asked.blocks():
            found = asked.memory.searches.search(asked.search(rows, own=True))
            if not (parts or sets):  # after the first search, which may reach the memory; once, so all blocks are alike
                state = asked.memory.calibration
            with self._timed():
                known = None if covered is None else covered[rows]
                answered = None if covered is None else float(covered.mean())
                parts.append(_refine_block(asked, state, found, rows, known, answered))
            del found  # up to 256 MiB, before the next search
        whole = Refinement.join(parts)
        if not among or whole.moves is None or whole.coverage is None or state is None:
            return whole
        if whole.coverage.held:  # the moves are for exact scores, where those that are covered move
            weights = None if whole.weights is None else np.zeros_like(whole.weights)
            still = replace(whole.coverage, strength=0.0)
            return replace(whole, vectors=whole.frozen.copy(), coverage=still, why=None, weights=weights)
        return replace(whole, vectors=to_vectors(whole.moves, state.values[other(asked.modality)]))


class OwnKind:
    """Refines queries that are compared with vectors of their own modality, or of both.

    What a memory finds for a text are images: they draw a text away from other texts. But its pairs also say what tells
    things apart within one modality. So a query is seen through the metric of its own modality; nothing is searched.
    """

    name = "reco"

    def __init__(self, timed: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self._timed = timed

    def refine(self, asked: Refining) -> Refinement:
        """Refine (B, D)."""
        queries = asked.queries
        state, there = asked.memory.calibration, True
        if state is None:  # perhaps not reached yet, which a search does
            there = bool(asked.memory.searches.search(asked.search(slice(0, 1))).found.any())
            state = asked.memory.calibration
        if state is None or not state.fitted:
            why = NOT_CALIBRATED if state is None else f"its {state.pairs:,} pairs are too few"
            coverage = Coverage(len(queries), 0, plain=stays_plain(asked, why) if there else "")
            return Refinement(queries.copy(), queries, coverage=coverage)
        with self._timed():
            values = state.values[asked.modality]
            moved, added = _sharpen(queries, values)
        coverage = Coverage(len(queries), 0, strength=float(added.mean()))
        scale = None if asked.how["target"] == "both" else scale_of(queries, moved, values)
        return Refinement(moved, queries, coverage=coverage, scale=scale)


def _sharpen(query: Vectors, values: Values) -> tuple[Vectors, Floats]:
    """Queries (B, D), moved along what they are in the metric of their own modality, and how much was added (B,)."""
    seen = values.precision.apply(query - values.mean)
    scale = np.float32(OWN_KIND) * values.covariance.length(query) / values.covariance.length(seen)
    added = scale[:, None] * seen
    moved = query + added
    lengths = np.linalg.norm(added, axis=1)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32), lengths


def _cover(asked: Refining) -> tuple[Calibration | None, npt.NDArray[np.bool_] | None]:
    """What the memory has learned, and which text candidates (C, D) of one set it knows; None where it has not."""
    vectors, state = asked.queries, None
    captions, similarity = np.zeros_like(vectors), np.full(len(vectors), -2.0, np.float32)
    rival = np.ones(len(vectors), np.float32)

    def search(queries: Vectors, k: int, rows: slice) -> Neighbours:
        kept = asked.hidden[rows] if asked.hidden else None
        near = Search(queries, "text", "text", k, exclude=kept, where=asked.how.get("where"), ids=False)
        return asked.memory.searches.search(near)

    for rows in asked.blocks():
        found = search(vectors[rows], 1, rows)  # before the state is read: it may be reached only now
        state = state or asked.memory.calibration  # the first one, for all blocks
        if state is None:
            return None, None
        here, captions[rows] = found.found[:, 0], found.vectors[:, 0]
        similarity[rows] = np.where(here, found.similarity[:, 0], np.float32(-2.0))
        around = search(np.where(here[:, None], captions[rows], vectors[rows]), RIVALS, rows)
        rival[rows] = nearest_rival(around.similarity, around.found, state.same_caption)
    return state, find_covered(vectors, captions, similarity, rival)


def _refine_block(
    asked: Refining,
    state: Calibration | None,
    found: Neighbours,
    rows: slice,
    covered: npt.NDArray[np.bool_] | None,
    answered: float | None,
) -> Refinement:
    """Refine one block (B, D) by what was found for it."""
    plain, here = asked.queries[rows], np.asarray(found.found.any(axis=1))
    queries = plain if found.asked is None else found.asked
    share, among = asked.how["coverage"] if answered is None else answered, asked.role == "candidate"
    known = None if state is None or among else state.presence_of(asked.modality, queries, found)
    held = COVERAGE if share is None else share
    evidence = None if state is None else state.weigh(asked.modality, queries, found, held, candidate=among)
    if state is not None and evidence is not None:
        if known is not None and (needed := asked.how.get("presence")):
            evidence = evidence.shortened("presence", np.asarray(known >= needed, np.float32))
        moved = _move(asked, state, evidence, queries, found, covered, answered)
        if found.asked is not None:
            moved = _by_words(moved, plain, evidence, state.values[other(asked.modality)])
        return _with_presence(asked, state, moved, known)
    why = NOT_CALIBRATED if state is None else state.reason
    told = () if covered is None else tuple(covered.tolist())
    some = int(here.sum())  # without pairs there is nothing to calibrate
    coverage = Coverage(len(plain), some, answered=answered, covered=told, plain=why if some else "")
    nothing = np.zeros_like(found.similarity)
    refined = _with_presence(asked, state, Refinement(plain.copy(), plain, coverage=coverage, retrieved=here), known)
    return asked.explained(refined, found, nothing, nothing)


def _by_words(moved: Refinement, plain: Vectors, evidence: Evidence, values: Values) -> Refinement:
    """The refinement of queries (B, D), of which captions with their words stood in for some."""
    vectors = moved.vectors
    if (present := evidence.factors.get("presence")) is not None:
        vectors = np.where(present[:, None] > 0.0, vectors, plain)
    return replace(moved, vectors=vectors, frozen=plain, scale=scale_of(plain, vectors, values))


def _with_presence(
    asked: Refining, state: Calibration | None, refined: Refinement, presence: Floats | None
) -> Refinement:
    """The refinement with the presence (B,) of its queries, or with why there is none."""
    if presence is not None:
        return replace(refined, presence=presence, presence_needed=asked.how.get("presence") or 0.0)
    if asked.role == "candidate":
        return replace(refined, no_presence="presence is of queries, and these are candidates")
    return replace(refined, no_presence=NOT_CALIBRATED if state is None else state.why_no_presence(asked.modality))


def _move(
    asked: Refining,
    state: Calibration,
    evidence: Evidence,
    queries: Vectors,
    found: Neighbours,
    covered: npt.NDArray[np.bool_] | None,
    answered: float | None,
) -> Refinement:
    here = np.asarray(found.found.any(axis=1))
    added = np.asarray(np.where(here[:, None], evidence.added, np.float32(0.0)), np.float32)
    moved_to = queries + added
    vectors = moved_to / np.maximum(np.linalg.norm(moved_to, axis=1, keepdims=True), np.float32(1e-12))
    vectors = np.where(here[:, None], vectors, queries).astype(np.float32)
    far, value = np.linalg.norm(added, axis=1), state.values[other(asked.modality)]  # (B,)
    coverage = Coverage(
        len(queries),
        int(here.sum()),
        answered=answered,
        needed=NEEDED if covered is not None else 0.0,
        strength=float(far.mean()) if len(far) else 0.0,
        covered=() if covered is None else tuple(covered.tolist()),
    )
    known = here if covered is None else np.asarray(covered & here)
    gate = state.text if asked.modality == "text" else state.image
    kappa = gate.kappa if gate is not None else 0.0
    constant, sharpest = evidence.constant * here, 0.0 if state.text is None else state.text.sharpest
    moves = Moves(asked.modality, queries, added, constant, value.mean, known, kappa, sharpest)
    scale = scale_of(queries, vectors, value) if asked.role == "query" else None
    moved = Refinement(vectors, queries, coverage=coverage, retrieved=here, moves=moves, scale=scale)
    if found.asked is not None:
        moved = replace(moved, words=found.words, word_ids=found.word_ids)
    if not asked.how["explain"]:
        return moved
    weights = (evidence.weights * (far / (1.0 + far))[:, None]).astype(np.float32)
    why: list[Why | None] = [
        replace(one, words=found.words[row] if found.words else "") if here[row] else None
        for row, one in enumerate(reasons(evidence, far))
    ]
    return asked.explained(replace(moved, why=why), found, evidence.trust, weights)
