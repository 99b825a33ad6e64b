"""Held-out pairs of the memory that ask, each twice: with the pairs of its caption visible, and hidden.

Everything that does not depend on the gate's parameters is computed once, so that the fit runs on (n, n) products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..blas import Floats
from ..types import Modality, Vectors, other
from .corpus import Corpus
from .gate import SHARPNESS, SHORTEST
from .nearest import NUMBERS, NearestRows, nearest_columns
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


def make_episodes(
    corpus: Corpus,
    modality: Modality,
    rows: npt.NDArray[np.intp],
    *,
    k: int,
    views: np.random.Generator | None = None,
    sharpness: float = SHARPNESS,
) -> Episodes:
    """Ask with the pairs ``rows`` of a corpus.

    Args:
        corpus: the memory's pairs, measured.
        modality: of the queries.
        rows: (n,) of the pairs that ask.
        k: K.
        views: simulates another view of each pair without siblings, which asks for that pair; None: none does.
        sharpness: logarithm of how sharply neighbours are weighed.
    """
    value = other(modality)
    size = max(1, NUMBERS // len(corpus))
    blocks = [slice(start, start + size) for start in range(0, len(rows), size)]
    sides = (modality,) if views is None else (value, modality)
    looked = [_look(corpus, sides, rows, block, k) for block in blocks]
    visible, hidden = (_join([getattr(one, name) for one in looked]) for name in ("visible", "hidden"))
    siblings = np.concatenate([one.siblings for one in looked])
    same = np.concatenate([one.same for one in looked])
    same |= same.T
    answers = corpus.side(value)[rows]
    if views is not None and (alone := siblings == 0).any():
        seen, answered = (
            other_view(corpus.side(m)[rows], np.concatenate([one.nearest[m] for one in looked]), corpus.side(m), views)
            for m in (modality, value)
        )
        answers = np.where(alone[:, None], answered, answers)
        again = _join([nearest_columns(seen[block] @ corpus.side(modality).T, k) for block in blocks])
        visible = (
            np.where(alone[:, None], again[0], visible[0]),
            np.where(alone[:, None], again[1], visible[1]),
        )
    asked = _Asked(corpus, modality, rows, same, sharpness)
    return Episodes(
        asked.episode(visible, answers),
        asked.episode(hidden, corpus.side(value)[rows]),
        siblings,
        corpus.reliability_of(rows),
        corpus.spreads[modality],
        sharpness,
    )


@dataclass(frozen=True)
class _Looked:
    """What some of the pairs that ask (m of n) find among all."""

    siblings: npt.NDArray[np.intp]  # (m,)
    same: npt.NDArray[np.bool_]  # (m, n) those that ask with the same caption
    nearest: Mapping[Modality, Floats]  # (m,) similarity to the nearest other, by each side that was asked for
    visible: NearestRows  # (m, K)
    hidden: NearestRows  # (m, K) without siblings


def _look(corpus: Corpus, sides: Sequence[Modality], rows: npt.NDArray[np.intp], block: slice, k: int) -> _Looked:
    """Compare the pairs ``rows[block]`` with all, by these sides; the last is that of the queries."""
    some, place = rows[block], np.arange(len(rows))[block]
    own = np.arange(len(some)), some
    near = corpus.side("text")[some] @ corpus.side("text").T > corpus.same_caption  # (m, N)
    near[own] = True
    same = near[:, rows]
    same[np.arange(len(some)), place] = False
    nearest: dict[Modality, Floats] = {}
    for m in sides:
        similarity = corpus.side(m)[some] @ corpus.side(m).T
        similarity[own] = -2.0
        nearest[m] = similarity.max(axis=1)
    visible = nearest_columns(similarity, k)
    similarity[near] = -2.0
    return _Looked(near.sum(axis=1) - 1, same, nearest, visible, nearest_columns(similarity, k))


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
class _Asked:
    """The pairs that ask."""

    corpus: Corpus
    modality: Modality
    rows: npt.NDArray[np.intp]  # (n,)
    same: npt.NDArray[np.bool_]  # (n, n) candidates with the caption of another
    sharpness: float

    def episode(self, nearest: NearestRows, answers: Vectors) -> Episode:
        """Compare what was found (n, K), below -1 where hidden, with the answers (n, D)."""
        corpus, rows, modality = self.corpus, self.rows, self.modality
        value = other(modality)
        moments, held, unit = corpus.values[value], corpus.side(value), corpus.units[modality]
        found_rows, found_at = nearest
        found = found_at > -1.5
        found_at = np.where(found, found_at, found_at[:, :1]).astype(np.float32)
        reliability = np.where(found, corpus.reliability_without(rows, found_rows), 0.0).astype(np.float32)
        query = corpus.side(modality)[rows]
        shares = share(found_at, reliability, found, self.sharpness, corpus.spreads[modality])
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
        out = self.same.copy()
        if self.modality == "text":
            place = np.full(len(self.corpus), -1)
            place[self.rows] = np.arange(len(self.rows))
            asks, column = np.nonzero((place[found_rows] >= 0) & found)
            candidate = place[found_rows[asks, column]]
            others = candidate != asks
            out[asks[others], candidate[others]] = True
        return out
