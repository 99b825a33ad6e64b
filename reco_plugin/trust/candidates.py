"""Candidates as single vectors, for an index: refined, but with the mean and the spread of their plain scores.

A candidate whose scores grow or spread wins every query, right or wrong. So what its move adds to the mean score is
taken away along a direction whose product with any query is about 1, the rest is divided by the standard deviation of
its scores, and what is missing to length 1 is added along a direction that queries do not use.
"""

from __future__ import annotations

import numpy as np

from ..types import Moves, Vectors
from .moments import Values


def to_vectors(moves: Moves, values: Values) -> Vectors:
    """Candidates (C, D) of one set as unit vectors; moved as far as their exact scores say.

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
