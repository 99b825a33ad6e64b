"""Questions that a memory's pairs ask, one a thing, of an index: how sure are the answers of the queries to come?

A thing is all pairs of one caption, word by word: captions that are alike may name different things, so a promise must
count these as rivals. One pair of each thing stands in the index with its other side; that pair asks, and never finds
itself in the memory: plain, then refined with the other pairs of its thing visible (the memory knows it) and with all
of them hidden (it does not), each with its answer in the index and without.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..calibration.calibrate import Calibrated
from ..calibration.closed_form import ClosedForm
from ..calibration.nearest import nearest_columns
from ..calibration.state import Calibration
from ..fuse import Refining
from ..memory import Memory, open_memory
from ..options import RefineOptions
from ..types import MODALITIES, Fingerprint, Modality, Records, Refinement, Vectors, other
from .chances import FEWEST_THINGS, LOOKED, MatchState, QuestionKind, ThingQuestions, signals_of


class LearnsMatches:
    """Asks with a memory's pairs, once they are learned from, see :class:`~reco_plugin.calibration.extra.Extra`."""

    name = "match"

    def learn(
        self, learned: Calibrated, pairs: Records, k: int, progress: Callable[[int], object]
    ) -> Mapping[str, Any] | None:
        """What the questions say; None where too few things could ask."""
        matches = _ask_refined(pairs, learned.state, learned.caption_scores, k, progress)
        return None if matches is None else matches.to_json()


@dataclass(frozen=True)
class _InRam:
    """See :class:`~reco_plugin.fuse.Learned`."""

    store: Memory
    calibration: Calibration | None

    @property
    def searches(self) -> Memory:
        """The store."""
        return self.store


def _ask_refined(
    pairs: Records,
    state: Calibration,
    caption_scores: npt.NDArray[np.float32],
    k: int,
    progress: Callable[[int], object] = int,
) -> MatchState | None:
    """Ask, refined as a memory of these pairs alone would by default: a store is not kept busy."""
    how = RefineOptions(k=k, gate=True, target=None, caution="balanced", fuser="reco", explain=False)
    encoder, fuser = Fingerprint("pairs at hand", "0" * 64, pairs.image.shape[1]), ClosedForm()
    with closing(open_memory(":memory:", encoder)) as store:
        store.upsert(pairs)
        store.set_caption_scores(pairs.ids, caption_scores)
        learned = _InRam(store, state)

        def refine(queries: Vectors, modality: Modality, hidden: Sequence[Collection[str]]) -> Refinement:
            blocks = (slice(start, start + _BLOCK) for start in range(0, len(queries), _BLOCK))
            asked = (Refining(learned, queries[rows], modality, "query", how, hidden[rows]) for rows in blocks)
            return Refinement.join([fuser.refine(one) for one in asked])

        return ask_own(pairs, refine, progress=progress)


RefineHidden = Callable[[Vectors, Modality, Sequence[Collection[str]]], Refinement]
"""Refines queries (B, D) of a modality, each with ids that it must not find."""
ASKED = 1_500
"""Things that ask at most."""
HIDDEN = 256
"""Pairs of a thing that asks, at most: each is hidden by its id."""
_SAME = 0.9995  # cosine from which two texts are one caption, encoded in two batches
_BLOCK = 128
_TIE = np.float32(1e-6)  # of scores: products of the same vectors in two places may differ by rounding
PairRows = npt.NDArray[np.intp]
_Looked = tuple[npt.NDArray[np.float32], npt.NDArray[np.int16], npt.NDArray[np.float32]]


def ask_own(
    pairs: Records,
    refine: RefineHidden,
    *,
    seed: int = 0,
    progress: Callable[[int], object] = int,
) -> MatchState | None:
    """Ask with a memory's pairs, whose things are also the index; None where they are too few.

    Args:
        pairs: N of the memory; payloads are not looked at.
        refine: as the memory refines queries to come.
        seed: of what is drawn.
        progress: called with 0 now and then; what it raises ends this.
    """
    rng = np.random.default_rng(seed)
    thing = find_things(pairs.text)
    order = rng.permutation(len(thing))
    index = order[np.unique(thing[order], return_index=True)[1]]  # (T,) one pair of each, drawn
    if len(index) < FEWEST_THINGS:
        return None
    counts = np.bincount(thing)
    few = index[counts[thing[index]] <= HIDDEN]
    rows = np.sort(rng.permutation(few)[:ASKED])
    rows = rows[_asks_first(pairs.text[rows])]
    draw = rng.random(len(rows)).astype(np.float32)
    telling = _TellingRefine(refine, progress)
    asks = _Asking(pairs, telling, index, thing)
    same = [asks.same_things(rows[block]) for block in _blocks(rows)]
    questions = {m: dict(asks.side(m, rows, draw, same)) for m in MODALITIES}
    return MatchState(questions, len(index), len(counts), float((counts == 1).mean()))


def find_things(text: Vectors) -> PairRows:
    """The thing (N,) of each caption (N, D): those whose numbers round alike, in one of two ways, are one.

    Of captions that were encoded in two batches, a number may lie just beside the border of one rounding; beside
    that of the other, too, it does so rarely.
    """
    ways = [number_names(_rounded(text, shift)) for shift in (0.0, 0.5)]
    thing, before = ways[0], None
    while before is None or (thing != before).any():
        before = thing
        for way in ways:
            least = np.full(len(text), len(text), np.intp)
            np.minimum.at(least, way, thing)
            thing = least[way]
    return number_names(thing.tolist())


def _rounded(text: Vectors, shift: float) -> Iterator[bytes]:
    for start in range(0, len(text), _BLOCK):
        block = (text[start : start + _BLOCK] * 64.0 + shift).round().astype(np.int8)
        yield from (row.tobytes() for row in block)


def number_names(names: Iterable[Hashable]) -> PairRows:
    """A number (N,) for each name, by its first place."""
    seen: dict[Hashable, int] = {}
    return np.asarray([seen.setdefault(name, len(seen)) for name in names], np.intp)


def _asks_first(text: Vectors) -> npt.NDArray[np.bool_]:
    """Whether no earlier one of (n, D) is the same caption: a thing that asks twice is no further evidence."""
    return np.asarray(~np.tril(text @ text.T >= _SAME, -1).any(axis=1), np.bool_)


@dataclass(frozen=True)
class _TellingRefine:
    """RefineHidden, and tells of it."""

    refine: RefineHidden
    progress: Callable[[int], object]

    def __call__(self, queries: Vectors, modality: Modality, hidden: Sequence[Collection[str]]) -> Refinement:
        self.progress(0)
        return self.refine(queries, modality, hidden)


@dataclass(frozen=True)
class _Asking:
    """Who asks, and what.

    Attributes:
        pairs: N of the memory.
        refine: queries.
        index: (T,) pairs whose other side is the index.
        thing: (N,) of each pair.
    """

    pairs: Records
    refine: RefineHidden
    index: PairRows
    thing: PairRows

    def same_things(self, asked: PairRows) -> tuple[PairRows, PairRows]:
        """Which of the pairs (N,) are of the thing of some (B,): places in a matrix (B, N)."""
        same = (self.thing[asked][:, None] == self.thing) | (self.pairs.text[asked] @ self.pairs.text.T >= _SAME)
        rows, columns = np.nonzero(same)
        return rows, columns

    def side(
        self,
        modality: Modality,
        rows: PairRows,
        draw: npt.NDArray[np.float32],
        same: Sequence[tuple[PairRows, PairRows]],
    ) -> Iterator[tuple[QuestionKind, ThingQuestions]]:
        """Each kind of questions of one modality, by the pairs ``rows`` (n,); ``same`` of each block of them."""
        answers = self.pairs.side(other(modality))[self.index]
        parts: dict[QuestionKind, list[tuple[_Looked, PairRows]]] = {}
        for block, places in zip(_blocks(rows), same, strict=True):
            for kind, looked, here in self._block(modality, rows[block], places, answers):
                parts.setdefault(kind, []).append((looked, here + block.start))
        for kind, found in parts.items():
            present, place, absent = (np.concatenate(column) for column in zip(*(one for one, _ in found), strict=True))
            here = np.concatenate([here for _, here in found])
            yield kind, ThingQuestions(present, place, absent, draw[here])

    def _block(
        self, modality: Modality, asked: PairRows, places: tuple[PairRows, PairRows], answers: Vectors
    ) -> Iterator[tuple[QuestionKind, _Looked, PairRows]]:
        """Questions of some pairs (B,); ``places`` of those of their things, row by row, are few: no (B, N) is made."""
        pairs, (rows, columns) = self.pairs, places
        counts = np.bincount(rows, minlength=len(asked))
        kept = np.flatnonzero(counts <= HIDDEN).astype(np.intp)
        if not len(kept):
            return
        things, ends = np.split(columns, np.cumsum(counts)[:-1]), self.place[asked]
        query = pairs.side(modality)[asked]

        def look(scores: Vectors, some: PairRows, moved: npt.NDArray[np.float32]) -> _Looked:
            own = [self.place[things[row]] for row in some.tolist()]
            hidden = np.repeat(np.arange(len(some)), list(map(len, own))), np.concatenate(own)
            among = hidden[1] >= 0
            return _look(scores, (hidden[0][among], hidden[1][among]), ends[some], moved)

        yield "plain", look(query[kept] @ answers.T, kept, np.zeros(len(kept), np.float32)), kept
        for kind in ("known", "unknown"):
            here = kept[counts[kept] > 1] if kind == "known" else kept
            if len(here):
                hidden = [[asked[row]] if kind == "known" else things[row] for row in here.tolist()]
                found = self.refine(query[here], modality, [[pairs.ids[int(row)] for row in some] for some in hidden])
                yield kind, look(found.plain_scores(found.vectors @ answers.T), here, found.moved), here

    @cached_property
    def place(self) -> PairRows:
        """Where each pair (N,) is in the index; -1: it is not."""
        place = np.full(len(self.thing), -1, np.intp)
        place[self.index] = np.arange(len(self.index))
        return place


def _blocks(rows: PairRows) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, len(rows), _BLOCK)]


def _look(
    scores: npt.NDArray[np.float32], own: tuple[PairRows, PairRows], mine: PairRows, moved: npt.NDArray[np.float32]
) -> _Looked:
    """Signals with the own answer in the index, its place, and signals without it; of scores (B, T), which change.

    A rival of the same score stands before it, as it may in an index: two products of one caption are not told apart.

    Args:
        scores: of each query with the index.
        own: places in them of what is no rival.
        mine: (B,) columns of the own answers, which are among those.
        moved: (B,) how far each query moved.
    """
    rows = np.arange(len(mine))
    right = scores[rows, mine]
    scores[own] = -2.0
    _, gone = nearest_columns(scores, LOOKED)
    scores[rows, mine] = right
    _, best = nearest_columns(scores, LOOKED)
    place = (scores >= right[:, None] - _TIE).sum(axis=1)  # itself among them
    place[place > LOOKED] = 0
    return signals_of(best, moved), place.astype(np.int16), signals_of(gone, moved)
