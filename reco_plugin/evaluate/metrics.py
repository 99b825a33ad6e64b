"""Ranks, recall and confidence intervals, in numpy; similarities are made block by block and never kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..types import Vectors

TIE = 1e-6
"""Cosines this close are the same: float32 sums differ by about as much with the order of the terms."""
_BLOCK = 1 << 22  # similarities at a time: 16 MiB


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


def ranks(
    queries: Vectors,
    candidates: Vectors,
    labels: npt.NDArray[np.integer[Any]],
    candidate_labels: npt.NDArray[np.integer[Any]] | None = None,
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
    _check_ranks(queries, candidates, labels, own)
    out = np.empty(len(queries), np.int64)
    step = max(1, _BLOCK // len(candidates))
    for rows in (slice(start, start + step) for start in range(0, len(queries), step)):
        similarity = queries[rows] @ candidates.T  # (b, C)
        true = labels[rows, None] == own[None]  # (b, C)
        best = np.where(true, similarity, -np.inf).max(axis=1, keepdims=True)  # (b, 1)
        out[rows] = ((similarity >= best - TIE) & ~true).sum(axis=1)
    return out


def top_k(found: npt.NDArray[np.integer[Any]], k: int) -> float:
    """Share of ranks among the first k.

    >>> top_k(np.array([0, 4, 5, 9]), 5)
    0.5
    """
    if len(found) == 0:
        raise InputError("no ranks: there were no queries")
    return float(np.mean(found < k))


def retrieval_recall(
    images: Vectors, texts: Vectors, text_of_image: npt.NDArray[np.integer[Any]], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, dict[int, float]]:
    """Recall at k in both directions, where an image may have several texts.

    Text -> image: the text's image is among the first k images. Image -> text: any of the image's texts is among the
    first k texts; images without texts are no queries, but stay candidates.

    Args:
        images: (N, D) unit-norm.
        texts: (M, D) unit-norm.
        text_of_image: (M,) the image of each text.
        ks: numbers of results to look at.

    Returns:
        ``{"text->image": {1: …}, "image->text": {1: …}}``, shares.
    """
    described = np.unique(text_of_image)
    found = {
        "text->image": ranks(texts, images, text_of_image),
        "image->text": ranks(images[described], texts, described, text_of_image),
    }
    return {direction: {k: top_k(rank, k) for k in ks} for direction, rank in found.items()}


def bootstrap(
    values: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean and percentile-bootstrap interval; with groups, whole groups are drawn.

    Draw groups where queries of one kind rise and fall together, as images of one class do when its prompt changes.
    With fewer than two groups the values are drawn one by one.

    Args:
        values: (N,) one number per query, as hits (0 or 1) or their difference.
        groups: (N,) what belongs together.
        samples: draws.
        level: of confidence.
        seed: of the draws; the same seed gives the same bounds.

    Raises:
        InputError: no values, or not one group for each.
    """
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise InputError(f"bootstrap needs values of shape (N,), got {numbers.shape}")
    member = np.arange(len(numbers)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(member) != len(numbers):
        raise InputError(f"{len(member)} groups for {len(numbers)} values: give one each")
    if member.max() == 0:
        member = np.arange(len(numbers))
    sums, counts = np.bincount(member, numbers), np.bincount(member)  # (G,)
    rng, draws = np.random.default_rng(seed), np.empty(samples)
    for row in range(samples):
        drawn = rng.integers(0, len(sums), len(sums))
        draws[row] = sums[drawn].sum() / counts[drawn].sum()
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(float(numbers.mean()), float(low), float(high))


def _check_ranks(
    queries: Vectors, candidates: Vectors, labels: npt.NDArray[np.integer[Any]], own: npt.NDArray[np.integer[Any]]
) -> None:
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1] or len(candidates) == 0:
        raise InputError(f"queries (B, D) and candidates (C, D) expected, got {queries.shape} and {candidates.shape}")
    if labels.shape != (len(queries),) or own.shape != (len(candidates),):
        raise InputError(f"labels {labels.shape} and candidate labels {own.shape} do not fit queries and candidates")
    if not (known := np.isin(labels, own)).all():
        row = int(np.argmin(known))
        raise InputError(f"query {row} has label {labels[row]}, which no candidate has")
