"""Questions that a memory's pairs ask of an index of the same things, to learn how sure a first answer is.

A thing is all pairs of one caption, word by word: captions that are alike may name different things, which must count
as rivals. One pair of each thing stands in the index with its other side. That pair asks, plain and refined, of half of
the things, which the index lacks. What the index lacks the memory lacks, too: all pairs of the thing are hidden. Of the
others the memory holds the share :data:`KNOWN`: other pairs of the thing, or, for a caption of one pair, that pair.

An index may be larger than the memory. Then the best scores of the things that it has beyond are drawn from the tail of
a query's own scores above its m-th best, which is taken for a generalized Pareto distribution with a shape that all
queries share: of r times as many things, the best is its quantile at G / (m r), where G is exponentially distributed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..fusion.base import Refining
from ..fusion.closed_form import ClosedForm
from ..fusion.evidence import IDENTICAL
from ..fusion.refiner import VectorMemory
from ..learning.calibrate import Calibrated, calibrate
from ..learning.nearest import nearest_columns
from ..memory import open_memory
from ..options import RefineOptions
from ..types import MODALITIES, Fingerprint, Modality, Records, Refinement, Vectors, other
from .confidence import ABSENT, FEWEST_THINGS, NAME, SIZES, WAYS, Confidence, QueryWay, Questions, signals_of
from .presence import PresenceState, learn_presence

ASKED = 1_500
"""Things that ask at most."""
HIDDEN = 256
"""Pairs of a thing that asks, at most: each is hidden by its id."""
MANY = 600
"""Things of a half from which the other half does not ask."""
KNOWN = 0.9
"""Share of the answers in the index that the memory holds: the default of the option ``coverage``."""
RefineHidden = Callable[[Vectors, Modality, Sequence[Collection[str]]], Refinement]
"""Refines queries (B, D) of a modality, each with ids that it must not find."""
_FITTED = 0.3  # of the things; the others test
_TAIL = 15  # scores that the tail of a query's is taken from, at most, and a fifth of all
_BLOCK = 128
_TIE = np.float32(1e-6)  # of scores: products of the same vectors in two places may differ by rounding


class LearnsConfidence:
    """Asks with a memory's pairs, once they are learned from, see :class:`~reco_plugin.learning.extra.Extra`."""

    name = NAME

    def learn(
        self, learned: Calibrated, pairs: Records, k: int, progress: Callable[[int], object]
    ) -> Mapping[str, Any] | None:
        """What the questions say, by modality and way; None where too few things could ask."""
        thing = things_of(pairs)
        half = np.random.default_rng(0).permutation(int(thing.max()) + 1)[thing] % 2 == 0
        sides = (half, ~half) if int(thing.max()) < 2 * MANY else (half,)
        asked = [_ask_half(pairs.take(~side), pairs.take(side), k, lambda: progress(0)) for side in sides]
        things = {"things": min(len(np.unique(thing[side])) for side in sides)}
        return {str(m): _fit(*(one[m] for one in asked)) | things for m in MODALITIES} if all(asked) else None


def _ask_half(
    others: Records, pairs: Records, k: int, progress: Callable[[], object]
) -> dict[Modality, dict[QueryWay, list[Questions]]]:
    """Ask with pairs by what was learned from others: pairs that take part in the fit are found too easily."""
    learned = calibrate(others.image, others.text, k=k, progress=lambda _: progress())
    if learned is None or learned.state.reason:
        return {}
    how = RefineOptions(k=k, gate=True, target=None, coverage=None, fuser="reco", explain=False)
    encoder, fuser = Fingerprint("pairs at hand", "0" * 64, pairs.image.shape[1]), ClosedForm()
    sides = {m: one for m in MODALITIES if (one := learn_presence(learned.corpus, m, k, seed=0)) is not None}
    with closing(open_memory(":memory:", encoder)) as store:  # the memory's own store is not kept busy
        store.upsert(pairs)
        memory = VectorMemory(store, replace(learned.state, presence=PresenceState(sides)))

        def refine(queries: Vectors, modality: Modality, hidden: Sequence[Collection[str]]) -> Refinement:
            progress()
            return fuser.refine(Refining(memory, queries, modality, "query", how, hidden))

        return ask_own(pairs, refine)


def _fit(*halves: Mapping[QueryWay, Sequence[Questions]]) -> dict[str, Any]:
    """What questions of a modality say, of each way one for each size."""
    ways = {way: [_join(some) for some in zip(*(one[way] for one in halves), strict=True)] for way in WAYS}
    return {
        way: [Confidence.fit(one).to_json() for one in some]
        for way, some in ways.items()
        if len(some[0].right) >= FEWEST_THINGS
    }


def things_of(pairs: Records) -> npt.NDArray[np.intp]:
    """The number (N,) of each pair's thing."""
    return np.unique((pairs.text * 64.0).round().astype(np.int8), axis=0, return_inverse=True)[1].ravel()


def ask_own(pairs: Records, refine: RefineHidden, *, seed: int = 0) -> dict[Modality, dict[QueryWay, list[Questions]]]:
    """Ask with a memory's pairs, whose things are also the index; empty where they are too few.

    Args:
        pairs: N of the memory; payloads are not looked at.
        refine: as the memory refines queries to come.
        seed: of what is drawn.

    Returns:
        The questions to an index of each of :data:`SIZES`.
    """
    rng = np.random.default_rng(seed)
    thing = things_of(pairs)
    order = rng.permutation(len(thing))
    index = order[np.unique(thing[order], return_index=True)[1]]  # (T,) a pair of each, drawn
    if len(index) < FEWEST_THINGS:
        return {}
    some = rng.permutation(index[np.bincount(thing)[thing[index]] <= HIDDEN])[:ASKED]
    some = some[~np.tril(pairs.text[some] @ pairs.text[some].T >= IDENTICAL, -1).any(axis=1)]  # each caption asks once
    fits = rng.random(len(some)) < _FITTED
    gone = rng.permutation(len(some)) < ABSENT * len(some)
    known = ~gone & (rng.random(len(some)) < KNOWN)
    parts: dict[Modality, dict[QueryWay, list[list[Questions]]]] = {m: {} for m in MODALITIES}
    for start in range(0, len(some), _BLOCK):
        rows = slice(start, start + _BLOCK)
        same = (thing[some[rows]][:, None] == thing) | (pairs.text[some[rows]] @ pairs.text.T >= IDENTICAL)
        few = same.sum(axis=1) <= HIDDEN
        asks, there = _Asking(some[rows][few], same[few], gone[rows][few], known[rows][few]), fits[rows][few]
        for m in MODALITIES:
            for way, found in _ask(pairs, refine, m, index, asks):
                by_size = [_look(found, times, there, rng) for times in SIZES]
                parts[m].setdefault(way, []).append(by_size)
    return {
        m: {way: list(map(_join, zip(*found, strict=True))) for way, found in ways.items()} for m, ways in parts.items()
    }


def _join(parts: Sequence[Questions]) -> Questions:
    return Questions(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("signals", "right", "fits")))


class _Asking(NamedTuple):
    """Pairs (B,) that ask, those of their things (B, N), whether the index lacks each, and the memory knows it (B,)."""

    rows: npt.NDArray[np.intp]
    same: npt.NDArray[np.bool_]
    gone: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]


def _ask(
    pairs: Records,
    refine: RefineHidden,
    modality: Modality,
    index: npt.NDArray[np.intp],
    asks: _Asking,
) -> Iterator[tuple[QueryWay, _Scored]]:
    """Questions of one modality, plain and refined."""
    query, answers = pairs.side(modality)[asks.rows], pairs.side(other(modality))[index]
    alone = (asks.same.sum(axis=1) == 1) & asks.known & (modality == "text")
    lists = asks.same[:, index], asks.rows[:, None] == index, asks.gone
    yield "plain", _Scored(query @ answers.T, *lists, Refinement(query, query))
    hides = np.where(asks.known[:, None], np.arange(len(pairs)) == asks.rows[:, None], asks.same) & ~alone[:, None]
    found = refine(query, modality, [[pairs.ids[row] for row in np.flatnonzero(one).tolist()] for one in hides])
    yield "refined", _Scored(found.plain_scores(found.vectors @ answers.T), *lists, found)


class _Scored(NamedTuple):
    """Scores of queries with the things of an index.

    Attributes:
        scores: (B, T).
        same: (B, T) which are no rivals.
        own: (B, T) which is the own answer.
        gone: (B,) whether the index lacks it.
        asked: the queries.
    """

    scores: npt.NDArray[np.float32]
    same: npt.NDArray[np.bool_]
    own: npt.NDArray[np.bool_]
    gone: npt.NDArray[np.bool_]
    asked: Refinement


def _look(found: _Scored, times: int, fits: npt.NDArray[np.bool_], rng: np.random.Generator) -> Questions:
    """The questions to an index that is so many times as large; right: the own answer comes first.

    A rival of the same score stands before it, as it may in an index: two products of one caption are not told apart.
    """
    mine = found.scores[found.own]
    tail = min(_TAIL, found.scores.shape[1] // 5)
    best = nearest_columns(np.where(found.same, np.float32(-2.0), found.scores), tail)[1]  # (B, m)
    against = best[:, 0]
    if times > 1:
        least, arrival = best[:, -1:], rng.exponential(size=len(best))
        above = best[:, :-1] - least
        mean = np.maximum(above.mean(axis=1, keepdims=True), _TIE)
        variance = (above / mean).var() * tail / max(tail - 2, 1)  # unbiased where the shape is 0
        shape = float(np.clip((1.0 - 1.0 / variance) / 2.0, -0.5, -1e-3))  # by its moments
        far = np.minimum(arrival / (tail * (times - 1)), 1.0) ** -shape - 1.0
        against = np.maximum(against, (least + mean * (1.0 - shape) / shape * far[:, None])[:, 0].astype(np.float32))
    there = np.where(found.gone, np.float32(-2.0), mine)
    return Questions(signals_of(np.maximum(against, there), found.asked), np.asarray(there > against + _TIE), fits)
