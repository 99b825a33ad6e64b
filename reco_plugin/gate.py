"""How far to trust each retrieved pair, and the fusion that needs no training.

Three observations carry this module; they hold for CLIP ViT-B/32 and for a mini CLIP of a quite different geometry.

*Weigh by new evidence.* How well a retrieved caption fits the query image (their cosine) is already part of every
score of that query; weighting by it repeats the frozen model, errors included. Image-image similarity is new evidence,
above all how far a neighbour **stands out** from the others that were found. For a text query, the similarity of the
captions says nearly all. Hence uni-modal search and cross-modal fusion only.

*Scale neighbours to the query.* Across a modality gap, the scores of a query over the candidates spread little; those
of a vector of the candidates' own modality spread much and dominate. The ratio of the two spreads (``image_loudness``,
``text_loudness``) makes one fusion strength fit every encoder.

*Refine less where there is something to lose.* An encoder that already recognises what a memory shows is better than
wrong captions; one that does not has nothing to lose. How reliable the captions are (``honesty``) and how well the
encoder matches images with their captions (``alignment``) are measured too.

What depends on encoder or memory is measured on the memory (:mod:`reco_plugin.calibration`). A trained fusion brings a
:class:`TextGate` of its own, fitted on pairs whose groups are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .calibration import Calibration, sigmoid, standout
from .defaults import CANDIDATE_HEIGHT
from .types import Coverage, Modality, Role, Vectors

STRENGTH: Mapping[Modality, float] = {"image": 0.75, "text": 1.0}
"""Length of what all neighbours together add to a query of length 1, at full trust."""
_STEEPNESS = 8.0  # of the text gate, so that a chance match gets a trust of exp(-8)
_COVERED = 2 / 3  # share of the candidates that must have found their own caption, or none moves
_RIVALS = 60  # captions; an encoder that finds an image's own one among them needs no memory
_WRONG = 3.0  # the share of wrong captions, squared and inverted, at which an encoder that knows all is not refined


@dataclass(frozen=True)
class TextGate:
    """A trained fusion's trust in the neighbours of a text query: logistic in similarity and stand-out.

    Attributes:
        similarity, standout, bias: coefficients of the logit that a neighbour shows what the query asks for.
        answered: mean trust in the best neighbour where the training memory held the answer; 1 is certain.
        unanswered: the same where it did not.
        honesty: reliability of the training memory's captions, as :class:`Calibration` measures it.
    """

    similarity: float
    standout: float
    bias: float
    answered: float
    unanswered: float
    honesty: float

    def trust(self, similarity: npt.NDArray[np.float32], found: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Trust (B, K): the probability that a neighbour answers, sharpened by the best one's; 0 where none was found.

        A mean of query and answer is neither, so the probability p of the best neighbour becomes
        ``p^2 / (p^2 + (1 - p)^2)``, which is nearer to 0 or 1.
        """
        logit = self.similarity * similarity + self.standout * standout(similarity, found) + self.bias
        chance = np.where(found, sigmoid(logit), 0.0)
        best = chance.max(axis=1, keepdims=True, initial=0.0)
        decided = best / np.maximum(best**2 + (1.0 - best) ** 2, 1e-12)  # times the best chance itself
        return np.asarray(chance * decided, np.float32)

    def max_trust(self, calibration: Calibration) -> float:
        """Largest share of a query to replace: less, the more captions are wrong and the better CLIP knows the pairs.

        >>> gate = TextGate(0, 0, 0, answered=1, unanswered=0, honesty=0.8)
        >>> def share(honesty, alignment):
        ...     return round(gate.max_trust(Calibration(honesty=honesty, alignment=alignment, text_loudness=0.5)), 2)
        >>> share(0.8, 0.5), share(0.8, 1.0)  # captions as good as in training; CLIP knows half, or all
        (1.0, 0.33)
        >>> share(0.2, 0.25), share(0.2, 0.0)  # half of the captions wrong; CLIP knows half of the right ones, or none
        (0.62, 1.0)
        """
        right = float(min(1.0, max(0.0, calibration.honesty) / max(self.honesty, 1e-6)) ** 0.5)  # of two captions, both
        known = min(1.0, max(0.0, calibration.alignment) / max(right, 0.05))
        kept = ((1.0 + known) / 2.0) ** _RIVALS / max(calibration.text_loudness, 0.05)
        return (1.0 - known * min(1.0, _WRONG * (1.0 - right) ** 2)) / (1.0 + kept)


def trust(
    calibration: Calibration,
    modality: Modality,
    similarity: npt.NDArray[np.float32],
    found: npt.NDArray[np.bool_],
    *,
    text_gate: TextGate | None = None,
) -> npt.NDArray[np.float32]:
    """Compute trust (B, K): the probability that a neighbour answers the query, times the most that trust can be.

    Args:
        calibration: of the memory that was searched.
        modality: of the query.
        similarity: (B, K) cosine between query and neighbour, within the modality.
        found: (B, K) False where padded.
        text_gate: that of the fusion, for text queries; None where it has none.

    Returns:
        (B, K) float32 in [0, 1]; 0 where nothing was found.
    """
    c = calibration
    if modality == "image":
        logit = c.image_similarity * similarity + c.image_standout * standout(similarity, found) + c.image_bias
        chance = sigmoid(logit)
    elif text_gate is not None:
        chance = text_gate.trust(similarity, found)
    else:
        chance = sigmoid(_STEEPNESS * (similarity - c.same_caption) / (1.0 - c.same_caption))
    return np.where(found, _most(c, modality, text_gate) * chance, 0.0).astype(np.float32)


def level(
    calibration: Calibration,
    modality: Modality,
    trust: npt.NDArray[np.float32],
    *,
    height: float = CANDIDATE_HEIGHT,
    text_gate: TextGate | None = None,
) -> npt.NDArray[np.float32]:
    """Level the trust (B, K) of candidates, which compete: each moves equally far, and texts all move or none does.

    A candidate that moves towards the other modality wins every query from those that move less, right or wrong.
    Images tolerate a move towards captions that fit badly; of texts, two in three must have found their own caption.

    >>> level(Calibration(), "image", np.float32([[0.2, 0.1], [0.02, 0.01]]), height=1.0)
    array([[0.25 , 0.125],
           [0.25 , 0.125]], dtype=float32)

    Args:
        calibration: of the memory that was searched.
        modality: of the candidates.
        trust: (B, K) from :func:`trust`; for texts, of all the candidates at once.
        height: share of full trust that the best neighbour of each candidate gets; less than for a query.
        text_gate: the one that the trust is from.
    """
    most = _most(calibration, modality, text_gate)
    best = trust.max(axis=1, keepdims=True, initial=0.0)  # (B, 1)
    if coverage(calibration, modality, "candidate", trust, trust > 0.0, text_gate=text_gate).held:
        return np.zeros_like(trust)
    return np.asarray(height * most * trust / np.where(best > 0.0, best, 1.0), np.float32)


def coverage(
    calibration: Calibration,
    modality: Modality,
    role: Role,
    trust: npt.NDArray[np.float32],
    found: npt.NDArray[np.bool_],
    *,
    text_gate: TextGate | None = None,
) -> Coverage:
    """Estimate how many found what they ask for, and how many must: two in three text candidates.

    Args:
        calibration: of the memory that was searched.
        modality: of the queries or candidates.
        role: which of the two they are.
        trust: (B, K) from :func:`trust`; of candidates, all at once.
        found: (B, K) False where padded.
        text_gate: the one that the trust is from.
    """
    gate = text_gate if modality == "text" else None
    most, best = _most(calibration, modality, gate), trust.max(axis=1, initial=0.0)  # (B,)
    return Coverage(
        asked=len(trust),
        found=int(found.any(axis=1).sum()),
        answered=min(1.0, max(0.0, estimate_covered(best / max(most, 1e-9), gate))),
        needed=_COVERED if (modality, role) == ("text", "candidate") else 0.0,
        voice=most,
    )


def estimate_covered(best: npt.NDArray[np.float32], text_gate: TextGate | None = None) -> float:
    """Estimate the share that found their own caption, from the trust of the best neighbour of each, (B,).

    >>> gate = TextGate(0, 0, 0, answered=0.8, unanswered=0.2, honesty=1)
    >>> round(estimate_covered(np.float32([[0.8], [0.2], [0.8], [0.2]]), gate), 2)
    0.5
    """
    low, high = (0.0, 1.0) if text_gate is None else (text_gate.unanswered, text_gate.answered)
    return float((np.mean(best) - low) / max(high - low, 1e-6))


def fuse_training_free(
    modality: Modality, query: Vectors, values: npt.NDArray[np.float32], trust: npt.NDArray[np.float32]
) -> tuple[Vectors, npt.NDArray[np.float32]]:
    """Add the neighbours to the query: the best one's trust sets the length, each one's share the direction.

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


def _most(calibration: Calibration, modality: Modality, text_gate: TextGate | None) -> float:
    """Trust of a neighbour that certainly answers."""
    if modality == "image":
        return calibration.image_loudness
    if text_gate is not None:
        return text_gate.max_trust(calibration)
    return calibration.text_loudness * calibration.honesty
