"""The memory's pairs as the fit sees them: moments, neighbours and reliability."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..types import MODALITIES, Modality, Vectors, other
from .moments import LowRank, Values, low_rank, measure_values, rank_for
from .nearest import NearestRows, nearest_rows
from .reliability import Judges, Reliability, judge, learn_reliability

MOMENTS = 20_000
"""Pairs that the moments are measured on, at most."""
FEWEST_CAPTIONS = 5
SHUFFLED = 2_000
"""Shuffled pairs that reliability is learned from, at least: of 354 that were shuffled once, it was left to chance how
many captions looked wrong."""
_BLOCK, _SAMPLE = 1_000, 2_000


@dataclass(frozen=True)
class Corpus:
    """Measured pairs.

    Attributes:
        image, text: (N, D) unit-norm.
        values: moments of each modality.
        spreads: standard deviation of similarity within each modality.
        units: mean standard deviation of a query's plain scores over the values, by the query's modality.
        same_caption: cosine from which two captions mean the same.
        near: neighbours (N, K + 1) within each modality: one more than is used, so that one can be left out.
        learned: reliability.
        caption_scores: (N, 3) of each pair.
        counts: (N,) how much each counts where it judges others: its reliability, as judged before.
        chosen: rows that the moments were measured on.
    """

    image: Vectors
    text: Vectors
    values: Mapping[Modality, Values]
    spreads: Mapping[Modality, float]
    units: Mapping[Modality, float]
    same_caption: float
    chosen: npt.NDArray[np.intp]
    near: Mapping[Modality, NearestRows] = field(default_factory=dict)
    learned: Reliability = field(default_factory=lambda: Reliability(np.zeros(4), 0.0))
    caption_scores: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    counts: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.image)

    @property
    def own(self) -> float:
        """Mean of CLIP's own scores of the pairs."""
        return float(self.caption_scores[:, 2].mean())

    def side(self, modality: Modality) -> Vectors:
        """Vectors (N, D) of a modality."""
        return self.image if modality == "image" else self.text

    def near_without_last(self, modality: Modality, rows: npt.NDArray[np.intp]) -> NearestRows:
        """The K nearest others of pairs; the one more that is kept stands in for one that is left out."""
        places, similarity = self.near[modality]
        return places[rows][:, :-1], similarity[rows][:, :-1]

    def reliability_of(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Reliability of pairs, of the shape of ``rows``."""
        return self.learned.of(self.caption_scores[rows])

    def reliability_without(self, askers: npt.NDArray[np.intp], found: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Reliability of found pairs (n, K) as it is without the pair that asks (n,): else it knows the answer."""
        reliability = self.reliability_of(found)
        hit = np.zeros(found.shape, np.bool_)
        for modality in MODALITIES:
            hit |= (self.near[modality][0][found] == askers[:, None, None]).any(axis=2)
        asks, column = np.nonzero(hit)
        if len(asks):
            pairs, near = found[asks, column], {}
            for modality in MODALITIES:
                rows, similarity = self.near[modality][0][pairs], self.near[modality][1][pairs].copy()
                similarity[rows == askers[asks][:, None]] = -3.0
                order = np.argsort(-similarity, axis=1, kind="stable")[:, : rows.shape[1] - 1]
                near[modality] = np.take_along_axis(rows, order, 1), np.take_along_axis(similarity, order, 1)
            reliability[asks, column] = self.learned.of(score_captions(self, pairs, near))
        return reliability


def measure_corpus(
    image: Vectors,
    text: Vectors,
    *,
    k: int,
    rng: np.random.Generator,
    progress: Callable[[int], object] = int,
) -> Corpus | None:
    """Measure pairs (N, D), float32 and unit-norm; None where there is nothing to measure.

    That is: a modality that is (nearly) constant, or fewer than five captions.
    """
    chosen = rng.permutation(len(image))[:MOMENTS]
    captions = len(np.unique((text[chosen] * 4096).round().astype(np.int16), axis=0))
    sides: dict[Modality, Vectors] = {"image": image, "text": text}
    if captions < FEWEST_CAPTIONS or any(float(side[chosen].var(axis=0).sum()) < 1e-6 for side in sides.values()):
        return None
    rank = rank_for(len(chosen))
    values: dict[Modality, Values] = {
        "image": measure_values(image[chosen], distinct=len(chosen), rank=rank),
        "text": measure_values(text[chosen], distinct=captions, rank=rank),
    }
    spreads, units = dict[Modality, float](), dict[Modality, float]()
    for modality, side in sides.items():
        spreads[modality] = max(deviation_of_cosines(side[chosen]), 1e-4)
        units[modality] = float(values[other(modality)].covariance.length(side[chosen]).mean())
    some = text[rng.permutation(chosen)[:_SAMPLE]]
    same = same_from(some @ some.T)
    k = min(k + 1, len(image) - 1)
    near = {m: nearest_rows(side, side, k, progress, others=True) for m, side in sides.items()}
    corpus = Corpus(image, text, values, spreads, units, same, chosen, near)
    return _with_scatter(_with_reliability(corpus, rng))


def score_captions(
    corpus: Corpus,
    rows: npt.NDArray[np.intp],
    near: Mapping[Modality, NearestRows] | None = None,
    captions: npt.NDArray[np.intp] | None = None,
) -> npt.NDArray[np.float32]:
    """Caption scores (M, 3) of pairs, by the given neighbours (M, K) or by their own.

    Args:
        corpus: measured pairs.
        rows: (M,) of them.
        near: neighbours by each modality; None: their own.
        captions: (M,) rows whose captions stand beside their images; None: their own.
    """
    near = near or {modality: corpus.near_without_last(modality, rows) for modality in MODALITIES}
    return _judge(corpus, corpus.image[rows], corpus.text[rows if captions is None else captions], near)


def score_other_captions(
    corpus: Corpus, image: Vectors, text: Vectors, progress: Callable[[int], object] = int
) -> npt.NDArray[np.float32]:
    """Caption scores (M, 3) of pairs (M, D) that are not of the corpus, by their neighbours in it.

    ``progress`` gets the number of pairs each time that their neighbours were found, twice for each pair.
    """
    asked: dict[Modality, Vectors] = {"image": image, "text": text}
    k = corpus.near["image"][0].shape[1] - 1
    near = {m: nearest_rows(side, corpus.side(m), k, progress) for m, side in asked.items()}
    return _judge(corpus, image, text, near)


def _judge(
    corpus: Corpus, image: Vectors, text: Vectors, near: Mapping[Modality, NearestRows]
) -> npt.NDArray[np.float32]:
    """Caption scores (M, 3) of pairs (M, D) by their neighbours in the corpus, (M, K)."""

    def say(start: int) -> npt.NDArray[np.float32]:
        block = slice(start, start + _BLOCK)
        found = {
            m: Judges(at[block], corpus.side(other(m))[rows[block]], corpus.counts[rows[block]])
            for m, (rows, at) in near.items()
        }
        return judge(corpus.values, corpus.spreads, {"image": image[block], "text": text[block]}, found)

    return np.concatenate([np.zeros((0, 3), np.float32), *map(say, range(0, len(image), _BLOCK))])


def deviation_of_cosines(x: Vectors) -> float:
    """Standard deviation of the cosines of all pairs of rows (N, D), those with themselves included.

    >>> round(deviation_of_cosines(np.float32([[1, 0], [0.6, 0.8], [0, 1]])), 3)
    0.374
    """
    mean, moments = x.mean(axis=0), x.T @ x / np.float32(len(x))
    return float(np.sqrt(max(float((moments**2).sum()) - float(mean @ mean) ** 2, 0.0)))


def same_from(cosines: npt.NDArray[np.float32]) -> float:
    """Cosine (M,) halfway from a chance match to identity.

    A chance match is the .99 quantile, but no further from the median than for a normal distribution of the same upper
    quartile: where one caption is frequent, that quantile lies among its own pairs.
    """
    different = cosines[cosines < 0.9999]
    if not len(different):
        return 0.95
    middle, upper, high = np.quantile(different, (0.5, 0.75, 0.99))
    chance = float(min(high, middle + 3.5 * (upper - middle)))
    return chance + 0.5 * (1.0 - chance)


def _with_reliability(corpus: Corpus, rng: np.random.Generator) -> Corpus:
    """Learn reliability on the chosen rows, few ones several times, and score all captions.

    Twice: at first, a wrong neighbour speaks as loudly as a right one, and then by how reliable it was.
    """
    rows = np.tile(corpus.chosen, times := -(-SHUFFLED // len(corpus.chosen)))
    others = np.concatenate([rng.permutation(corpus.chosen) for _ in range(times)])  # whose captions stand beside them
    near = {m: corpus.near_without_last(m, of) for m, of in zip(MODALITIES, (rows, others), strict=True)}
    everything, counts, wrong = np.arange(len(corpus)), np.ones(len(corpus), np.float32), 0.0
    for _ in range(2):
        corpus = replace(corpus, counts=counts)
        caption_scores = score_captions(corpus, everything)
        learned = learn_reliability(caption_scores[rows], score_captions(corpus, rows, near, others))
        wrong = max(wrong, learned.wrong)  # at first, no neighbour has met the pair that it judges
        learned = replace(learned, wrong=wrong)
        counts = learned.of(caption_scores)
    learned = replace(learned, mean=float(counts.mean()))
    return replace(corpus, learned=learned, caption_scores=caption_scores)


def _with_scatter(corpus: Corpus) -> Corpus:
    """Give image values Fisher's metric: how images of like captions differ, weighted by reliability."""
    rows = corpus.chosen
    places, similarity = corpus.near_without_last("text", rows)
    weights = np.maximum(similarity - corpus.same_caption, 0.0) * corpus.reliability_of(places)
    weights = weights * corpus.reliability_of(rows)[:, None]
    total = weights.sum(axis=1, keepdims=True)
    answered = total[:, 0] > 1e-3
    if answered.sum() < 50:
        return corpus
    weights = (weights / np.maximum(total, 1e-9)).astype(np.float32)
    mean = np.zeros_like(corpus.image[rows])
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        mean[block] = np.matmul(weights[block, None], corpus.image[places[block]])[:, 0]
    residual = ((corpus.image[rows] - mean) * np.sqrt(corpus.reliability_of(rows))[:, None])[answered]
    before = corpus.values["image"]
    scatter: LowRank = low_rank(residual.T @ residual / len(residual), rank_for(len(residual)))
    precision = scatter.inverse(residual.shape[1] / len(residual))
    image = replace(before, precision=precision)
    return replace(corpus, values={**corpus.values, "image": image})
