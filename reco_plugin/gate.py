"""How far to trust each retrieved pair, and the fusion that needs no training.

Two observations carry this module; both hold for CLIP ViT-B/32 and for a mini CLIP of a quite different geometry.

*Ask what the encoder has not said yet.* Whether a retrieved caption fits the query image (their cosine) is
already part of every score that the query will get; weighting by it only repeats the frozen model, errors included.
Image-image similarity is new evidence, above all how far a neighbour **stands out** from the others that were found.
For a text query, the likeness of the captions says nearly all. Hence uni-modal search, cross-modal fusion only.

*Let a neighbour speak as loudly as the query.* Across a modality gap, the query tells candidates apart by small
differences; a vector of the candidates' own modality tells them apart by large ones and drowns it. The ratio of
these spreads, the **loudness**, brings one fusion strength to every encoder.

*Be careful where there is something to lose.* An encoder that knows what a memory shows is worth more than captions
that lie; of one that does not, nothing can be lost. How far the captions can be believed (**honesty**) and how well
the encoder knows the pairs (**alignment**) are measured too.

What depends on encoder or memory is measured on the memory (:mod:`reco_plugin.calibration`). A trained fusion brings a
:class:`TextGate` of its own, fitted on pairs of which it is known what they show.
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
_STEEPNESS = 8.0  # of the text gate, so that a chance match is trusted with exp(-8)
_COVERED = 2 / 3  # share of the candidates that must have found their own caption, or none moves
_RIVALS = 60  # captions; an encoder that finds an image's own one among them knows what to say itself
_CAUTION = 3.0  # at which share of wrong captions, squared and inverted, an encoder that knows all is left alone


@dataclass(frozen=True)
class TextGate:
    """How a trained fusion trusts what a text query found: logistic in similarity and stand-out.

    Attributes:
        similarity, standout, bias: of the logit that a neighbour shows what the query asks for.
        answered: mean trust in the best neighbour where the training memory held the answer; 1 is certain.
        unanswered: the same where it did not.
        honesty: of the training memory, as :class:`Calibration` measures it: that of captions that can be believed.
    """

    similarity: float
    standout: float
    bias: float
    answered: float
    unanswered: float
    honesty: float

    def trust(self, similarity: npt.NDArray[np.float32], found: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """(B, K) trust: as the chances that the neighbours answer, the best one's decided; 0 where nothing was found.

        Half of a query and half of an answer are neither, so the chance p of the best neighbour becomes
        ``p^2 / (p^2 + (1 - p)^2)``, which is nearer to 0 or 1.
        """
        logit = self.similarity * similarity + self.standout * standout(similarity, found) + self.bias
        chance = np.where(found, sigmoid(logit), 0.0)
        best = chance.max(axis=1, keepdims=True, initial=0.0)
        decided = best / np.maximum(best**2 + (1.0 - best) ** 2, 1e-12)  # times the best chance itself
        return np.asarray(chance * decided, np.float32)

    def caution(self, calibration: Calibration) -> float:
        """How much of the query may be replaced: less, the more captions are wrong and the more CLIP knows itself.

        >>> gate = TextGate(0, 0, 0, answered=1, unanswered=0, honesty=0.8)
        >>> def told(honesty, alignment):
        ...     return round(gate.caution(Calibration(honesty=honesty, alignment=alignment, text_loudness=0.5)), 2)
        >>> told(0.8, 0.5), told(0.8, 1.0)  # captions as good as in training; CLIP knows half, or all
        (1.0, 0.33)
        >>> told(0.2, 0.25), told(0.2, 0.0)  # half of the captions wrong; CLIP knows half of what is right, or nothing
        (0.62, 1.0)
        """
        right = float(min(1.0, max(0.0, calibration.honesty) / max(self.honesty, 1e-6)) ** 0.5)  # of two captions, both
        known = min(1.0, max(0.0, calibration.alignment) / max(right, 0.05))
        kept = ((1.0 + known) / 2.0) ** _RIVALS / max(calibration.text_loudness, 0.05)
        return (1.0 - known * min(1.0, _CAUTION * (1.0 - right) ** 2)) / (1.0 + kept)


def trust(
    calibration: Calibration,
    modality: Modality,
    similarity: npt.NDArray[np.float32],
    found: npt.NDArray[np.bool_],
    *,
    text_gate: TextGate | None = None,
) -> npt.NDArray[np.float32]:
    """Say how loudly each neighbour may speak: the chance that it answers the query, times the loudness.

    Args:
        calibration: of the memory that was searched.
        modality: of the query.
        similarity: (B, K) cosine between query and neighbour, within the modality.
        found: (B, K) False where padded.
        text_gate: of the fusion that will use the trust, for text queries; None where it has none.

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
    """Trust for candidates, which compete: each moves equally far, and texts all move or none does.

    A candidate that moves towards the other modality wins every query from those that move less, right or wrong.
    Images bear a move towards captions that fit badly; of texts, two in three must have found their own caption.

    >>> level(Calibration(), "image", np.float32([[0.2, 0.1], [0.02, 0.01]]), height=1.0)
    array([[0.25 , 0.125],
           [0.25 , 0.125]], dtype=float32)

    Args:
        calibration: of the memory that was searched.
        modality: of the candidates.
        trust: (B, K) from :func:`trust`; for texts, of all the candidates at once.
        height: share of full trust that the best neighbour of each candidate gets; less than a query may have.
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
    """Say how many found what they ask for, and how many must: of text candidates two in three.

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
        answered=min(1.0, max(0.0, covered(best / max(most, 1e-9), gate))),
        needed=_COVERED if (modality, role) == ("text", "candidate") else 0.0,
        voice=most,
    )


def covered(best: npt.NDArray[np.float32], text_gate: TextGate | None = None) -> float:
    """Share of candidates that found their own caption, as the chance of the best neighbour of each, (B,), tells.

    >>> gate = TextGate(0, 0, 0, answered=0.8, unanswered=0.2, honesty=1)
    >>> round(covered(np.float32([[0.8], [0.2], [0.8], [0.2]]), gate), 2)
    0.5
    """
    low, high = (0.0, 1.0) if text_gate is None else (text_gate.unanswered, text_gate.answered)
    return float((np.mean(best) - low) / max(high - low, 1e-6))


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


def _most(calibration: Calibration, modality: Modality, text_gate: TextGate | None) -> float:
    """The trust of a neighbour that certainly answers."""
    if modality == "image":
        return calibration.image_loudness
    if text_gate is not None:
        return text_gate.caution(calibration)
    return calibration.text_loudness * calibration.honesty
