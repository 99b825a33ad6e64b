"""From similarities to ranks; the rule for ties, which :mod:`.blocks` shares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..types import Vectors

TIE = 1e-6
"""Cosines this close are the same: float32 sums differ by about as much with the order of the terms."""
_BLOCK = 1 << 22  # similarities at a time: 16 MiB

Labels = npt.NDArray[np.integer[Any]]


def ranks(
    queries: Vectors, candidates: Vectors, labels: Labels, candidate_labels: Labels | None = None
) -> npt.NDArray[np.int64]:
    """Rank of each query's best true candidate: how many wrong ones are at least as near, 0 is best.

    Ties count against us in full: a wrong candidate within ``TIE`` of the true one ranks before it, so vectors that
    all collapse to one point come last and not, by luck, first. Other true candidates of the same query never count.

    >>> ranks(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), np.array([0, 0])).tolist()
    [0, 1]
    >>> ranks(np.float32([[1, 0]]), np.float32([[1, 0], [1, 0], [0, 1]]), np.array([0])).tolist()  # a tie
    [1]

    Args:
        queries: (B, D) unit-norm.
        candidates: (C, D) unit-norm.
        labels: (B,) label of each query.
        candidate_labels: (C,) label of each candidate; its position when None. Equal labels belong together.

    Returns:
        (B,) ranks from 0.

    Raises:
        InputError: shapes that do not fit, or a query without any true candidate.
    """
    own = np.arange(len(candidates)) if candidate_labels is None else np.asarray(candidate_labels)
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1] or len(candidates) == 0:
        raise InputError(f"queries (B, D) and candidates (C, D) expected, got {queries.shape} and {candidates.shape}")
    if labels.shape != (len(queries),) or own.shape != (len(candidates),):
        raise InputError(f"labels {labels.shape} and candidate labels {own.shape} do not fit queries and candidates")
    check_known(labels, np.isin(labels, own))
    out = np.empty(len(queries), np.int64)
    for rows in parts(len(queries), len(candidates)):
        similarity = queries[rows] @ candidates.T  # (b, C)
        true = labels[rows, None] == own[None]  # (b, C)
        best = np.where(true, similarity, -np.inf).max(axis=1, keepdims=True)  # (b, 1)
        out[rows] = ((similarity >= best - TIE) & ~true).sum(axis=1)
    return out


def parts(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows with at most ``_BLOCK`` similarities each."""
    step = max(1, _BLOCK // max(columns, 1))
    return (slice(start, start + step) for start in range(0, rows, step))


def check_known(labels: Labels, known: npt.NDArray[np.bool_]) -> None:
    """Refuse queries (B,) without a true candidate.

    Raises:
        InputError: naming the first one.
    """
    if not known.all():
        row = int(np.argmin(known))
        raise InputError(f"query {row} has label {labels[row]}, which no candidate has")
