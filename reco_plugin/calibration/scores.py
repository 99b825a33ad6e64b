"""What moves come to: exact scores of queries and candidates, both refined, or candidates as single vectors.

One cosine of two moved vectors has a meaningless cross term. A score is the frozen one, plus what each side's evidence
says of the other's **plain** vector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..machine.blas import Floats
from ..types import Moves, Vectors
from .moments import Values


def score_pairs(queries: Moves, candidates: Moves) -> Floats:
    """Scores (B, C) of queries for candidates of the other modality, in units of a cosine.

    Where only some candidates are covered, those keep the mass that the queries alone gave them: they compete among
    themselves by both sides, and take no more from the others. Where few are covered, queries hardly move.

    Args:
        queries: B of them.
        candidates: C of one set; those that are not covered count plain.
    """
    plain, covered = np.asarray(queries.plain @ candidates.plain.T, np.float32), candidates.covered
    sharpness = queries.sharpness or candidates.sharpness
    if not sharpness or not covered.any():
        return plain
    seen = np.asarray(queries.added @ (candidates.plain - queries.mean).T, np.float32)  # what their evidence says
    centred = queries.plain - candidates.mean
    moved = centred @ (candidates.plain + candidates.added).T / candidates.length + candidates.plain @ candidates.mean
    return keep_mass(plain + seen, np.asarray(moved + seen, np.float32), covered, sharpness)


def keep_mass(by_queries: Floats, both: Floats, covered: npt.NDArray[np.bool_], sharpness: float) -> Floats:
    """Scores (B, C): by both sides on covered candidates, shifted so that these keep their mass; else by the queries.

    The same as ``both`` where all are covered.

    >>> by_queries, both = np.float32([[0.9, 0.5]]), np.float32([[0.9, 1.0]])
    >>> keep_mass(by_queries, both, np.array([False, True]), 4.0).tolist() == by_queries.tolist()
    True
    """
    if covered.all():
        return both
    shift = _soft_maximum(by_queries[:, covered], sharpness) - _soft_maximum(both[:, covered], sharpness)
    out = by_queries.copy()
    out[:, covered] = both[:, covered] + shift
    return out


def _soft_maximum(scores: Floats, sharpness: float) -> Floats:
    """(B, 1) of scores (B, C)."""
    most = scores.max(axis=1, keepdims=True)
    total = np.exp(sharpness * (scores - most)).sum(axis=1, keepdims=True)
    return np.asarray(most + np.log(total) / sharpness, np.float32)


def to_vectors(moves: Moves, values: Values) -> Vectors:
    """Candidates (C, D) of one set as unit vectors, for an index: with the mean and the spread of their plain scores.

    A candidate whose scores grow or spread wins every query, right or wrong. So what its move adds to the mean score is
    taken away along a direction whose product with any query is about 1, the rest is divided by the standard deviation
    of its scores, and what is missing to length 1 is added along a direction that queries do not use.

    Args:
        moves: of the candidates.
        values: moments of the vectors that ask for them.
    """
    whitened = values.plain_precision.apply(values.mean[None])[0]
    one = whitened / max(float(whitened @ values.mean), 1e-9)  # (D,) its product with any vector is about 1
    moved = moves.plain + moves.added
    centred = (moved - np.outer(moved @ values.mean, one)) / moves.length[:, None]
    level = centred + np.outer(moves.plain @ values.mean, one)
    level /= max(1.0, float(np.linalg.norm(level, axis=1).max(initial=0.0)))  # one scale, so that the ranking stays
    along = level @ values.slack
    missing = np.maximum(1.0 - np.square(level).sum(axis=1), 0.0)
    whole = np.copysign(np.sqrt(np.square(along) + missing), along)  # as it was where nothing moves
    filled = level + np.outer(whole - along, values.slack)
    return np.asarray(filled / np.linalg.norm(filled, axis=1, keepdims=True), np.float32)
