"""Nearest rows among many, by products of all with all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..types import Vectors

NUMBERS = 2**25
"""In an array that is made for a while, about: 128 MiB."""
_BLOCK = 1000
RowNumbers = npt.NDArray[np.intp]
NearestRows = tuple[RowNumbers, npt.NDArray[np.float32]]
"""Rows (N, k) and similarities of the nearest others, the nearest first."""


def nearest_rows(
    y: Vectors, x: Vectors, k: int, progress: Callable[[int], object] = int, *, others: bool = False
) -> NearestRows:
    """The k rows of (N, D) nearest to each of (M, D), unit-norm.

    Args:
        y: those that ask.
        x: those that are found.
        k: at most N.
        progress: gets the number of rows that are done, each time.
        others: whether y and x are the same rows, of which none finds itself; then k is less than N.
    """
    rows, similarities = np.empty((len(y), k), np.intp), np.empty((len(y), k), np.float32)
    size = max(1, min(_BLOCK, NUMBERS // max(len(x), 1)))
    for start in range(0, len(y), size):
        some = slice(start, min(start + size, len(y)))
        scores = y[some] @ x.T
        if others:
            scores[np.arange(some.stop - start), np.arange(start, some.stop)] = -2.0
        rows[some], similarities[some] = nearest_columns(scores, k)
        progress(some.stop - start)
    return rows, similarities


def nearest_columns(scores: npt.NDArray[np.float32], k: int) -> NearestRows:
    """Columns (B, k) of the largest scores (B, N) and the scores, the largest first."""
    some = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
    best = np.take_along_axis(scores, some, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1), np.take_along_axis(best, order, axis=1)
