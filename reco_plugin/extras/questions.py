"""Questions that a memory's pairs ask of an index of the same things, to learn how sure a first answer is.

A thing is all pairs of one caption, word by word: captions that are alike may name different things, which must count
as rivals. One pair of each thing stands in the index with its other side. That pair asks, and never finds itself in the
memory: plain, then refined with the other pairs of its thing visible (the memory knows it), and with all of them hidden
(it does not). A share of the things has no answer in the index.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..calibration.calibrate import Calibrated
from ..calibration.closed_form import ClosedForm
from ..calibration.evidence import IDENTICAL
from ..calibration.nearest import nearest_columns
from ..calibration.state import Calibration
from ..fuse import Refining
from ..memory import Memory, open_memory
from ..options import RefineOptions
from ..types import MODALITIES, Fingerprint, Modality, Records, Refinement, Vectors, other
from .confidence import ABSENT, FEWEST_THINGS, LOOKED, NAME, Confidence, QueryWay, Questions, signals_of

ASKED = 1_500
"""Things that ask at most."""
HIDDEN = 256
"""Pairs of a thing that asks, at most: each is hidden by its id."""
QuestionKind = Literal["plain", "known", "unknown"]
WAY_OF: Mapping[QuestionKind, QueryWay] = {"plain": "plain", "known": "refined", "unknown": "refined"}
RefineHidden = Callable[[Vectors, Modality, Sequence[Collection[str]]], Refinement]
"""Refines queries (B, D) of a modality, each with ids that it must not find."""
_FITTED = 0.3  # of the things; the others test
_BLOCK = 128
_Looked = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]  # signals (B, 4), and what is right (B,)
_TIE = np.float32(1e-6)  # of scores: products of the same vectors in two places may differ by rounding


class LearnsConfidence:
    """Asks with a memory's pairs, once they are learned from, see :class:`~reco_plugin.calibration.extra.Extra`."""

    name = NAME

    def learn(
        self, learned: Calibrated, pairs: Records, k: int, progress: Callable[[int], object]
    ) -> Mapping[str, Any] | None:
        """What the questions say, by modality and way; None where too few things could ask."""
        how = RefineOptions(k=k, gate=True, target=None, coverage=None, fuser="reco", explain=False)
        encoder, fuser = Fingerprint("pairs at hand", "0" * 64, pairs.image.shape[1]), ClosedForm()
        with closing(open_memory(":memory:", encoder)) as store:  # the memory's own store is not kept busy
            store.upsert(pairs)
            memory = _InRam(store, learned.state)

            def refine(queries: Vectors, modality: Modality, hidden: Sequence[Collection[str]]) -> Refinement:
                progress(0)
                return fuser.refine(Refining(memory, queries, modality, "query", how, hidden))

            asked = ask_own(pairs, refine)
        return {m: _fit(kinds) for m, kinds in asked.items()} or None


@dataclass(frozen=True)
class _InRam:
    """See :class:`~reco_plugin.fuse.Learned`."""

    store: Memory
    calibration: Calibration | None

    @property
    def searches(self) -> Memory:
        """The store."""
        return self.store


def _fit(kinds: Mapping[QuestionKind, Questions]) -> dict[str, Any]:
    """What questions of one modality say, by way."""
    enough = {kind: one for kind, one in kinds.items() if len(one.right) >= FEWEST_THINGS}
    ways = {way: [one for kind, one in enough.items() if WAY_OF[kind] == way] for way in WAY_OF.values()}
    return {way: Confidence.fit(some).to_json() for way, some in ways.items() if some}


def ask_own(pairs: Records, refine: RefineHidden, *, seed: int = 0) -> dict[Modality, dict[QuestionKind, Questions]]:
    """Ask with a memory's pairs, whose things are also the index; empty where they are too few.

    Args:
        pairs: N of the memory; payloads are not looked at.
        refine: as the memory refines queries to come.
        seed: of what is drawn.

    Returns:
        The questions; a kind that cannot be asked is missing.
    """
    rng = np.random.default_rng(seed)
    thing = np.unique((pairs.text * 64.0).round().astype(np.int8), axis=0, return_inverse=True)[1].ravel()
    order = rng.permutation(len(thing))
    index = order[np.unique(thing[order], return_index=True)[1]]  # (T,) a pair of each, drawn
    if len(index) < FEWEST_THINGS:
        return {}
    some = rng.permutation(index[np.bincount(thing)[thing[index]] <= HIDDEN])[:ASKED]
    some = some[~np.tril(pairs.text[some] @ pairs.text[some].T >= IDENTICAL, -1).any(axis=1)]  # each caption asks once
    gone, fits = rng.random(len(some)) < ABSENT, rng.random(len(some)) < _FITTED
    parts: dict[Modality, dict[QuestionKind, list[Questions]]] = {m: {} for m in MODALITIES}
    for start in range(0, len(some), _BLOCK):
        rows = slice(start, start + _BLOCK)
        same = (thing[some[rows]][:, None] == thing) | (pairs.text[some[rows]] @ pairs.text.T >= IDENTICAL)
        few = same.sum(axis=1) <= HIDDEN
        for m in MODALITIES:
            for kind, here, found in _ask(pairs, refine, m, index, some[rows][few], same[few], gone[rows][few]):
                parts[m].setdefault(kind, []).append(Questions(*found, fits[rows][few][here]))
    return {m: {kind: _join(found) for kind, found in kinds.items()} for m, kinds in parts.items()}


def _join(parts: Sequence[Questions]) -> Questions:
    return Questions(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("signals", "right", "fits")))


def _ask(
    pairs: Records,
    refine: RefineHidden,
    modality: Modality,
    index: npt.NDArray[np.intp],
    asks: npt.NDArray[np.intp],
    same: npt.NDArray[np.bool_],
    gone: npt.NDArray[np.bool_],
) -> Iterator[tuple[QuestionKind, npt.NDArray[np.intp], _Looked]]:
    """Questions of one modality by some pairs (B,) of the things (B, N), of which some have no answer (B,).

    Of each kind with the rows of those that ask.
    """
    query, answers = pairs.side(modality)[asks], pairs.side(other(modality))[index]
    rivals, own = np.where(same[:, index], np.float32(-2.0), np.float32(0.0)), asks[:, None] == index
    every, still = np.arange(len(asks)), np.zeros(len(asks), np.float32)
    yield "plain", every, _look(query @ answers.T, rivals, own, gone, still)
    for kind in ("known", "unknown"):
        here = np.flatnonzero(same.sum(axis=1) > 1) if kind == "known" else every
        if len(here):
            hidden = [[asks[row]] if kind == "known" else np.flatnonzero(same[row]).tolist() for row in here]
            found = refine(query[here], modality, [[pairs.ids[row] for row in one] for one in hidden])
            scores = found.plain_scores(found.vectors @ answers.T)
            yield kind, here, _look(scores, rivals[here], own[here], gone[here], found.moved)


def _look(
    scores: npt.NDArray[np.float32],
    rivals: npt.NDArray[np.float32],
    own: npt.NDArray[np.bool_],
    gone: npt.NDArray[np.bool_],
    moved: npt.NDArray[np.float32],
) -> _Looked:
    """Signals of rankings by scores (B, T), and whether the own answer comes first.

    A rival of the same score stands before it, as it may in an index: two products of one caption are not told apart.

    Args:
        scores: of each query with the index.
        rivals: (B, T) 0; very negative for what is no rival, the own answer included.
        own: (B, T) which is the own answer.
        gone: (B,) whether the index lacks it.
        moved: (B,) how far each query moved.
    """
    mine, against = scores[own], scores + rivals
    right = ~gone & (mine > against.max(axis=1) + _TIE)
    there = np.where(own & ~gone[:, None], scores, against)
    return signals_of(nearest_columns(there, LOOKED)[1], moved), np.asarray(right)
