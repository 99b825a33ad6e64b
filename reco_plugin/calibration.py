"""The gate's constants, measured on the memory's own pairs; no labels are needed.

Sampled pairs are searched for twice: with the pairs of the same caption visible, so that the memory holds the answer,
and with those hidden, so that it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from .defaults import NEIGHBOURS
from .errors import ConfigError
from .types import Vectors

_ENOUGH = 50  # pairs that share their caption with another; below, a fit would be noise
_SAME = 0.5  # captions this far from a chance match (0) to identity (1) mean the same thing
_PLENTY = 256  # rows are enough for a quantile


@dataclass(frozen=True)
class Calibration:
    """Constants of the gate for one memory. The defaults are the safe ones for a memory too small to measure.

    Attributes:
        same_caption: cosine from which two captions mean the same thing.
        image_similarity: logit per unit of image-image cosine.
        image_standout: logit per unit of cosine above the mean of the neighbours.
        image_bias: logit at zero.
        image_loudness: spread of an image query's scores over captions / spread of a caption's; at most 1.
        text_loudness: the same for text queries and images.
        honesty: how reliable captions are: 0 where images of one caption are no more alike than any two, 1
            where they always are (Somers' D).
        alignment: how well the encoder matches the pairs: 0 where an image is as near to any caption as to its own, 1
            where it is always nearer to its own (Somers' D).
        neighbours: K of the searches that were simulated; gate with about this many.
    """

    same_caption: float = 0.95
    image_similarity: float = 0.0
    image_standout: float = 25.0
    image_bias: float = -4.0
    image_loudness: float = 0.25
    text_loudness: float = 0.25
    honesty: float = 1.0
    alignment: float = 1.0
    neighbours: int = NEIGHBOURS

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-like values, for the header of a memory."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Calibration:
        """Read :meth:`to_dict` back.

        Raises:
            ConfigError: a field is missing or unknown, or is not a finite number.
        """
        names = {field.name for field in fields(cls)}
        if names != set(stored):
            raise ConfigError(f"calibration has {sorted(stored)}, not {sorted(names)}: calibrate the memory again")
        if bad := [name for name, value in stored.items() if not isinstance(value, int | float) or not isfinite(value)]:
            raise ConfigError(f"calibration holds no finite number in {bad}: calibrate the memory again")
        return cls(**stored)


def calibrate(
    image: Vectors, text: Vectors, *, neighbours: int = NEIGHBOURS, seed: int = 0, sample: int = 2048
) -> Calibration:
    """Measure the gate's constants on the memory's own pairs, (N, D) each.

    Defaults of :class:`Calibration` stay where there is too little to measure: all of them below ten pairs, the image
    logits below fifty sampled pairs that share their caption with another.

    Args:
        image: (N, D) unit-norm; pass the whole memory where it is small.
        text: (N, D) unit-norm; row i belongs to image i.
        neighbours: K of the searches to come.
        seed: of the sample; the same memory and seed give the same constants.
        sample: S, the pairs that are searched for, among at most four times as many.
    """
    if len(image) < 10:
        return Calibration(neighbours=neighbours)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(image))[: 4 * sample]
    image, text = np.asarray(image[rows], np.float32), np.asarray(text[rows], np.float32)
    captions = text[:sample] @ text.T  # (S, N)
    others = ~np.eye(*captions.shape, dtype=np.bool_)
    chance = _chance_match(captions[:_PLENTY][others[:_PLENTY]])
    same_caption = min(0.999, chance + _SAME * (1.0 - chance))
    siblings = (captions > same_caption) & others
    return Calibration(
        same_caption,
        *_fit_image_gate(image, siblings, others, neighbours),
        image_loudness=_measure_loudness(image[:sample], text[:sample]),
        text_loudness=_measure_loudness(text[:sample], image[:sample]),
        honesty=_measure_honesty(image, siblings, rng),
        alignment=_measure_alignment(image, text, rng),
        neighbours=neighbours,
    )


def _fit_image_gate(
    image: Vectors, siblings: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_], neighbours: int
) -> tuple[float, float, float]:
    """Fit the logit of "an image neighbour has the query's caption"; images (N, D), siblings and others (S, N)."""
    answered = np.flatnonzero(siblings.any(axis=1))
    if len(answered) < _ENOUGH:
        return Calibration.image_similarity, Calibration.image_standout, Calibration.image_bias
    scores = image[answered] @ image.T  # (Q, N)
    k, signals, relevant = min(neighbours, len(image)), [], []
    for visible in (others[answered], others[answered] & ~siblings[answered]):
        masked = np.where(visible, scores, -2.0)
        nearest = np.argpartition(-masked, k - 1, axis=1)[:, :k]  # (Q, K)
        similarity = np.take_along_axis(masked, nearest, axis=1)
        found = similarity > -2.0
        signals.append(np.stack([similarity, standout(similarity, found)], axis=-1)[found])
        relevant.append(np.take_along_axis(siblings[answered], nearest, axis=1)[found])
    return logistic(np.concatenate(signals), np.concatenate(relevant))


def _chance_match(cosines: npt.NDArray[np.float32]) -> float:
    """Cosine that one in a hundred pairs of unrelated captions reach; cosines are (M,).

    The 0.99 quantile, but no further from the median than it would be for a normal distribution with the same upper
    quartile: where a class holds more than a hundredth of the pairs, that quantile is among captions of one class.

    >>> unrelated = np.linspace(0.2, 0.6, 96)  # and five pairs of siblings beside them
    >>> round(_chance_match(unrelated), 2), round(_chance_match(np.append(unrelated, [0.99] * 5)), 2)
    (0.6, 0.78)
    """
    middle, upper, high = np.quantile(cosines, (0.5, 0.75, 0.99))
    return float(min(high, middle + 3.5 * (upper - middle)))


def _measure_honesty(image: Vectors, siblings: npt.NDArray[np.bool_], rng: np.random.Generator) -> float:
    """Somers' D of images (N, D) of one caption, by siblings (S, N), against any two: 1 where always nearer."""
    row, column = np.nonzero(siblings)
    if len(row) < _ENOUGH:
        return 1.0
    pick = rng.integers(0, len(row), 4096)
    a, b, anyone = image[row[pick]], image[column[pick]], image[rng.integers(0, len(image), len(pick))]
    alike = np.sum(a * b, axis=1) > np.sum(a * anyone, axis=1)
    return float(max(0.0, 2.0 * alike.mean() - 1.0))


def _measure_alignment(image: Vectors, text: Vectors, rng: np.random.Generator) -> float:
    """Somers' D of an image's own caption against others, (N, D) each: 1 where its cosine is always the higher one."""
    own = np.sum(image * text, axis=1)
    nearer = [own > np.sum(image * text[rng.permutation(len(text))], axis=1) for _ in range(8)]
    return float(max(0.0, 2.0 * np.mean(nearer) - 1.0))


def standout(similarity: npt.NDArray[np.float32], found: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Similarity above the mean of the found neighbours, all (B, K)."""
    mean = np.sum(similarity * found, axis=1, keepdims=True) / np.maximum(found.sum(axis=1, keepdims=True), 1)
    return np.asarray(similarity - mean, np.float32)


def _measure_loudness(query: Vectors, candidate: Vectors) -> float:
    """Spread of the scores of queries (S, D) over candidates (S, D), relative to that among candidates; at most 1."""
    across, within = (float((side @ candidate.T).std(axis=1).mean()) for side in (query, candidate))
    return min(1.0, across / max(within, 1e-6))


def logistic(signals: npt.NDArray[np.float32], target: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Ridge logistic regression of (M,) on two standardised signals (M, 2) by Newton's method; raw weights, bias."""
    centre, scale = signals.mean(axis=0), signals.std(axis=0) + 1e-6
    x = np.column_stack([(signals - centre) / scale, np.ones(len(signals))]).astype(np.float64)  # (M, 3)
    weight = np.zeros(3)
    for _ in range(20):
        p = sigmoid(x @ weight)
        curvature = x.T @ (x * (p * (1.0 - p))[:, None]) + np.eye(3)
        weight += np.linalg.solve(curvature, x.T @ (target - p) - weight)
    raw = weight[:2] / scale
    return float(raw[0]), float(raw[1]), float(weight[2] - raw @ centre)


def sigmoid(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Logistic function, of any shape."""
    bounded = np.clip(x, -30.0, 30.0)  # never quite 0, so that a trust of 0 means "nothing found"
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)))
