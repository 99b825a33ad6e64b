"""Held-out pairs of the memory that ask, each twice: with the pairs of its caption visible, and hidden.

Everything that does not depend on the gate's parameters is computed once, so that the fit runs on (n, K, n) products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..blas import Floats
from ..types import Modality, Vectors, other
from .corpus import Corpus
from .nearest import nearest_columns

VIEW = (-0.5, 0.3)
"""A simulated other view of a pair is this share nearer to it than its nearest neighbour is; (0, .5) is in
docs/measurements/gate.md."""


@dataclass(frozen=True)
class Episode:
    """n questions and their answers, among n candidates.

    Attributes:
        similarity, found, honesty: (n, K) of the neighbours.
        plain: (n, K) what the frozen encoder says of the values.
        gram: (n, K, K) products of the values in the metric.
        spread: (n, K, K) products over the covariance.
        toward: (n, K) products of the values with the question over the covariance.
        scores: (n, K, n) of the values for the candidates.
        frozen: (n, n) of the question for the candidates, less their mean.
        base: (n, 1) that mean.
        out: (n, n) candidates that are as right as the own one, or were found.
    """

    similarity: Floats
    found: npt.NDArray[np.bool_]
    honesty: Floats
    plain: Floats
    gram: Floats
    spread: Floats
    toward: Floats
    scores: Floats
    frozen: Floats
    base: Floats
    out: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Episodes:
    """Both episodes of the same pairs.

    Attributes:
        visible, hidden: siblings visible, and hidden.
        siblings: (n,) how many other pairs have the caption.
        honesty: (n,) of the pairs that ask.
        length: of a value in the metric, squared.
        spread: of similarity.
    """

    visible: Episode
    hidden: Episode
    siblings: npt.NDArray[np.intp]
    honesty: Floats
    length: float
    spread: float

    def __len__(self) -> int:
        return len(self.siblings)


def make_episodes(
    corpus: Corpus,
    modality: Modality,
    rows: npt.NDArray[np.intp],
    *,
    k: int,
    views: np.random.Generator | None = None,
) -> Episodes:
    """Ask with the pairs ``rows`` of a corpus.

    Args:
        corpus: the memory's pairs, measured.
        modality: of the queries.
        rows: (n,) of the pairs that ask.
        k: K.
        views: simulates another view of each pair without siblings, which asks for that pair; None: none does.
    """
    n, value = len(rows), other(modality)
    keys, held = corpus.side(modality), corpus.side(value)
    near = corpus.side("text")[rows] @ corpus.side("text").T > corpus.same_caption  # (n, N)
    near[np.arange(n), rows] = True
    siblings = near.sum(axis=1) - 1
    same = near[:, rows] & ~np.eye(n, dtype=np.bool_)
    same |= same.T
    similarity = keys[rows] @ keys.T
    similarity[np.arange(n), rows] = -2.0
    visible, answers = similarity, held[rows]
    if views is not None and (alone := siblings == 0).any():
        seen = other_view(keys[rows], similarity.max(axis=1), keys, views)
        values = held[rows] @ held.T
        values[np.arange(n), rows] = -2.0
        answered = other_view(held[rows], values.max(axis=1), held, views)
        answers = np.where(alone[:, None], answered, answers)
        visible = np.where(alone[:, None], seen @ keys.T, similarity)
    asked = _Asked(corpus, modality, rows, k, same)
    return Episodes(
        asked.episode(visible, answers),
        asked.episode(np.where(near, -2.0, similarity), held[rows]),
        siblings,
        corpus.honesty_of(rows),
        corpus.values[value].length,
        corpus.spreads[modality],
    )


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
    k: int
    same: npt.NDArray[np.bool_]  # (n, n) candidates with the caption of another

    def episode(self, similarity: Floats, answers: Vectors) -> Episode:
        """Retrieve by similarity (n, N), below -1 where hidden, and compare with the answers (n, D)."""
        corpus, rows, n = self.corpus, self.rows, len(self.rows)
        value = other(self.modality)
        moments, held = corpus.values[value], corpus.side(value)
        found_rows, found_at = nearest_columns(similarity, self.k)
        found = found_at > -1.5
        found_at = np.where(found, found_at, found_at[:, :1])
        honesty = np.where(found, corpus.honesty_without(rows, found_rows), 0.0).astype(np.float32)
        values = held[found_rows] - moments.mean
        flat = values.reshape(-1, values.shape[-1])
        white = moments.precision.apply(flat)
        over = moments.covariance.apply(white).reshape(values.shape)
        white = white.reshape(values.shape)
        plain = corpus.side(self.modality)[rows] / np.float32(corpus.units[self.modality])
        centred = answers - moments.mean
        return Episode(
            found_at.astype(np.float32),
            found,
            honesty,
            np.einsum("bkd,bd->bk", values, plain),
            np.matmul(white, values.transpose(0, 2, 1)),
            np.matmul(over, white.transpose(0, 2, 1)),
            np.einsum("bkd,bd->bk", over, plain),
            (white.reshape(len(flat), -1) @ centred.T).reshape(n, -1, n),
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
