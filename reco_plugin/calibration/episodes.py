"""Held-out pairs of the memory that ask, each twice: with the pairs of its caption visible, and hidden.

Everything that does not depend on the gate's parameters is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..machine.blas import Floats
from ..types import MODALITIES, Modality, Vectors, other
from .corpus import Corpus
from .gate import SHORTEST
from .nearest import NUMBERS, NearestRows, nearest_columns, nearest_rows
from .signals import mean_own, share, weigh

VIEW = (-0.5, 0.3)
"""A simulated other view of a pair is this share nearer to it than its nearest neighbour is; (0, .5) is in
docs/tried.md."""


@dataclass(frozen=True)
class FoundPairs:
    """What n questions found.

    Attributes:
        signals: (n, 8), see :data:`.gate.SIGNALS`.
        anything: (n,) whether there was any.
        direction: (n, D) of the evidence, whose scores deviate by one.
        answers: (n, D) what is right for each, less the mean.
        shown: rows that ask, and the candidates that they found, (F,) each; where texts ask, else none.
    """

    signals: Floats
    anything: npt.NDArray[np.bool_]
    direction: Vectors
    answers: Vectors
    shown: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]

    @property
    def own(self) -> Floats:
        """(n,) scores of the evidence for the own answer."""
        return np.asarray(np.einsum("nd,nd->n", self.direction, self.answers))


@dataclass(frozen=True)
class AskedTwice:
    """Pairs that ask by one modality, each twice.

    Attributes:
        modality: of the queries.
        visible, hidden: siblings visible, and hidden.
        query: (n, D) over the deviation of plain scores.
        held: (n, D) the candidates, less their mean.
        base: (n,) what a query's plain scores have in common.
        siblings: (n,) how many other pairs have the caption.
        same: (n, n) those that ask with the same caption.
        reliability: (n,) of the pairs that ask.
        spread: of similarity.
        sharpness: logarithm of how sharply neighbours were weighed.
    """

    modality: Modality
    visible: FoundPairs
    hidden: FoundPairs
    query: Vectors
    held: Vectors
    base: Floats
    siblings: npt.NDArray[np.intp]
    same: npt.NDArray[np.bool_]
    reliability: Floats
    spread: float
    sharpness: float

    def __len__(self) -> int:
        return len(self.siblings)

    @property
    def both(self) -> tuple[FoundPairs, FoundPairs]:
        """Siblings visible, and hidden."""
        return self.visible, self.hidden

    def out(self, found: FoundPairs) -> npt.NDArray[np.bool_]:
        """Candidates (n, n) that are no rivals: of the same caption; for texts, also the images that were found."""
        out = self.same.copy()
        out[found.shown] = True
        return out

    def episode(self, found: FoundPairs) -> Episode:
        """Scores of all for all."""
        plain = np.asarray(self.query @ self.held.T, np.float32)
        evidence = np.asarray(found.direction @ found.answers.T, np.float32)
        return Episode(found.signals, evidence, plain, self.base[:, None], self.out(found))


@dataclass(frozen=True)
class Episode:
    """n questions and their answers, among n candidates.

    Attributes:
        signals: (n, 8) of what each found, see :data:`.gate.SIGNALS`.
        evidence: (n, n) scores of that for the candidates, in their standard deviations.
        plain: (n, n) plain scores of the question for the candidates, less their mean.
        base: (n, 1) that mean.
        out: (n, n) candidates that are as right as the own one, or were found.
    """

    signals: Floats
    evidence: Floats
    plain: Floats
    base: Floats
    out: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Looked:
    """What pairs that ask find among all, by either modality: it does not depend on how they ask.

    Attributes:
        rows: (n,) of the pairs that ask.
        k: K.
        siblings: (n,) how many other pairs have the caption.
        same: (n, n) those that ask with the same caption.
        nearest: (n,) similarity to the nearest other, by each modality.
        visible: (n, K) by each modality.
        hidden: (n, K) without siblings.
        reliable: (n, K) by each modality: of what is found, visible and hidden, without the pair that asks.
    """

    rows: npt.NDArray[np.intp]
    k: int
    siblings: npt.NDArray[np.intp]
    same: npt.NDArray[np.bool_]
    nearest: Mapping[Modality, Floats]
    visible: Mapping[Modality, NearestRows]
    hidden: Mapping[Modality, NearestRows]
    reliable: Mapping[Modality, tuple[Floats, Floats]]

    def first(self, count: int) -> Looked:
        """What the first pairs find."""
        return Looked(
            self.rows[:count],
            self.k,
            self.siblings[:count],
            self.same[:count, :count],
            {m: one[:count] for m, one in self.nearest.items()},
            {m: (rows[:count], at[:count]) for m, (rows, at) in self.visible.items()},
            {m: (rows[:count], at[:count]) for m, (rows, at) in self.hidden.items()},
            {m: (seen[:count], unseen[:count]) for m, (seen, unseen) in self.reliable.items()},
        )


def look(corpus: Corpus, rows: npt.NDArray[np.intp], k: int) -> Looked:
    """Compare the pairs ``rows`` (n,) of a corpus with all, once by each modality."""
    siblings, same = np.empty(len(rows), np.intp), np.empty((len(rows), len(rows)), np.bool_)
    blocks = _blocks(corpus, rows)

    def compare(block: slice) -> dict[Modality, tuple[NearestRows, NearestRows]]:
        """What some of them find, visible and hidden."""
        some, found = rows[block], dict[Modality, tuple[NearestRows, NearestRows]]()
        own = np.arange(len(some)), some
        near: npt.NDArray[np.intp] | None = None  # places in a flat matrix: most pairs have few siblings
        for m in ("text", "image"):  # captions first: they say who is a sibling
            similarity = corpus.side(m)[some] @ corpus.side(m).T  # (m, N)
            if near is None:
                alike = similarity > corpus.same_caption
                alike[own] = True
                siblings[block], same[block] = np.count_nonzero(alike, axis=1) - 1, alike[:, rows]
                near = np.flatnonzero(alike)
                del alike
            similarity[own] = -2.0
            visible = nearest_columns(similarity, k)
            similarity.reshape(-1)[near] = -2.0
            found[m] = visible, nearest_columns(similarity, k)
        return found

    parts = list(map(compare, blocks))
    np.fill_diagonal(same, val=False)
    visible, hidden = ({m: _join([part[m][number] for part in parts]) for m in MODALITIES} for number in (0, 1))
    nearest = {m: visible[m][1][:, 0] for m in MODALITIES}
    reliable = {m: _reliability_of(corpus, rows, visible[m][0], hidden[m][0]) for m in MODALITIES}
    return Looked(rows, k, siblings, same | same.T, nearest, visible, hidden, reliable)


def _reliability_of(
    corpus: Corpus, rows: npt.NDArray[np.intp], seen: npt.NDArray[np.intp], hidden: npt.NDArray[np.intp]
) -> tuple[Floats, Floats]:
    """Reliability (n, K) of what is found, visible and hidden, where it differs: it takes longest of all."""
    unseen = corpus.reliability_without(rows, hidden)
    return _renewed(corpus, rows, seen, hidden, unseen), unseen


def _renewed(
    corpus: Corpus,
    rows: npt.NDArray[np.intp],
    found: npt.NDArray[np.intp],
    before: npt.NDArray[np.intp],
    known: Floats,
) -> Floats:
    """Reliability (n, K) of what is found, where that of others is known."""
    reliable, other = known.copy(), (found != before).any(axis=1)
    reliable[other] = corpus.reliability_without(rows[other], found[other])
    return reliable


def asked_by(corpus: Corpus, modality: Modality, looked: Looked, views: np.random.Generator | None = None) -> Asking:
    """Ask with pairs of a corpus.

    Args:
        corpus: the memory's pairs, measured.
        modality: of the queries.
        looked: what the pairs that ask find.
        views: simulates another view of each pair without siblings, which asks for that pair; None: none does.
    """
    value, rows = other(modality), looked.rows
    visible, answers, reliable = looked.visible[modality], corpus.side(value)[rows], looked.reliable[modality][0]
    if views is not None and (alone := looked.siblings == 0).any():
        seen, answered = (
            other_view(corpus.side(m)[rows], looked.nearest[m], corpus.side(m), views) for m in (modality, value)
        )
        answers = np.where(alone[:, None], answered, answers)
        again = nearest_rows(seen, corpus.side(modality), looked.k)
        before, visible = (
            visible,
            (
                np.where(alone[:, None], again[0], visible[0]),
                np.where(alone[:, None], again[1], visible[1]),
            ),
        )
        reliable = _renewed(corpus, rows, visible[0], before[0], reliable)
    return Asking(corpus, modality, looked, visible, reliable, answers)


def _blocks(corpus: Corpus, rows: npt.NDArray[np.intp]) -> list[slice]:
    """Of the rows, so that products with all pairs stay bounded."""
    size = max(1, NUMBERS // len(corpus))
    return [slice(start, start + size) for start in range(0, len(rows), size)]


def _join(parts: Sequence[NearestRows]) -> NearestRows:
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([found for _, found in parts])


def other_view(x: Vectors, nearest: Floats, all_: Vectors, rng: np.random.Generator) -> Vectors:
    """Simulate another view of vectors (n, D), about as near as the nearest of ``all_``, at similarity (n,)."""
    n = len(x)
    cosine = np.clip(nearest + (1.0 - nearest) * rng.uniform(*VIEW, n), -1.0, 1.0)[:, None]
    first, second = rng.integers(0, len(all_), (2, n))
    direction = all_[first] - all_[second]
    direction = direction - (direction * x).sum(axis=1, keepdims=True) * x
    direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-9
    return np.asarray(cosine * x + np.sqrt(np.maximum(1.0 - cosine**2, 0.0)) * direction, np.float32)


@dataclass(frozen=True)
class Asking:
    """Pairs that ask by one modality, for any sharpness.

    Attributes:
        corpus: the memory's pairs.
        modality: of the queries.
        looked: what they find.
        visible: (n, K) what they find with siblings visible, as they ask.
        reliable: (n, K) reliability of that.
        answers: (n, D) what is right for them then.
    """

    corpus: Corpus
    modality: Modality
    looked: Looked
    visible: NearestRows
    reliable: Floats
    answers: Vectors

    def questions(self, sharpness: float) -> AskedTwice:
        """Both episodes, with the logarithm of how sharply neighbours are weighed."""
        corpus, modality, looked = self.corpus, self.modality, self.looked
        mean, query = corpus.values[other(modality)].mean, corpus.side(modality)[looked.rows]
        query = query / np.float32(corpus.units[modality])
        held = corpus.side(other(modality))[looked.rows]
        return AskedTwice(
            modality,
            self._find(self.visible, self.reliable, self.answers, sharpness),
            self._find(looked.hidden[modality], looked.reliable[modality][1], held, sharpness),
            query,
            held - mean,
            np.asarray(query @ mean, np.float32),
            looked.siblings,
            looked.same,
            corpus.reliability_of(looked.rows),
            corpus.spreads[modality],
            sharpness,
        )

    def _find(self, nearest: NearestRows, reliable: Floats, answers: Vectors, sharpness: float) -> FoundPairs:
        """Weigh what was found (n, K), below -1 where hidden; the answers are (n, D)."""
        corpus, rows, modality = self.corpus, self.looked.rows, self.modality
        value = other(modality)
        moments, held, unit = corpus.values[value], corpus.side(value), corpus.units[modality]
        found_rows, found_at = nearest
        found = found_at > -1.5
        found_at = np.where(found, found_at, found_at[:, :1]).astype(np.float32)
        reliability = np.where(found, reliable, 0.0).astype(np.float32)
        shares = share(found_at, reliability, found, sharpness, corpus.spreads[modality])
        own = mean_own(corpus.witnesses[found_rows, 2], reliability, corpus.own)
        said = weigh(corpus.side(modality)[rows], held[found_rows], found_at, shares, found, own, moments, unit)
        length: Floats = np.maximum(said.length, np.float32(SHORTEST))  # numpy's types lose it
        direction = said.direction / length[:, None]
        return FoundPairs(said.signals, found[:, 0], direction, answers - moments.mean, self._shown(found_rows, found))

    def _shown(
        self, found_rows: npt.NDArray[np.intp], found: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Which texts found which of the other images that ask, (F,) each; none where images ask."""
        place = np.full(len(self.corpus), -1)
        if self.modality == "text":
            place[self.looked.rows] = np.arange(len(self.looked.rows))
        asks, column = np.nonzero((place[found_rows] >= 0) & found)
        candidate = place[found_rows[asks, column]]
        others = candidate != asks
        return asks[others], candidate[others]
