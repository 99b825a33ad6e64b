"""Presence: whether the memory holds a query's answer, from 0 to 1, by what was found; learned without labels.

It is a probability for queries that are worded as the memory's captions are, and only a rank for others.

Pairs of the memory serve as queries, each with its answers visible, and hidden. A text asks in other words: those of a
sibling, or its own vector moved towards the caption of another pair, so that being identical is not the sign. An image
asks beside its siblings; without any, as another view of itself. A logistic regression of five signals tells both
apart. Half of the queries are assumed to have an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..fusion.evidence import IDENTICAL
from ..learning.calibrate import Calibrated
from ..learning.corpus import Corpus
from ..learning.nearest import nearest_columns
from ..types import MODALITIES, Modality, Neighbours, Records, Vectors, other
from ..vectors import Floats
from .logistic import chance_of, fit_logistic

ASKED = 1_000
"""Pairs that serve as queries, at most."""
COSINES = (1.0, 0.98, 0.95, 0.92, 0.88)
"""Of a moved caption with itself."""
ALONE = 0.4
"""Share of captions that no other is like, from which only identical ones are taken for the same thing."""
SIGNALS = 5
_NEAR = 50  # captions, towards one of which a caption is moved
_VIEW = (-0.5, 0.3)  # a simulated other view of a pair is this share nearer to it than its nearest neighbour is
_BLOCK = 250  # pairs that are compared with all at a time


@dataclass(frozen=True)
class Presence:
    """Of the queries of one modality.

    Attributes:
        looked: neighbours that the signals are of.
        weights: (6,) of the signals, and a constant.
    """

    looked: int
    weights: npt.NDArray[np.float64]

    def of(self, query: Vectors, found: Neighbours, mean: Vectors, unit: float) -> npt.NDArray[np.float32]:
        """Presence (B,) of queries (B, D) by what they found; 0 where that is nothing.

        A query that found fewer pairs than the signals are of repeats its last one. ``mean`` and ``unit`` as in
        :func:`presence_signals`.
        """
        similarity, values = found.similarity[:, : self.looked], found.vectors[:, : self.looked]
        here = found.found[:, : self.looked]
        if not here.all():
            last = np.minimum(np.arange(here.shape[1]), np.maximum(here.sum(axis=1), 1)[:, None] - 1)
            similarity = np.take_along_axis(similarity, last, axis=1)
            values = np.take_along_axis(values, last[..., None], axis=1)
        chance = chance_of(presence_signals(query, similarity, values, mean, unit), self.weights)
        return np.where(here[:, 0], chance, 0.0).astype(np.float32)

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Presence:
        """From a memory's header.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        weights = np.asarray(stored["weights"], np.float64)
        if weights.shape != (SIGNALS + 1,) or not np.isfinite(weights).all():
            raise ValueError(f"weights of shape {weights.shape}")
        return cls(int(stored["looked"]), weights)


class PresenceState:
    """What a memory has learned, by modality; see :class:`~reco_plugin.learning.extra.TellsPresence`."""

    def __init__(self, sides: Mapping[Modality, Presence]) -> None:
        self.sides = sides

    def of(
        self, modality: Modality, query: Vectors, found: Neighbours, mean: Vectors, unit: float
    ) -> npt.NDArray[np.float32] | None:
        """Presence (B,) of queries (B, D); None where fewer neighbours were found than in calibration."""
        side = self.sides.get(modality)
        if side is None or found.found.shape[1] < side.looked:
            return None
        return side.of(query, found, mean, unit)

    def why_not(self, modality: Modality) -> str:
        """Why there is none."""
        if (side := self.sides.get(modality)) is not None:
            return f"presence looks at {side.looked} neighbours, and fewer were searched for"
        return "the memory's pairs are too few to learn presence"

    @classmethod
    def read(cls, calibration: Mapping[str, Any]) -> PresenceState | None:
        """From a memory's header; None where nothing was learned.

        Raises:
            ConfigError: it is damaged.
        """
        stored = calibration.get(LearnsPresence.name)
        if not stored:
            return None
        try:
            return cls({m: Presence.of_json(stored[m]) for m in MODALITIES if m in stored})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"what the memory knows of presence is damaged ({error!r}): run `reco memory build --relearn`"
            ) from error


class LearnsPresence:
    """Learns it from a memory's pairs, see :class:`~reco_plugin.learning.extra.Extra`."""

    name = "presence"

    def learn(
        self, learned: Calibrated, pairs: Records, k: int, progress: Callable[[int], object]
    ) -> Mapping[str, Any]:
        """The weights of each side that has enough neighbours."""
        sides = {m: learn_presence(learned.corpus, m, k, seed=0) for m in MODALITIES}
        return {
            m: {"looked": side.looked, "weights": side.weights.tolist()}
            for m, side in sides.items()
            if side is not None
        }


def presence_signals(query: Vectors, similarity: Floats, values: Vectors, mean: Vectors, unit: float) -> Floats:
    """Five signals (B, 5) of what was found.

    In this order: best similarity, its lead over the second and over the mean of the others; the query's own score of
    the best pair's other side, and how alike the others' are to that side.

    Args:
        query: (B, D) unit-norm.
        similarity: (B, K) within the query's modality, the largest first.
        values: (B, K, D) the other side of each.
        mean: (D,) of the memory's vectors of that side.
        unit: mean standard deviation of a query's plain scores over them.
    """
    best, others = similarity[:, 0], similarity[:, 1:]
    score = ((values[:, 0] - mean) * query).sum(axis=1) / np.float32(unit)
    alike = np.matmul(values[:, 1:], values[:, 0, :, None])[..., 0]
    columns = [best, best - others[:, 0], best - others.mean(axis=1), score, alike.mean(axis=1)]
    return np.stack(columns, axis=1).astype(np.float32)


def learn_presence(corpus: Corpus, modality: Modality, k: int, *, seed: int) -> Presence | None:
    """Learn from the pairs of a memory; None where there are too few neighbours to compare.

    Args:
        corpus: the pairs, measured.
        modality: of the queries.
        k: neighbours of the searches to come.
        seed: of all samples.
    """
    looked = min(k, len(corpus) - 1)
    if looked < 2:
        return None
    rng = np.random.default_rng(seed)
    rows = rng.permutation(corpus.chosen)[:ASKED]
    nearest = corpus.near_text[1][rows, 0]
    same = IDENTICAL if (nearest <= corpus.same_caption).mean() >= ALONE else corpus.same_caption
    held, values = corpus.side(modality), corpus.side(other(modality))
    mean, unit = corpus.values[other(modality)].mean, corpus.units[modality]
    signals, answered = list[Floats](), list[npt.NDArray[np.bool_]]()
    for start in range(0, len(rows), _BLOCK):
        for query, visible, hidden in _ask(corpus, modality, rows[start : start + _BLOCK], same, rng):
            scores = query @ held.T
            for unseen in (visible, hidden):
                found, near = nearest_columns(np.where(unseen, np.float32(-2.0), scores), looked)
                signals.append(presence_signals(query, near, values[found], mean, unit))
                answered.append(np.full(len(query), unseen is visible))
    return Presence(looked, fit_logistic(np.concatenate(signals), np.concatenate(answered)))


def _ask(
    corpus: Corpus, modality: Modality, rows: npt.NDArray[np.intp], same: float, rng: np.random.Generator
) -> Iterator[tuple[Vectors, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Queries (n, D) by some pairs, and masks (n, N) of the pairs that they do not see: with an answer, and without.

    ``same`` is the cosine from which two captions are siblings.
    """
    held, asks = corpus.side(modality), np.arange(len(rows))
    between = corpus.text[rows] @ corpus.text.T
    own = np.zeros(between.shape, np.bool_)
    own[asks, rows] = True
    siblings = (between > same) | own
    if modality == "image":
        alone = siblings.sum(axis=1) == 1
        nearest = np.where(own, np.float32(-2.0), held[rows] @ held.T).max(axis=1)
        query = np.where(alone[:, None], other_view(held[rows], nearest, held, rng), held[rows])
        yield query, own & ~alone[:, None], siblings
        return
    identical = (between > IDENTICAL) | own
    worded = np.asarray((siblings & ~identical).any(axis=1))
    others = nearest_columns(np.where(siblings, np.float32(-2.0), between), min(_NEAR, len(corpus)))[0]
    for by_sibling in (np.zeros_like(worded), worded):
        towards = held[others[asks, rng.integers(0, others.shape[1], len(rows))]]
        cosine = np.where(by_sibling, 1.0, rng.choice(COSINES, len(rows)))
        yield moved_towards(held[rows], towards, cosine), identical & by_sibling[:, None], siblings


def moved_towards(x: Vectors, towards: Vectors, cosine: npt.NDArray[np.float64]) -> Vectors:
    """Vectors (n, D) moved towards others until each has its cosine (n,) with itself."""
    away = towards - (towards * x).sum(axis=1, keepdims=True) * x
    away /= np.linalg.norm(away, axis=1, keepdims=True) + 1e-9
    moved = cosine[:, None] * x + np.sqrt(1.0 - cosine**2)[:, None] * away
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


def other_view(x: Vectors, nearest: Floats, all_: Vectors, rng: np.random.Generator) -> Vectors:
    """Simulate another view of vectors (n, D), about as near as the nearest of ``all_``, at similarity (n,)."""
    n = len(x)
    cosine = np.clip(nearest + (1.0 - nearest) * rng.uniform(*_VIEW, n), -1.0, 1.0)
    first, second = rng.integers(0, len(all_), (2, n))
    return moved_towards(x, x + all_[first] - all_[second], cosine)
