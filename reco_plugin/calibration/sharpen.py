"""How far a query moves that is compared with vectors of its own modality, or with averages of both.

What a memory finds for a text are images: they draw a text away from other texts. But its pairs also say what tells
things apart within one modality. How images of one caption differ does not matter; what remains does. So such a query
is seen through the metric of its own modality, and needs no neighbours: with them it is no better
(``docs/measurements.md``)::

    q' = normalise(q + l |q|_C P (q - m) / |P (q - m)|_C)

with the mean m, the covariance C and the metric P of :class:`.moments.Values`. The memory learns the length l without
labels, from pairs that ask for each other: images of one caption, and texts of one image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..machine.blas import Floats
from ..types import Modality, Vectors, other
from .corpus import Corpus, same_from
from .episodes import other_view
from .moments import Values

Index = Literal["own", "both"]
"""What a query is compared with: vectors of its own modality, or averages of both, or some of each."""
LENGTHS: Mapping[Modality, npt.NDArray[np.float32]] = {
    "image": np.array([0.0, 0.1, 0.2, 0.3], np.float32),
    "text": np.array([0.0, 0.05, 0.1], np.float32),
}
"""Those that are tried, by the query's modality. Longer moves gain more among a memory's own things, but draw queries
to what it does not hold, and texts that are worded unlike its captions lose (``docs/measurements.md``)."""
DEAR = 4.0
"""Gains that outweigh one loss beyond its standard error, where a length helps one kind of question, not the other."""
_AMONG, _ASKED, _FEWEST = 3000, 1500, 50  # pairs that answer; different ones that ask, at most and at least
_FAR, _FALL = 0.95, 3.0  # quantile of distance from which a query moves less, and the power by which it does
_EQUAL = 0.9999  # cosine of the same vector
_CACHED = 65_536  # numbers of a matrix at a time
_SPREAD = 300  # rows of which the spread of cosines is taken


@dataclass(frozen=True)
class Sharpening:
    """How queries of one modality move; as it is, they do not.

    Attributes:
        own: length of the move where they are compared with vectors of their own modality.
        both: where with averages of both modalities, or with some of each.
        far: squared distance from the mean, in the metric, beyond which few of the memory's own vectors lie.
    """

    own: float = 0.0
    both: float = 0.0
    far: float = 1.0

    def move(self, query: Vectors, values: Values, index: Index) -> Vectors:
        """What to add to queries (B, D), unit-norm; ``values`` are of their modality."""
        return np.float32(getattr(self, index)) * _directions(query, values, self.far)

    def to_array(self) -> npt.NDArray[np.float64]:
        """As numbers (3,), to be stored."""
        return np.array([self.own, self.both, self.far])

    @classmethod
    def of_array(cls, numbers: npt.NDArray[np.float64]) -> Sharpening:
        """Read :meth:`to_array` back."""
        return cls(*numbers.tolist())


@dataclass(frozen=True)
class OwnCheck:
    """What queries gain among their own modality, by the memory's pairs, for people.

    Attributes:
        frozen: share of them whose first other result is of the same thing, in percent.
        gain: change with the queries refined for that target, in points: each half of the pairs by what the other half
            teaches.
        error: its standard error.
        pairs: that asked.
    """

    frozen: float
    gain: float
    error: float
    pairs: int


def _directions(query: Vectors, values: Values, far: float) -> Vectors:
    """Moves (B, D) of length 1; shorter for a query unlike all that the memory holds."""
    centred = query - values.mean
    seen = values.precision.apply(centred)
    distance = np.maximum(np.einsum("bd,bd->b", centred, seen), 1e-9)
    usual = np.minimum(far / distance, 1.0) ** _FALL
    scale = usual * values.covariance.length(query) / values.covariance.length(seen)
    return np.asarray(scale[:, None] * seen, np.float32)


class _Searched(NamedTuple):
    """Queries of one kind among an index: Q rows, N columns."""

    plain: Floats  # -inf for what is no rival
    added: Floats  # what a move of length 1 adds
    right: npt.NDArray[np.bool_]

    def better(self, length: float) -> npt.NDArray[np.intp]:
        """How many others are before the first right one, (Q,), after a move of this length."""
        count, size = np.empty(len(self.plain), np.intp), max(1, _CACHED // max(self.plain.shape[1], 1))
        for start in range(0, len(count), size):
            rows = slice(start, start + size)
            scores = np.float32(length) * self.added[rows]
            scores += self.plain[rows]
            best = np.where(self.right[rows], scores, -np.inf).max(axis=1, keepdims=True)
            count[rows] = np.count_nonzero(scores > best, axis=1)  # no right one is
        return count

    def first(self, length: float) -> npt.NDArray[np.float64]:
        """Whether a right one is first, (Q,), after a move of this length."""
        return np.asarray(self.better(length) == 0, np.float64)

    def of(self, rows: npt.NDArray[np.bool_]) -> _Searched:
        """Some of the queries."""
        return _Searched(self.plain[rows], self.added[rows], self.right[rows])


def learn_sharpening(
    corpus: Corpus, modality: Modality, rng: np.random.Generator
) -> tuple[Sharpening, OwnCheck | None]:
    """Learn it from pairs that ask by one modality, and what it gains; None where too few have a sibling.

    A length must serve two kinds of questions: siblings that ask for each other, and other views of a vector, as the
    fit of the gates simulates them, that ask for it. Else an index of unique things would lose for what looks alike.
    """
    values, rows = corpus.values[modality], rng.permutation(corpus.chosen)[:_AMONG]
    own, by = corpus.side(modality)[rows], corpus.side(other(modality))[rows]
    far = float(np.quantile(values.precision.length(own - values.mean) ** 2, _FAR))
    alike, among = by @ by.T, own @ own.T
    near = alike > (corpus.same_caption if modality == "image" else same_from(alike[:_SPREAD]))
    equal = among > _EQUAL
    once = equal.argmax(axis=1) == np.arange(len(rows))  # the first of those that are the same
    asks, some = (np.flatnonzero(one)[:_ASKED] for one in (once & (near & ~equal).any(axis=1), once))
    if len(asks) < _FEWEST:
        return Sharpening(far=far), None
    np.fill_diagonal(among, -1.0)
    identity = np.eye(len(rows), dtype=np.bool_)
    views = other_view(own[some], among[some].max(axis=1), own, rng)
    questions = (
        (own[asks], near[asks] & ~equal[asks], equal[asks]),
        (views, identity[some], equal[some] & ~identity[some]),
    )
    reliability = corpus.reliability_of(rows[asks])
    halves = near[asks].argmax(axis=1) % 2, some % 2  # rows are in random order; siblings are in one half
    lengths, best, check = LENGTHS[modality], list[float](), None
    for index in (own, _unit(own + by)):
        asked = [
            _Searched(np.where(out, np.float32(-np.inf), q @ index.T), _directions(q, values, far) @ index.T, right)
            for q, right, out in questions
        ]
        gains = [_gains(lengths, one) for one in asked]
        best.append(_best(lengths, gains))
        check = check or _check(asked[0], gains, halves, lengths, reliability, moves=best[0] > 0.0)
    return Sharpening(best[0], min(best), far), check


def _check(
    asked: _Searched,
    gains: Sequence[npt.NDArray[np.float64]],
    halves: Sequence[npt.NDArray[np.intp]],
    lengths: npt.NDArray[np.float32],
    reliability: npt.NDArray[np.float32],
    *,
    moves: bool,
) -> OwnCheck:
    """Of siblings that ask for each other, (Q, N); each half (Q,) moves as far as the other one teaches."""
    before, weights = asked.first(0.0), reliability.astype(np.float64) / max(float(reliability.sum()), 1e-9)
    after = before.copy()
    for half in (0, 1) if moves else ():
        taught = _best(lengths, [of[:, part != half] for of, part in zip(gains, halves, strict=True)])
        after[halves[0] == half] = asked.of(halves[0] == half).first(taught)
    mean = float(weights @ (after - before))
    error = float(np.sqrt(np.sum(weights**2 * (after - before - mean) ** 2)))
    return OwnCheck(100.0 * float(weights @ before), 100.0 * mean, 100.0 * error, len(before))


def _unit(x: Vectors) -> Vectors:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)


def _gains(lengths: npt.NDArray[np.float32], asked: _Searched) -> npt.NDArray[np.float64]:
    """What each length adds to the reciprocal rank of the first right answer, (L, Q)."""
    ranks = [1.0 / (1.0 + asked.better(length)) for length in lengths]
    return np.asarray(np.stack(ranks) - ranks[0])


def _best(lengths: npt.NDArray[np.float32], kinds: Sequence[npt.NDArray[np.float64]]) -> float:
    """The length that is worth most over all kinds of questions, gains (L, Q) each; shorter the less sure that is."""
    mean = np.stack([gains.mean(axis=1) for gains in kinds])  # (kinds, L)
    error = np.stack([gains.std(axis=1) / gains.shape[1] ** 0.5 for gains in kinds])
    worth = (mean - (DEAR - 1.0) * np.maximum(-mean - error, 0.0)).sum(axis=0)
    best = int(worth.argmax())
    sure = worth[best] / max(float(np.linalg.norm(error[:, best])), 1e-9)
    return float(lengths[best] * max(0.0, 1.0 - 1.0 / max(sure, 1.0) ** 2))
