"""The closed form: what was found, by its reliability, moves a vector as far as the memory's own pairs justify."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..fuse import Refining, stays_plain
from ..types import Coverage, Mass, Moves, Neighbours, Refinement, Search, Vectors, other
from .coverage import MAJORITY, RIVALS, find_covered, nearest_rival
from .formula import spread_of
from .gate import Applied, features, step
from .moments import scale_of
from .reasons import reasons
from .scores import to_vectors
from .signals import Evidence
from .state import FEWEST, Calibration
from .why import Why

SHARPEST = 8.0
"""Sharpness of scores, in standard deviations, at most; and that of plain scores where mass is compared."""
NOT_CALIBRATED = f"the memory is not calibrated: it needs {FEWEST} pairs, then reco memory build --relearn"


class ClosedForm:
    """The default fuser, see :class:`reco_plugin.fuse.Fuser`; it has no weights, and is learned with the memory."""

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
            found = asked.memory.searches.search(asked.search(rows, witnesses=True))
            if not (parts or sets):  # after the first search, which may reach the memory; once, so all blocks are alike
                state = asked.memory.calibration
            with self._timed():
                known = None if covered is None else covered[rows]
                answered = asked.how.get("answered") if covered is None else float(covered.mean())
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
    """Refines queries that are compared with vectors of their own modality, or of both, see :mod:`.sharpen`.

    Nothing is searched for them. They stay plain where the memory has learned that nothing is gained.
    """

    name = "reco"

    def __init__(self, timed: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self._timed = timed

    def refine(self, asked: Refining) -> Refinement:
        """Refine (B, D)."""
        state, queries = asked.memory.calibration, asked.queries
        if state is None:  # perhaps not reached yet, which a search does
            found = asked.memory.searches.search(asked.search(slice(0, 1))).found.any()
            state = asked.memory.calibration
            if state is None:
                plain = stays_plain(asked, NOT_CALIBRATED) if found else ""
                coverage = Coverage(len(queries), 0, plain=plain)
                return Refinement(queries.copy(), queries, coverage=coverage)
        target = asked.how["target"]
        with self._timed():
            added = state.sharpen(asked.modality, queries, "both" if target == "both" else "own")
            far = np.linalg.norm(added, axis=1)  # (B,)
            moved = queries + added
            moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        coverage = Coverage(len(queries), len(queries), strength=float(far.mean()))
        scale = None if target == "both" else scale_of(queries, moved, state.values[asked.modality])
        if not far.any():
            plain = stays_plain(asked, "the memory's own pairs show no gain")
            coverage, moved = replace(coverage, plain=plain), queries.copy()
        return Refinement(moved, queries, coverage=coverage, scale=scale)


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
    applied = _gate(asked, state, answered)
    known = None if state is None or asked.role == "candidate" else state.presence_of(asked.modality, queries, found)
    if state is not None and applied is not None:
        moved = _move(asked, state, applied, queries, found, covered, answered, known)
        return _with_presence(asked, state, _by_words(asked, moved, plain, found, known), known)
    why = NOT_CALIBRATED if state is None else state.why_plain(asked.modality, asked.role == "candidate")
    said = () if covered is None else tuple(covered.tolist())
    some = int(here.sum())  # without pairs there is nothing to calibrate
    coverage = Coverage(len(plain), some, answered=answered, covered=said, plain=why if some else "")
    nothing = np.zeros_like(found.similarity)
    refined = _with_presence(asked, state, Refinement(plain.copy(), plain, coverage=coverage, retrieved=here), known)
    return asked.explained(refined, found, nothing, nothing)


def _by_words(
    asked: Refining, moved: Refinement, plain: Vectors, found: Neighbours, presence: npt.NDArray[np.float32] | None
) -> Refinement:
    """The refinement of queries (B, D), of which captions with their words stood in for some."""
    if found.asked is None:
        return moved
    why = moved.why and [one and replace(one, words=words) for one, words in zip(moved.why, found.words, strict=True)]
    vectors = moved.vectors
    if presence is not None and (needed := asked.how.get("presence")):
        vectors = np.where((presence >= needed)[:, None], vectors, plain)
    return replace(moved, vectors=vectors, frozen=plain, why=why, words=found.words)


def _with_presence(
    asked: Refining, state: Calibration | None, refined: Refinement, presence: npt.NDArray[np.float32] | None
) -> Refinement:
    """The refinement with the presence (B,) of its queries, or with why there is none."""
    if presence is not None:
        return replace(refined, presence=presence, presence_needed=asked.how.get("presence") or 0.0)
    if asked.role == "candidate":
        return replace(refined, no_presence="presence is of queries, and these are candidates")
    return replace(refined, no_presence=NOT_CALIBRATED if state is None else state.why_no_presence(asked.modality))


def _gate(asked: Refining, state: Calibration | None, answered: float | None) -> Applied | None:
    """The gate for the caution; where the candidates are known, the share that the memory does not know counts."""
    if state is None:
        return None
    caution, among = asked.how["caution"], answered is not None
    if caution is None:  # 0.0 is a share
        caution = "balanced"
    if answered is not None:
        caution = state.assume(answered, caution)
    return state.gate(asked.modality, caution, candidate=asked.role == "candidate", among=among)


def _move(
    asked: Refining,
    state: Calibration,
    applied: Applied,
    queries: Vectors,
    found: Neighbours,
    covered: npt.NDArray[np.bool_] | None,
    answered: float | None,
    presence: npt.NDArray[np.float32] | None,
) -> Refinement:
    side, here = state.sides[asked.modality], np.asarray(found.found.any(axis=1))
    evidence = state.weigh(asked.modality, queries, found, applied)
    if presence is not None and (needed := asked.how.get("presence")):
        evidence.signals[:, 7] *= presence >= needed
    constants = np.tile(applied.gate.constants(side.spread, side.unit), (len(queries), 1))
    refined, factor = step(queries, evidence.direction, evidence.signals, constants)
    added = factor * evidence.direction
    strength = factor[:, 0] * evidence.length / np.float32(side.unit)  # in standard deviations of a plain score
    far = np.linalg.norm(added, axis=1)  # (B,)
    coverage = Coverage(
        len(queries),
        int(here.sum()),
        answered=answered,
        needed=MAJORITY if covered is not None else 0.0,
        strength=float(far.mean()) if len(far) else 0.0,
        covered=() if covered is None else tuple(covered.tolist()),
    )
    moves = Moves(
        queries,
        added,
        spread_of(strength, evidence.correlation),
        state.values[other(asked.modality)].mean,
        here if covered is None else np.asarray(covered & here),
        Mass(
            float(min(np.exp(applied.gate.temperature), SHARPEST) / side.unit),
            SHARPEST / side.unit,
            state.known(asked.modality),
        ),
    )
    vectors = np.where(here[:, None], refined, queries).astype(np.float32)
    scale = scale_of(queries, vectors, state.values[other(asked.modality)]) if asked.role == "query" else None
    moved = Refinement(vectors, queries, coverage=coverage, retrieved=here, moves=moves, scale=scale)
    if not asked.how["explain"]:
        return moved
    weights = (evidence.weights * (far / (1.0 + far))[:, None]).astype(np.float32)
    why = _why(applied, evidence, side.spread, far, here)
    return asked.explained(replace(moved, why=why), found, state.shown(found), weights)


def _why(
    applied: Applied,
    evidence: Evidence,
    spread: float,
    far: npt.NDArray[np.float32],
    here: npt.NDArray[np.bool_],
) -> list[Why | None]:
    said = reasons(applied, evidence.signals, features(evidence.signals, spread), far, evidence.weights)
    return [one if seen else None for one, seen in zip(said, here, strict=True)]
