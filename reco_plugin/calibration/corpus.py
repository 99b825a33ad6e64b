"""The memory's pairs as the fit sees them: moments and neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..types import Modality, Vectors, other
from .metric import Metric, measure_metric
from .moments import Values, measure_values, rank_for
from .nearest import NearestRows, nearest_rows

MOMENTS = 20_000
"""Pairs that the moments are measured on, at most."""
FEWEST_CAPTIONS = 5
_SAMPLE = 2_000


@dataclass(frozen=True)
class Corpus:
    """Measured pairs.

    Attributes:
        image, text: (N, D) unit-norm.
        values: moments of each modality.
        metric: of images, also by fold.
        spreads: standard deviation of similarity within each modality.
        units: mean standard deviation of a query's plain scores over the values, by the query's modality.
        same_caption: cosine from which two captions mean the same.
        own: (N,) CLIP's own score of each pair, in standard deviations.
        near_text: the K nearest captions (N, K) of others.
        chosen: rows that the moments were measured on.
    """

    image: Vectors
    text: Vectors
    values: Mapping[Modality, Values]
    metric: Metric
    spreads: Mapping[Modality, float]
    units: Mapping[Modality, float]
    same_caption: float
    chosen: npt.NDArray[np.intp]
    own: npt.NDArray[np.float32]
    near_text: NearestRows

    def __len__(self) -> int:
        return len(self.image)

    def side(self, modality: Modality) -> Vectors:
        """Vectors (N, D) of a modality."""
        return self.image if modality == "image" else self.text


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
    cosine = np.einsum("nd,nd->n", image, text)
    own = own_scores(cosine, values, units["image"])
    near = nearest_rows(text, text, min(k, len(text) - 1), progress, others=True)
    metric = measure_metric(image, values["image"], chosen, near, same, spreads["text"])
    values["image"] = replace(values["image"], precision=metric.whole)
    return Corpus(image, text, values, metric, spreads, units, same, chosen, own, near)


def own_scores(
    cosine: npt.NDArray[np.float32], values: Mapping[Modality, Values], unit: float
) -> npt.NDArray[np.float32]:
    """CLIP's own scores of pairs, in standard deviations of those of shuffled ones, of any shape.

    Args:
        cosine: of image and caption.
        values: moments of each modality.
        unit: mean standard deviation of an image's scores over the captions.
    """
    return np.asarray((cosine - values["image"].mean @ values["text"].mean) / np.float32(unit), np.float32)


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
