"""Held-out pairs of the memory that ask, each twice: with the pairs of its caption visible, and hidden.

Everything that does not depend on the gate's parameters is computed once, so that the fit runs on (n, n) products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..blas import Floats, side_by_side
from ..types import MODALITIES, Modality, Vectors, other
from .corpus import Corpus
from .gate import SHARPNESS, SHORTEST
from .nearest import NUMBERS, NearestRows, nearest_columns
from .probes import nearest_rows_to
from .signals import mean_own, share, weigh

VIEW = (-0.5, 0.3)
"""A simulated other view of a pair is this share nearer to it than its nearest neighbour is; (0, .5) is in
docs/measurements/gate.md."""


@dataclass(frozen=True)
class Episode:
    """n questions and their answers, among n candidates.

    Attributes:
        signals: (n, 8) of what each found, see :data:`.gate.SIGNALS`.
        found: (n,) whether it found anything.
        evidence: (n, n) scores of that for the candidates, in their standard deviations.
        plain: (n, n) plain scores of the question for the candidates, less their mean.
        base: (n, 1) that mean.
        out: (n, n) candidates that are as right as the own one, or were found.
    """

    signals: Floats
    found: npt.NDArray[np.bool_]
    evidence: Floats
    plain: Floats
    base: Floats
    out: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Episodes:
    """Both episodes of the same pairs.

    Attributes:
        visible, hidden: siblings visible, and hidden.
        siblings: (n,) how many other pairs have the caption.
        reliability: (n,) of the pairs that ask.
        spread: of similarity.
        sharpness: logarithm of how sharply neighbours were weighed.
    """

    visible: Episode
    hidden: Episode
    siblings: npt.NDArray[np.intp]
    reliability: Floats
    spread: float
    sharpness: float

    def __len__(self) -> int:
        return len(self.siblings)


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
    """

    rows: npt.NDArray[np.intp]
    k: int
    siblings: npt.NDArray[np.intp]
    same: npt.NDArray[np.bool_]
    nearest: Mapping[Modality, Floats]
    visible: Mapping[Modality, NearestRows]
    hidden: Mapping[Modality, NearestRows]
    _reliable: dict[Modality, Floats] = field(default_factory=dict)

    def reliable_hidden(self, corpus: Corpus, modality: Modality) -> Floats:
        """Reliability (n, K) of what is found without siblings, by those who ask again and again: they share it."""
        if modality not in self._reliable:
            self._reliable[modality] = corpus.reliability_without(self.rows, self.hidden[modality][0])
        return self._reliable[modality]


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

    parts = side_by_side(compare, blocks)
    np.fill_diagonal(same, val=False)
    visible, hidden = ({m: _join([part[m][number] for part in parts]) for m in MODALITIES} for number in (0, 1))
    nearest = {m: visible[m][1][:, 0] for m in MODALITIES}
    return Looked(rows, k, siblings, same | same.T, nearest, visible, hidden)


def make_episodes(
    corpus: Corpus,
    modality: Modality,
    looked: Looked,
    *,
    views: np.random.Generator | None = None,
    sharpness: float = SHARPNESS,
) -> Episodes:
    """Ask with pairs of a corpus.

    Args:
        corpus: the memory's pairs, measured.
        modality: of the queries.
        looked: what the pairs that ask find.
        views: simulates another view of each pair without siblings, which asks for that pair; None: none does.
        sharpness: logarithm of how sharply neighbours are weighed.
    """
    return asked_by(corpus, modality, looked, views).episodes(sharpness)


def asked_by(corpus: Corpus, modality: Modality, looked: Looked, views: np.random.Generator | None = None) -> Asking:
    """Pairs that ask by one modality, see :func:`make_episodes`, for any sharpness."""
    value, rows = other(modality), looked.rows
    visible, answers = looked.visible[modality], corpus.side(value)[rows]
    if views is not None and (alone := looked.siblings == 0).any():
        seen, answered = (
            other_view(corpus.side(m)[rows], looked.nearest[m], corpus.side(m), views) for m in (modality, value)
        )
        answers = np.where(alone[:, None], answered, answers)
        again = nearest_rows_to(seen, corpus.side(modality), looked.k, int, corpus.lists[modality])
        visible = (
            np.where(alone[:, None], again[0], visible[0]),
            np.where(alone[:, None], again[1], visible[1]),
        )
    return Asking(corpus, modality, looked, visible, answers)


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
    """Pairs that ask by one modality.

    Attributes:
        corpus: the memory's pairs.
        modality: of the queries.
        looked: what they find.
        visible: (n, K) what they find with siblings visible, as they ask.
        answers: (n, D) what is right for them then.
    """

    corpus: Corpus
    modality: Modality
    looked: Looked
    visible: NearestRows
    answers: Vectors

    def episodes(self, sharpness: float) -> Episodes:
        """Both episodes, with the logarithm of how sharply neighbours are weighed."""
        corpus, modality, looked = self.corpus, self.modality, self.looked
        return Episodes(
            self._episode(self.visible, self.answers, self._reliable[0], sharpness),
            self._episode(
                looked.hidden[modality], corpus.side(other(modality))[looked.rows], self._reliable[1], sharpness
            ),
            looked.siblings,
            corpus.reliability_of(looked.rows),
            corpus.spreads[modality],
            sharpness,
        )

    @cached_property
    def _reliable(self) -> tuple[Floats, Floats]:
        """Reliability (n, K) of what is found, visible and hidden: it takes longest, and hangs on no sharpness."""
        found, hidden = self.visible[0], self.looked.reliable_hidden(self.corpus, self.modality)
        other = (found != self.looked.hidden[self.modality][0]).any(axis=1)  # not where no sibling is to be hidden
        visible = hidden.copy()
        visible[other] = self.corpus.reliability_without(self.looked.rows[other], found[other])
        return visible, hidden

    def _episode(self, nearest: NearestRows, answers: Vectors, reliable: Floats, sharpness: float) -> Episode:
        """Compare what was found (n, K), below -1 where hidden, with the answers (n, D)."""
        corpus, rows, modality = self.corpus, self.looked.rows, self.modality
        value = other(modality)
        moments, held, unit = corpus.values[value], corpus.side(value), corpus.units[modality]
        found_rows, found_at = nearest
        found = found_at > -1.5
        found_at = np.where(found, found_at, found_at[:, :1]).astype(np.float32)
        reliability = np.where(found, reliable, 0.0).astype(np.float32)
        query = corpus.side(modality)[rows]
        shares = share(found_at, reliability, found, sharpness, corpus.spreads[modality])
        own = mean_own(corpus.witnesses[found_rows, 2], reliability, corpus.own)
        said = weigh(query, held[found_rows], found_at, shares, found, own, moments, unit)
        direction = said.direction / np.maximum(said.length, np.float32(SHORTEST))[:, None]
        plain = query / np.float32(unit)
        return Episode(
            said.signals,
            found[:, 0],
            np.asarray(direction @ (answers - moments.mean).T, np.float32),
            np.asarray(plain @ (held[rows] - moments.mean).T, np.float32),
            np.asarray(plain @ moments.mean, np.float32)[:, None],
            self._out(found_rows, found),
        )

    def _out(self, found_rows: npt.NDArray[np.intp], found: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Candidates that are no rivals: of the same caption; for texts, also the images that were found."""
        out = self.looked.same.copy()
        if self.modality == "text":
            place = np.full(len(self.corpus), -1)
            place[self.looked.rows] = np.arange(len(self.looked.rows))
            asks, column = np.nonzero((place[found_rows] >= 0) & found)
            candidate = place[found_rows[asks, column]]
            others = candidate != asks
            out[asks[others], candidate[others]] = True
        return out
