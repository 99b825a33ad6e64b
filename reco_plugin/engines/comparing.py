"""Compares a query with the vectors of a scan."""

from __future__ import annotations

import numpy as np

from ..data.cells import Vector
from .base import Similarity


def similarities(block: Vector, query: Vector, metric: Similarity) -> Vector:
    """Scores (N,) of vectors (N, D), higher is nearer."""
    if metric == "euclid":
        return np.asarray(-np.linalg.norm(block - query, axis=1), np.float32)
    dots = block @ query
    if metric == "dot":
        return np.asarray(dots, np.float32)
    norms = np.linalg.norm(block, axis=1) * np.linalg.norm(query)
    return np.asarray(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0), np.float32)
