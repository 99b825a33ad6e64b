"""Held-out pairs of the memory that ask, each twice: with the pairs of its caption visible, and hidden.

Everything that does not depend on the gate's parameters is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ..machine.blas import Floats
from ..types import MODALITIES, Modality, Vectors, other
from .corpus import Corpus
from .evidence import Doubles, Evidence, mean_own, share, weigh
from .nearest import NUMBERS, NearestRows, RowNumbers, nearest_columns, nearest_rows
from .reliability import agreement

_BLOCK = 512  # pairs whose neighbours' vectors are at hand at a time
_VIEW = (-0.5, 0.3)  # a simulated other view of a pair is this share nearer to it than its nearest neighbour is


@dataclass(frozen=True)
class FoundPairs:
    """What n questions found.

    Attributes:
        evidence: of it.
        features: (n, 4) of the evidence.
        anything: (n,) whether there was any.
        direction: (n, D) of the evidence, whose scores deviate by one.
        answers: (n, D) what is right for each, less the mean.
        shown: (n, K) place among those that ask of each image that a text found, else -1; (n, 0) where images ask.
    """

    evidence: Evidence
    features: Doubles
    anything: npt.NDArray[np.bool_]
    direction: Vectors
    answers: Vectors
    shown: RowNumbers

    @property
    def correlation(self) -> Doubles:
        """(n,) of the evidence's scores with the plain ones."""
        return self.evidence.correlation.astype(np.float64)

    def scores(self, rows: RowNumbers) -> Floats:
        """Scores (m, m) of the evidence of some for the answers of them."""
        return np.asarray(self.direction[rows] @ self.answers[rows].T, np.float32)


@dataclass(frozen=True)
class AskedPairs:
    """Pairs that ask by one modality, each twice.

    Attributes:
        modality: of the queries.
        visible, hidden: siblings visible, and hidden.
        query: (n, D) over the deviation of plain scores.
        held: (n, D) the candidates, less their mean.
        base: (n,) what a query's plain scores have in common.
        same: (n, n) those that ask with the same caption.
    """

    modality: Modality
    visible: FoundPairs
    hidden: FoundPairs
    query: Vectors
    held: Vectors
    base: Floats
    same: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.base)

    @property
    def both(self) -> tuple[FoundPairs, FoundPairs]:
        """Siblings visible, and hidden."""
        return self.visible, self.hidden

    def plain(self, rows: RowNumbers) -> Floats:
        """Plain scores (m, m) of some for one another, less each query's mean."""
        return np.asarray(self.query[rows] @ self.held[rows].T, np.float32)

    def out(self, found: FoundPairs, rows: RowNumbers) -> npt.NDArray[np.bool_]:
        """Candidates (m, m) that are no rivals: of the same caption; for texts, also the images that were found."""
        out, place = self.same[np.ix_(rows, rows)].copy(), np.full(len(self) + 1, -1)
        place[rows] = np.arange(len(rows))
        seen = place[found.shown[rows]]  # -1 finds the last place, which is none
        asks, column = np.nonzero(seen >= 0)
        out[asks, seen[asks, column]] = True
        np.fill_diagonal(out, val=False)
        return out


@dataclass(frozen=True)
class Looked:
    """What pairs that ask find among all, by either modality: it does not depend on how they ask.

    Attributes:
        rows: (n,) of the pairs that ask.
        k: K.
        siblings: (n,) how many other pairs have the caption.
        same: (n, n) those that ask with the same caption.
        visible: (n, K) by each modality.
        hidden: (n, K) without siblings.
    """

    rows: RowNumbers
    k: int
    siblings: RowNumbers
    same: npt.NDArray[np.bool_]
    visible: Mapping[Modality, NearestRows]
    hidden: Mapping[Modality, NearestRows]


def look(corpus: Corpus, rows: RowNumbers, k: int) -> Looked:
    """Compare the pairs ``rows`` (n,) of a corpus with all, once by each modality; K is at most the number of pairs."""
    k = min(k, len(corpus))
    siblings, same = np.empty(len(rows), np.intp), np.empty((len(rows), len(rows)), np.bool_)
    parts = list[dict[Modality, tuple[NearestRows, NearestRows]]]()
    size = max(1, NUMBERS // len(corpus))
    for start in range(0, len(rows), size):
        block = slice(start, start + size)
        some = rows[block]
        own, found = (np.arange(len(some)), some), dict[Modality, tuple[NearestRows, NearestRows]]()
        near: RowNumbers | None = None  # places in a flat matrix: most pairs have few siblings
        for m in ("text", "image"):  # captions first: they say who is a sibling
            similarity = corpus.side(m)[some] @ corpus.side(m).T  # (m, N)
            if near is None:
                alike = similarity > corpus.same_caption
                alike[own] = True
                siblings[block], same[block] = np.count_nonzero(alike, axis=1) - 1, alike[:, rows]
                near = np.flatnonzero(alike)
            similarity[own] = -2.0
            visible = nearest_columns(similarity, k)
            similarity.reshape(-1)[near] = -2.0
            found[m] = visible, nearest_columns(similarity, k)
        parts.append(found)
    np.fill_diagonal(same, val=False)
    shown, unshown = ({m: _join([part[m][n] for part in parts]) for m in MODALITIES} for n in (0, 1))
    return Looked(rows, k, siblings, same | same.T, shown, unshown)


def _join(parts: Sequence[NearestRows]) -> NearestRows:
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([found for _, found in parts])


def asked_by(corpus: Corpus, modality: Modality, looked: Looked, rng: np.random.Generator) -> Asking:
    """Ask with pairs of a corpus.

    Args:
        corpus: the memory's pairs, measured.
        modality: of the queries.
        looked: what the pairs that ask find.
        rng: simulates another view of each pair without siblings, which asks for that pair.
    """
    rows, visible, answers = looked.rows, looked.visible[modality], corpus.side(other(modality))[looked.rows]
    if (alone := looked.siblings == 0).any():
        seen, answered = (
            other_view(corpus.side(m)[rows], looked.visible[m][1][:, 0], corpus.side(m), rng)
            for m in (modality, other(modality))
        )
        answers = np.where(alone[:, None], answered, answers)
        again = nearest_rows(seen, corpus.side(modality), looked.k)
        visible = (
            np.where(alone[:, None], again[0], visible[0]),
            np.where(alone[:, None], again[1], visible[1]),
        )
    agree = tuple(_agreement(corpus, modality, found) for found in (visible, looked.hidden[modality]))
    return Asking(corpus, modality, looked, visible, answers, (agree[0], agree[1]))


def _agreement(corpus: Corpus, modality: Modality, nearest: NearestRows) -> Floats:
    """Reliability (n, K) of what was found, below a similarity of -1 where hidden."""
    held, moments, parts = corpus.side(other(modality)), corpus.values[other(modality)], list[Floats]()
    for start in range(0, len(nearest[0]), _BLOCK):
        rows, similarity = nearest[0][start : start + _BLOCK], nearest[1][start : start + _BLOCK]
        found = similarity > -1.5
        parts.append(agreement(similarity, held[rows], found, moments, corpus.spreads[modality]))
    return np.concatenate(parts)


def other_view(x: Vectors, nearest: Floats, all_: Vectors, rng: np.random.Generator) -> Vectors:
    """Simulate another view of vectors (n, D), about as near as the nearest of ``all_``, at similarity (n,)."""
    n = len(x)
    cosine = np.clip(nearest + (1.0 - nearest) * rng.uniform(*_VIEW, n), -1.0, 1.0)[:, None]
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
        answers: (n, D) what is right for them then.
        reliable: (n, K) reliability of what they find, visible and hidden.
    """

    corpus: Corpus
    modality: Modality
    looked: Looked
    visible: NearestRows
    answers: Vectors
    reliable: tuple[Floats, Floats]

    def ask(self, sharpness: float) -> AskedPairs:
        """Both episodes, with the logarithm of how sharply neighbours are weighed."""
        corpus, modality, looked = self.corpus, self.modality, self.looked
        mean, query = corpus.values[other(modality)].mean, corpus.side(modality)[looked.rows]
        query = query / np.float32(corpus.units[modality])
        held = corpus.side(other(modality))[looked.rows]
        return AskedPairs(
            modality,
            self._find(query, self.visible, self.reliable[0], self.answers, sharpness),
            self._find(query, looked.hidden[modality], self.reliable[1], held, sharpness),
            query,
            held - mean,
            np.asarray(query @ mean, np.float32),
            looked.same,
        )

    def _find(
        self, query: Vectors, nearest: NearestRows, reliable: Floats, answers: Vectors, sharpness: float
    ) -> FoundPairs:
        """Weigh what queries (n, D) found, (n, K), below -1 where hidden; the answers are (n, D)."""
        corpus, rows, modality = self.corpus, self.looked.rows, self.modality
        moments, held = corpus.values[other(modality)], corpus.side(other(modality))
        found_rows, found_at = nearest
        found = found_at > -1.5
        found_at = np.where(found, found_at, found_at[:, :1]).astype(np.float32)
        reliability = np.where(found, reliable, 0.0).astype(np.float32)
        shares = share(found_at, reliability, found, sharpness, corpus.spreads[modality])
        own = mean_own(corpus.own[found_rows], reliability)
        metric = partial(corpus.metric.apply, rows) if modality == "text" else None
        told = weigh(query, held[found_rows], found_at, shares, found, own, moments, metric)
        direction = np.asarray(told.direction / np.maximum(told.length, np.float32(1e-5))[:, None], np.float32)
        shown = np.full((len(rows), 0), -1)
        if modality == "text":
            place = np.full(len(corpus), -1)
            place[rows] = np.arange(len(rows))
            shown = np.where(found, place[found_rows], -1)
        features = told.features(corpus.spreads[modality])
        return FoundPairs(told, features, found[:, 0], direction, answers - moments.mean, shown)
