"""The memory's pairs as the fit sees them: moments and neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..fusion.evidence import IDENTICAL, likeness
from ..types import Modality, Vectors, other
from .moments import Values, measure_values
from .nearest import NearestRows, RowNumbers, nearest_rows

MOMENTS = 20_000
"""Pairs that the moments are measured on, at most."""
FEWEST_CAPTIONS = 5
_SAMPLE = 2_000
_REPEATED = 0.1  # share of captions whose words are those of another one, from which words repeat


@dataclass(frozen=True)
class Corpus:
    """Measured pairs.

    Attributes:
        image, text: (N, D) unit-norm.
        values: moments of each modality.
        spreads: standard deviation of similarity within each modality.
        units: mean standard deviation of a query's plain scores over the values, by the query's modality.
        same_caption: cosine from which two captions mean the same.
        same_thing: cosine from which two are of one thing: the same words, or where words hardly repeat, the same.
        caption: (N,) number of each pair's caption.
        first: (C,) a pair of each caption.
        near_text: the K nearest captions (N, K) of others.
        chosen: rows that the moments were measured on.
        apart: median distance of a caption to the next one.
    """

    image: Vectors
    text: Vectors
    values: Mapping[Modality, Values]
    spreads: Mapping[Modality, float]
    units: Mapping[Modality, float]
    same_caption: float
    same_thing: float
    caption: RowNumbers
    first: RowNumbers
    near_text: NearestRows
    chosen: RowNumbers
    apart: float

    def __len__(self) -> int:
        return len(self.image)

    def side(self, modality: Modality) -> Vectors:
        """Vectors (N, D) of a modality."""
        return self.image if modality == "image" else self.text

    def company(self, rows: RowNumbers) -> NearestRows:
        """The pairs (n, K + 1) with the captions nearest to those of some, which come first, and how alike they are."""
        near = np.concatenate([rows[:, None], self.near_text[0][rows]], axis=1)
        similarity = np.concatenate([np.ones((len(rows), 1), np.float32), self.near_text[1][rows]], axis=1)
        return near, likeness(1 - similarity, self.apart)


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
    some = text[rng.permutation(chosen)[:_SAMPLE]]
    same, near = same_from(some @ some.T), nearest_rows(text, text, min(k, len(text) - 1), progress, others=True)
    thing = _same_thing(near[1][:, 0], same)
    first, caption = _captions(text, near, thing)
    sides: dict[Modality, Vectors] = {"image": image, "text": text}
    if len(first) < FEWEST_CAPTIONS or any(float(side[chosen].var(axis=0).sum()) < 1e-6 for side in sides.values()):
        return None
    values: dict[Modality, Values] = {"image": measure_values(image[chosen]), "text": measure_values(text[first])}
    spreads, units = dict[Modality, float](), dict[Modality, float]()
    for modality, side in sides.items():
        spreads[modality] = max(deviation_of_cosines(side[chosen]), 1e-4)
        units[modality] = float(values[other(modality)].covariance.length(side[chosen]).mean())
    apart = max(float(np.median(1 - _nearest_other(text[first[rng.permutation(len(first))[:_SAMPLE]]]))), 1e-3)
    return Corpus(image, text, values, spreads, units, same, thing, caption, first, near, chosen, apart)


def _same_thing(nearest: npt.NDArray[np.float32], same: float) -> float:
    """Cosine from which two captions are of one thing, by that of each with the nearest other one (N,).

    Where hardly any words repeat, and most captions have another that means the same, things are told in many words.
    """
    repeated, alike = float((nearest >= IDENTICAL).mean()), float((nearest >= same).mean())
    return same if repeated < _REPEATED and alike >= 0.5 else IDENTICAL


def _captions(text: Vectors, near: NearestRows, thing: float) -> tuple[RowNumbers, RowNumbers]:
    """A pair of each caption (C,), and the number (N,) of each pair's caption."""
    rounded = (text * 4096).round().astype(np.int16)
    _, first, caption = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    alike, group = near[1] >= thing, first[caption.ravel()]
    before = np.full(len(group), -1)
    while (group != before).any():  # each takes the lowest number around, until none changes
        before = group
        group = np.minimum(group, np.where(alike, group[near[0]], len(group)).min(axis=1))
        np.minimum.at(group, near[0][alike], np.repeat(group, alike.sum(axis=1)))
        group = group[group]
    first, caption = np.unique(group, return_inverse=True)
    return first, caption.ravel()


def _nearest_other(x: Vectors) -> npt.NDArray[np.float32]:
    """Cosine (n,) of each row with the nearest other one."""
    return nearest_rows(x, x, 1, others=True)[1][:, 0]


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
