"""Compares a query with each vector of a scan, for engines that cannot search without their index."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..data.cells import Vector
from .base import IndexHit, Page, Similarity


def nearest_of(pages: Iterable[Page], query: Vector, k: int, metric: Similarity) -> list[IndexHit]:
    """The k documents nearest to a query (D,), best first; memory is bounded by a page and k."""
    best: list[IndexHit] = []
    for page in pages:
        there = [document for document in page.documents if document.vector is not None]
        if not there:
            continue
        block = np.stack([document.vector for document in there if document.vector is not None])  # (N, D)
        scores = similarities(block, query, metric)
        for row in np.argsort(-scores, kind="stable")[:k]:
            found = there[row]
            best.append(IndexHit(found.id, float(scores[row]), found.text, found.image))
        best = sorted(best, key=lambda hit: -hit.score)[:k]
    return best


def similarities(block: Vector, query: Vector, metric: Similarity) -> Vector:
    """Scores (N,) of vectors (N, D), higher is nearer."""
    if metric == "euclid":
        return np.asarray(-np.linalg.norm(block - query, axis=1), np.float32)
    dots = block @ query
    if metric == "dot":
        return np.asarray(dots, np.float32)
    norms = np.linalg.norm(block, axis=1) * np.linalg.norm(query)
    return np.asarray(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0), np.float32)
