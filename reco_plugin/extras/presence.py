"""Presence: whether the memory holds a query's answer, from 0 to 1, by what was found; learned without labels.

It is a probability for queries that are worded as the memory's captions are, and only a rank for others.

Pairs of the memory ask, each with what answers it visible, and hidden. A text asks in other words: those of a sibling,
or its own vector moved towards the caption of another pair, so that being identical is not the sign. An image asks
beside its siblings; without any, as another view of itself. Boosted trees of two questions each tell both apart by
seven signals; with a logistic regression of these, a threshold costs a fifth of the gain
(``docs/measurements.md``). Half of the queries are taken to have an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..calibration.calibrate import Calibrated
from ..calibration.corpus import Corpus
from ..calibration.episodes import other_view
from ..calibration.nearest import nearest_columns
from ..calibration.reliability import sigmoid
from ..errors import ConfigError
from ..machine.blas import Floats
from ..types import MODALITIES, Modality, Neighbours, Records, Vectors, other

ASKED = 1_000
"""Pairs that ask, at most."""
COSINES = (1.0, 0.98, 0.95, 0.92, 0.88)
"""Of a moved caption with itself."""
ALONE = 0.4
"""Share of captions that no other is like, from which only identical ones are taken for the same thing."""
IDENTICAL = 0.9995
"""Cosine from which two captions are the same words."""
_NEAR = 50  # captions, towards one of which a caption is moved
_ROUNDS, _RATE, _BINS, _FEWEST, _RIDGE = 80, 0.1, 256, 20, 1.0  # trees, their step, and what holds them back
_PASSES = 4  # questions of each text; every second one has the words of a sibling
SIGNALS = 7


@dataclass(frozen=True)
class Presence:
    """Trees for the queries of one modality.

    Attributes:
        looked: neighbours that the signals are of.
        feature: (T, 3) signal that is compared, of the first question and of the second after a no and a yes.
        threshold: (T, 3) what it must exceed for a yes.
        leaf: (T, 4) logit that each of the four ends adds.
    """

    looked: int
    feature: npt.NDArray[np.intp]
    threshold: Floats
    leaf: Floats

    def of(self, signals: Floats) -> Floats:
        """Presence (B,) for signals (B, 7), from 0 to 1."""
        yes = signals[:, self.feature] > self.threshold  # (B, T, 3)
        end = 2 * yes[..., 0] + np.where(yes[..., 0], yes[..., 2], yes[..., 1])
        logit = self.leaf[np.arange(len(self.leaf)), end].sum(axis=1, dtype=np.float64)
        return sigmoid(logit).astype(np.float32)

    def to_array(self) -> Floats:
        """All of it, (T, 11), to be stored: what was looked at stands in each row."""
        looked = np.full((len(self.leaf), 1), self.looked)
        return np.concatenate([looked, self.feature, self.threshold, self.leaf], axis=1).astype(np.float32)

    @classmethod
    def of_array(cls, stored: Floats) -> Presence:
        """Read :meth:`to_array` back.

        Raises:
            ValueError: another shape, or a signal that there is not.
        """
        if stored.ndim != 2 or stored.shape[1] != 11 or not len(stored):
            raise ValueError(f"presence of shape {stored.shape}")
        feature = stored[:, 1:4].astype(np.intp)
        if feature.min() < 0 or feature.max() >= SIGNALS:
            raise ValueError(f"presence by the signals {sorted(set(feature.ravel().tolist()))}")
        return cls(int(stored[0, 0]), feature, stored[:, 4:7], stored[:, 7:])


class PresenceState:
    """What a memory has learned, by modality; see :class:`~reco_plugin.calibration.extra.TellsPresence`."""

    def __init__(self, sides: Mapping[Modality, Presence]) -> None:
        self.sides = sides

    def of(
        self, modality: Modality, query: Vectors, found: Neighbours, mean: Vectors, unit: float
    ) -> npt.NDArray[np.float32] | None:
        """Presence (B,) of queries (B, D); None where fewer neighbours were found than in calibration."""
        side = self.sides.get(modality)
        if side is None or found.found.shape[1] < side.looked:
            return None
        return presence_of(side, query, found, mean, unit)

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
            return cls({m: Presence.of_array(np.array(stored[m], np.float32)) for m in MODALITIES if m in stored})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"what the memory knows of presence is damaged ({error!r}): run `reco memory build --relearn`"
            ) from error


class LearnsPresence:
    """Learns it from a memory's pairs, see :class:`~reco_plugin.calibration.extra.Extra`."""

    name = "presence"

    def learn(
        self, learned: Calibrated, pairs: Records, k: int, progress: Callable[[int], object]
    ) -> Mapping[str, Any]:
        """The trees of each side that has enough neighbours."""
        sides = {m: learn_presence(learned.corpus, m, k, seed=0) for m in MODALITIES}
        return {m: side.to_array().tolist() for m, side in sides.items() if side is not None}


def presence_signals(query: Vectors, similarity: Floats, values: Vectors, mean: Vectors, unit: float) -> Floats:
    """Seven signals (B, 7) of what was found.

    In this order: best similarity, its lead over the second and over the mean of the others, their spread; the query's
    own score of the best pair's other side, its lead over the others', and how alike those sides are.

    Args:
        query: (B, D) unit-norm.
        similarity: (B, K) within the query's modality, the largest first.
        values: (B, K, D) the other side of each.
        mean: (D,) of the memory's vectors of that side.
        unit: mean standard deviation of a query's plain scores over them.
    """
    best, others = similarity[:, 0], similarity[:, 1:]
    score = (np.matmul(values, query[:, :, None])[..., 0] - (query @ mean)[:, None]) / np.float32(unit)
    alike = np.matmul(values[:, 1:], values[:, 0, :, None])[..., 0]
    columns = [
        best,
        best - others[:, 0],
        best - others.mean(axis=1),
        others[:, 0] - others[:, -1],
        score[:, 0],
        score[:, 0] - score[:, 1:].mean(axis=1),
        alike.mean(axis=1),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def presence_of(
    presence: Presence, query: Vectors, found: Neighbours, mean: Vectors, unit: float
) -> npt.NDArray[np.float32]:
    """Presence (B,) of queries (B, D) by what they found; 0 where that is nothing.

    A query that found fewer pairs than the signals are of repeats its last one. Other arguments as above.
    """
    similarity, values = found.similarity[:, : presence.looked], found.vectors[:, : presence.looked]
    here = found.found[:, : presence.looked]
    if not here.all():
        last = np.minimum(np.arange(here.shape[1]), np.maximum(here.sum(axis=1), 1)[:, None] - 1)
        similarity = np.take_along_axis(similarity, last, axis=1)
        values = np.take_along_axis(values, last[..., None], axis=1)
    said = presence.of(presence_signals(query, similarity, values, mean, unit))
    return np.where(here[:, 0], said, np.float32(0.0))


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
    mean, unit = corpus.values[other(modality)].mean, corpus.units[modality]
    told = list[tuple[Floats, Floats]]()  # signals (n, 7) of each question of some pairs, and their answers (n,)
    for query, scores, hidden, answer in _ask(corpus, modality, rng.permutation(corpus.chosen)[:ASKED], rng):
        flat = scores.reshape(-1)
        seen = flat[hidden]
        flat[hidden] = -2.0
        found, near = nearest_columns(scores, looked)
        flat[hidden] = seen  # the same scores answer the next question
        del scores, flat  # but none a later one, which would be made beside them
        signals = presence_signals(query, near, corpus.side(other(modality))[found], mean, unit)
        told.append((signals, np.full(len(query), answer, np.float32)))
    signals, answers = (np.concatenate(part) for part in zip(*told, strict=True))
    return _boost(signals, answers.astype(np.float64), looked)


def _ask(
    corpus: Corpus, modality: Modality, rows: npt.NDArray[np.intp], rng: np.random.Generator
) -> Iterator[tuple[Vectors, Floats, npt.NDArray[np.intp], float]]:
    """Questions (n, D) of some pairs, scores (n, N) of all pairs, whose of them are hidden, and if an answer is left.

    Those are places in the scores, flat: there are few.
    """
    between = corpus.text[rows] @ corpus.text.T
    own = np.arange(len(rows)), rows
    identical, siblings = np.asarray(between > IDENTICAL), np.asarray(between > corpus.same_caption)
    identical[own] = siblings[own] = True
    if (siblings.sum(axis=1) == 1).mean() >= ALONE:  # what is like them is another thing
        siblings = identical
    held = corpus.side(modality)
    hidden = np.flatnonzero(siblings)
    if modality == "text":
        worded = np.asarray((siblings & ~identical).any(axis=1))
        same_words = np.flatnonzero(identical & worded[:, None])
        between.reshape(-1)[hidden] = -2.0
        others = nearest_columns(between, min(_NEAR, len(corpus)))[0]
        del between, identical, siblings  # as large as the scores
        for number in range(_PASSES):
            asks = worded if number % 2 else np.zeros_like(worded)
            towards = held[others[np.arange(len(rows)), rng.integers(0, others.shape[1], len(rows))]]
            cosine = np.where(asks, 1.0, rng.choice(COSINES, len(rows)))
            query = moved_towards(held[rows], towards, cosine)
            scores = query @ held.T
            yield query, scores, same_words if number % 2 else same_words[:0], 1.0
            yield query, scores, hidden, 0.0
            del scores
        return
    alone = siblings.sum(axis=1) == 1
    del between, identical, siblings
    scores = held[rows] @ held.T
    seen = scores[own]
    scores[own] = -2.0
    nearest = scores.max(axis=1)
    scores[own] = seen
    query = np.where(alone[:, None], other_view(held[rows], nearest, held, rng), held[rows])
    scores[alone] = query[alone] @ held.T
    yield query, scores, (np.arange(len(rows)) * len(corpus) + rows)[~alone], 1.0
    yield query, scores, hidden, 0.0


def moved_towards(x: Vectors, towards: Vectors, cosine: npt.NDArray[np.float64]) -> Vectors:
    """Vectors (n, D) moved towards others until each has its cosine (n,) with itself."""
    away = towards - (towards * x).sum(axis=1, keepdims=True) * x
    away /= np.linalg.norm(away, axis=1, keepdims=True) + 1e-9
    moved = cosine[:, None] * x + np.sqrt(1.0 - cosine**2)[:, None] * away
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


def _boost(signals: Floats, answers: npt.NDArray[np.float64], looked: int) -> Presence:
    """Trees that tell answers (M,), 1 or 0, by signals (M, 7): gradient boosting of the logistic loss."""
    rounds = np.linspace(0.0, 1.0, _BINS + 1)[1:-1]
    edges = np.quantile(signals, rounds, axis=0, method="nearest").astype(np.float32)  # (_BINS - 1, 7)
    places = np.stack([np.searchsorted(edges[:, s], signals[:, s]) for s in range(SIGNALS)], axis=1)
    logit = np.zeros(len(answers))
    never = np.finfo(np.float32).max  # finite, since what is learned is stored as JSON
    feature, threshold = np.zeros((_ROUNDS, 3), np.intp), np.full((_ROUNDS, 3), never, np.float32)
    leaf = np.zeros((_ROUNDS, 4), np.float32)
    for tree in range(_ROUNDS):
        likely = sigmoid(logit)
        slope, curvature = answers - likely, likely * (1.0 - likely)
        node = np.zeros(len(answers), np.intp)
        for depth in (0, 1):
            parts = _split(places, slope, curvature, node, 1 + depth)
            for part, (column, place) in enumerate(parts):
                at = part + depth
                if place >= 0:
                    feature[tree, at], threshold[tree, at] = column, edges[place, column]
            columns, cuts = (np.array(side)[node] for side in zip(*parts, strict=True))
            node = 2 * node + ((places[np.arange(len(node)), columns] > cuts) & (cuts >= 0))
        gain, weight = (np.bincount(node, one, 4) for one in (slope, curvature))
        leaf[tree] = _RATE * gain / (weight + _RIDGE)
        logit += leaf[tree][node]
    return Presence(looked, feature, threshold, leaf)


def _split(
    places: npt.NDArray[np.intp],
    slope: npt.NDArray[np.float64],
    curvature: npt.NDArray[np.float64],
    node: npt.NDArray[np.intp],
    nodes: int,
) -> list[tuple[int, int]]:
    """For each node the signal and the place that split it best; place -1 where nothing does."""
    cell = (places + _BINS * np.arange(SIGNALS) + (_BINS * SIGNALS * node)[:, None]).ravel()
    shape, size = (nodes, SIGNALS, _BINS), nodes * SIGNALS * _BINS
    weights = slope, curvature, np.ones_like(slope)
    sums = [np.bincount(cell, np.repeat(one, SIGNALS), size).reshape(shape).cumsum(axis=2) for one in weights]
    left, right = sums, [one[..., -1:] - one for one in sums]
    gain = sum(g**2 / (h + _RIDGE) for g, h, _ in (left, right))
    enough = (left[2] >= _FEWEST) & (right[2] >= _FEWEST)
    flat = np.where(enough, gain, -1.0).reshape(nodes, -1)
    best = flat.argmax(axis=1)
    known = flat[np.arange(nodes), best] > 0.0
    return [(int(at // _BINS), int(at % _BINS) if ok else -1) for at, ok in zip(best, known, strict=True)]
