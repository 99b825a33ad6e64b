"""What moves come to: exact scores of queries and candidates, both refined, or candidates as single vectors.

One cosine of two moved vectors has a meaningless cross term. A score is the frozen one, plus what each side's evidence
says of the other's **plain** vector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..learning.moments import Values
from ..types import Moves, Vectors
from ..vectors import Floats
from .evidence import BOTH


def score_pairs(queries: Moves, candidates: Moves) -> Floats:
    """Scores (B, C) of queries for candidates of the other modality, in units of a cosine.

    Where only some candidates are covered, those keep the mass that CLIP gave them: they compete among themselves by
    both sides, and take nothing from the others.

    Args:
        queries: B of them.
        candidates: C of one set; those that are not covered count plain.
    """
    plain, covered = np.asarray(queries.plain @ candidates.plain.T, np.float32), candidates.covered
    text, image = (queries, candidates) if queries.modality == "text" else (candidates, queries)
    kappa = text.kappa or image.kappa
    if not kappa or not covered.any():
        return plain
    weights = {"text": 1.0, "image": BOTH * image.kappa / kappa if text.kappa else 1.0}
    by_queries = queries.added @ (candidates.plain - queries.mean).T + queries.constant[:, None]
    by_candidates = (queries.plain - candidates.mean) @ candidates.added.T + candidates.constant
    told = weights[queries.modality] * by_queries + weights[candidates.modality] * by_candidates
    clip = max(queries.clip, candidates.clip)
    return keep_mass(plain, np.asarray(plain + told, np.float32), covered, kappa, clip)


def keep_mass(plain: Floats, both: Floats, covered: npt.NDArray[np.bool_], kappa: float, clip: float) -> Floats:
    """Scores (B, C): by both sides on covered candidates, shifted so that these keep their mass; else plain.

    The same as ``both`` where all are covered.

    >>> plain, both = np.float32([[0.9, 0.5]]), np.float32([[0.9, 1.0]])
    >>> keep_mass(plain, both, np.array([False, True]), 4.0, 4.0).tolist() == plain.tolist()
    True

    Args:
        plain: (B, C) cosines.
        both: (B, C) refined ones.
        covered: (C,).
        kappa: nats per unit of refined scores.
        clip: nats per unit of plain ones.
    """
    if covered.all():
        return both
    nats, out = np.float32(kappa) * both[:, covered], plain.copy()
    mass = _log_sum(np.float32(clip) * plain[:, covered])
    out[:, covered] = (nats - _log_sum(nats) + mass) / np.float32(clip)
    return out


def _log_sum(nats: Floats) -> Floats:
    """Logarithm (B, 1) of the sum of exponentials of (B, C)."""
    most = nats.max(axis=1, keepdims=True)
    return np.asarray(most + np.log(np.exp(nats - most).sum(axis=1, keepdims=True)), np.float32)


def to_vectors(moves: Moves, values: Values) -> Vectors:
    """Candidates (C, D) of one set as unit vectors, for an index: ranked among themselves as by their exact scores.

    The constant of a candidate's scores is added along a direction whose product with any query is about 1, and what
    is missing to length 1 along a direction that queries do not use.

    Args:
        moves: of the candidates.
        values: moments of the vectors that ask for them.
    """
    whitened = values.precision.apply(values.mean[None])[0]
    one = whitened / max(float(whitened @ values.mean), 1e-9)  # (D,) its product with any vector is about 1
    level = moves.plain + moves.added + np.outer(moves.constant - moves.added @ values.mean, one)
    level /= max(1.0, float(np.linalg.norm(level, axis=1).max(initial=0.0)))  # one scale, so that the ranking stays
    along = level @ values.slack
    missing = np.maximum(1.0 - np.square(level).sum(axis=1), 0.0)
    whole = np.copysign(np.sqrt(np.square(along) + missing), along)  # as it was where nothing moves
    filled = level + np.outer(whole - along, values.slack)
    return np.asarray(filled / np.linalg.norm(filled, axis=1, keepdims=True), np.float32)
