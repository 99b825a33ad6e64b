"""How far to trust each retrieved pair, and the fusion that needs no training.

Two observations carry this module; both hold for CLIP ViT-B/32 and for a mini CLIP of a quite different geometry.

*Ask what the encoder has not said yet.* Whether a retrieved caption fits the query image (their cosine) is
already part of every score that the query will get; weighting by it only repeats the frozen model, errors included.
Image-image similarity is new evidence, above all how far a neighbour **stands out** from the others that were found.
For a text query, the likeness of the captions says nearly all. Hence uni-modal search, cross-modal fusion only.

*Let a neighbour speak as loudly as the query.* Across a modality gap, the query tells candidates apart by small
differences; a vector of the candidates' own modality tells them apart by large ones and drowns it. The ratio of
these spreads, the **loudness**, brings one fusion strength to every encoder.

What depends on encoder or memory is measured on the memory, by :func:`calibrate`: sampled pairs are asked for twice,
with the pairs of the same caption visible (the memory holds the answer) and with those hidden (it does not).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .types import Modality, Vectors

STRENGTH: Mapping[Modality, float] = {"image": 0.75, "text": 1.0}
"""Length of what all neighbours together add to a query of length 1, at full trust."""
_ENOUGH = 50  # pairs that share their caption with another; below, a fit would be noise
_SAME = 0.5  # captions this far from a chance match (0) to identity (1) mean the same thing
_PLENTY = 256  # rows are enough for a quantile
_STEEPNESS = 8.0  # of the text gate, so that a chance match is trusted with exp(-8)


@dataclass(frozen=True)
class Calibration:
    """Constants of the gate for one memory. The defaults are the safe ones for a memory too small to measure.

    Attributes:
        same_caption: cosine from which two captions mean the same thing.
        image_similarity: logit per unit of image-image cosine.
        image_standout: logit per unit of cosine above the mean of the neighbours.
        image_bias: logit at zero.
        image_loudness: spread of an image query's scores over captions / spread of a caption's; at most 1.
        text_loudness: the same for text queries and images, times how far captions can be believed.
        neighbours: K of the searches that were simulated; gate with about this many.
    """

    same_caption: float = 0.95
    image_similarity: float = 0.0
    image_standout: float = 25.0
    image_bias: float = -4.0
    image_loudness: float = 0.25
    text_loudness: float = 0.25
    neighbours: int = 10

    def to_dict(self) -> dict[str, Any]:
        """JSON-like, for the header of a memory."""
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


def calibrate(image: Vectors, text: Vectors, *, neighbours: int = 10, seed: int = 0, sample: int = 2048) -> Calibration:
    """Measure the gate's constants on the memory's own pairs; no labels are needed.

    Defaults of :class:`Calibration` stay where there is too little to measure: all of them below ten pairs, the image
    logits below fifty sampled pairs that share their caption with another.

    Args:
        image: (N, D) unit-norm; pass the whole memory where it is small.
        text: (N, D) unit-norm; row i belongs to image i.
        neighbours: K of the searches to come.
        seed: of the sample; the same memory and seed give the same constants.
        sample: pairs that are asked for, among at most four times as many.
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
        image_loudness=_loudness(image[:sample], text[:sample]),
        text_loudness=_loudness(text[:sample], image[:sample]) * _caption_honesty(image, siblings, rng),
        neighbours=neighbours,
    )


def trust(
    calibration: Calibration, modality: Modality, similarity: npt.NDArray[np.float32], found: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Say how loudly each neighbour may speak: the chance that it answers the query, times the loudness.

    Args:
        calibration: of the memory that was searched.
        modality: of the query.
        similarity: (B, K) cosine between query and neighbour, within the modality.
        found: (B, K) False where padded.

    Returns:
        (B, K) float32 in [0, 1]; 0 where nothing was found.
    """
    c = calibration
    if modality == "image":
        logit = c.image_similarity * similarity + c.image_standout * _standout(similarity, found) + c.image_bias
        chance, loudness = _sigmoid(logit), c.image_loudness
    else:
        chance = _sigmoid(_STEEPNESS * (similarity - c.same_caption) / (1.0 - c.same_caption))
        loudness = c.text_loudness
    return np.where(found, loudness * chance, 0.0).astype(np.float32)


def level(
    calibration: Calibration, modality: Modality, trust: npt.NDArray[np.float32], *, height: float = 0.3
) -> npt.NDArray[np.float32]:
    """Trust for candidates, which compete: each moves equally far, and texts all move or none does.

    A candidate that moves towards the other modality wins every query from those that move less, right or wrong.
    Images bear a move towards captions that fit badly; of texts, nine in ten must have found their own caption.

    >>> level(Calibration(), "image", np.float32([[0.2, 0.1], [0.02, 0.01]]), height=1.0)
    array([[0.25 , 0.125],
           [0.25 , 0.125]], dtype=float32)

    Args:
        calibration: of the memory that was searched.
        modality: of the candidates.
        trust: (B, K) from :func:`trust`; for texts, of all the candidates at once.
        height: share of the loudness that the best neighbour of each candidate gets; less than a query may have.
    """
    loudness = calibration.image_loudness if modality == "image" else calibration.text_loudness
    best = trust.max(axis=1, keepdims=True, initial=0.0)  # (B, 1)
    if modality == "text" and np.mean(best >= 0.5 * loudness) < 0.9:
        return np.zeros_like(trust)
    return np.asarray(height * loudness * trust / np.where(best > 0.0, best, 1.0), np.float32)


def fuse_training_free(
    modality: Modality, query: Vectors, values: npt.NDArray[np.float32], trust: npt.NDArray[np.float32]
) -> tuple[Vectors, npt.NDArray[np.float32]]:
    """Add what was found to the query: the best neighbour's trust says how much, the others' share says what.

    ``refined = normalise(query + sum_i weight_i * value_i)`` with
    ``weight_i = STRENGTH[modality] * max(trust) * trust_i / sum(trust)``.

    >>> query, values = np.float32([[1, 0, 0]]), np.float32([[[0, 1, 0], [0, 0, 1]]])
    >>> refined, weights = fuse_training_free("text", query, values, np.float32([[0.75, 0.0]]))
    >>> weights  # 1 * 0.75 * 1, and nothing for the second
    array([[0.75, 0.  ]], dtype=float32)
    >>> refined  # (1, 0.75, 0) / 1.25
    array([[0.8, 0.6, 0. ]], dtype=float32)

    Args:
        modality: of the query.
        query: (B, D) unit-norm.
        values: (B, K, D) the neighbours' vectors of the other modality.
        trust: (B, K) in [0, 1], from :func:`trust` or :func:`level`; 0 where padded.

    Returns:
        Refined vectors (B, D), bit for bit the query where no neighbour has any trust, and the weights (B, K).
    """
    total = trust.sum(axis=1, keepdims=True)  # (B, 1)
    best = trust.max(axis=1, keepdims=True, initial=0.0)
    weights = np.asarray(STRENGTH[modality] * best * trust / np.where(total > 0.0, total, 1.0), np.float32)
    moved = query + np.einsum("bk,bkd->bd", weights, values)
    norm = np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
    return np.where(total > 0.0, moved / norm, query).astype(np.float32), weights


def _fit_image_gate(
    image: Vectors, siblings: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_], neighbours: int
) -> tuple[float, float, float]:
    """Logit of "an image neighbour has the query's caption"; siblings and others are (S, N), True where visible."""
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
        signals.append(np.stack([similarity, _standout(similarity, found)], axis=-1)[found])
        relevant.append(np.take_along_axis(siblings[answered], nearest, axis=1)[found])
    return _logistic(np.concatenate(signals), np.concatenate(relevant))


def _chance_match(cosines: npt.NDArray[np.float32]) -> float:
    """Cosine that one in a hundred pairs of unrelated captions reach.

    The 0.99 quantile, but no further from the median than it would be for a normal distribution with the same upper
    quartile: where a class holds more than a hundredth of the pairs, that quantile lies among captions of one class.

    >>> unrelated = np.linspace(0.2, 0.6, 96)  # and five pairs of siblings beside them
    >>> round(_chance_match(unrelated), 2), round(_chance_match(np.append(unrelated, [0.99] * 5)), 2)
    (0.6, 0.78)
    """
    middle, upper, high = np.quantile(cosines, (0.5, 0.75, 0.99))
    return float(min(high, middle + 3.5 * (upper - middle)))


def _caption_honesty(image: Vectors, siblings: npt.NDArray[np.bool_], rng: np.random.Generator) -> float:
    """0 where images of one caption are no more alike than any two, 1 where they always are (Somers' D)."""
    row, column = np.nonzero(siblings)
    if len(row) < _ENOUGH:
        return 1.0
    pick = rng.integers(0, len(row), 4096)
    a, b, anyone = image[row[pick]], image[column[pick]], image[rng.integers(0, len(image), len(pick))]
    alike = np.sum(a * b, axis=1) > np.sum(a * anyone, axis=1)
    return float(max(0.0, 2.0 * alike.mean() - 1.0))


def _standout(similarity: npt.NDArray[np.float32], found: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Similarity above the mean of what was found, (B, K)."""
    mean = np.sum(similarity * found, axis=1, keepdims=True) / np.maximum(found.sum(axis=1, keepdims=True), 1)
    return np.asarray(similarity - mean, np.float32)


def _loudness(query: Vectors, candidate: Vectors) -> float:
    """Spread of the scores of queries over candidates, relative to the spread among the candidates; at most 1."""
    across, within = (query @ candidate.T).std(axis=1).mean(), (candidate @ candidate.T).std(axis=1).mean()
    return float(min(1.0, across / max(within, 1e-6)))


def _logistic(signals: npt.NDArray[np.float32], target: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Ridge logistic regression on two standardised signals (M, 2) by Newton's method; weights in raw units, bias."""
    centre, scale = signals.mean(axis=0), signals.std(axis=0) + 1e-6
    x = np.column_stack([(signals - centre) / scale, np.ones(len(signals))]).astype(np.float64)  # (M, 3)
    weight = np.zeros(3)
    for _ in range(20):
        p = _sigmoid(x @ weight)
        curvature = x.T @ (x * (p * (1.0 - p))[:, None]) + np.eye(3)
        weight += np.linalg.solve(curvature, x.T @ (target - p) - weight)
    raw = weight[:2] / scale
    return float(raw[0]), float(raw[1]), float(weight[2] - raw @ centre)


def _sigmoid(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    bounded = np.clip(x, -30.0, 30.0)  # never quite 0, so that a trust of 0 means "nothing found"
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)))
