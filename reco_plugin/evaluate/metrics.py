"""Accuracy, recall and nDCG from ranks and hits; pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..types import Vectors
from .ranking import ranks

RECALL_AT = (1, 5, 10)
"""The k of a table of recall@k."""


def top_k(found: npt.NDArray[np.integer[Any]], k: int) -> float:
    """Share of ranks (N,) below k; with ranks of the best true candidate, recall@k of *any* true candidate.

    >>> top_k(np.array([0, 4, 5, 9]), 5)
    0.5
    """
    if len(found) == 0:
        raise InputError("no ranks: there were no queries")
    return float(np.mean(found < k))


def recall(
    hits: npt.NDArray[np.bool_], relevant: npt.NDArray[np.integer[Any]], k: int | None = None
) -> npt.NDArray[np.float64]:
    """Recall at k of *all* true candidates, per query: the share of them among the first k.

    >>> recall(np.array([[True, False, True]]), np.array([4])).tolist()
    [0.5]

    Args:
        hits: (B, K) whether the first, second, … result is true, as in :class:`.ranking.Ranking`.
        relevant: (B,) number of true candidates, found or not; at least 1.
        k: K when None.

    Returns:
        (B,) shares.

    Raises:
        InputError: shapes that do not fit, a query without any true candidate, or more hits than true candidates.
    """
    return np.asarray(_first(hits, relevant, k).sum(axis=1) / relevant, np.float64)


def ndcg(
    hits: npt.NDArray[np.bool_], relevant: npt.NDArray[np.integer[Any]], k: int | None = None
) -> npt.NDArray[np.float64]:
    """Normalised discounted cumulative gain at k, nDCG@k, per query; a candidate is true or not.

    The gain of a true candidate at position 1, 2, … is 1 / log2(position + 1); the sum is given as a share of the
    best order's.

    >>> ndcg(np.array([[False, True, True]]), np.array([2])).round(4).tolist()  # (.6309 + .5) / (1 + .6309)
    [0.6934]

    Arguments, shapes and errors are those of :func:`recall`.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002, with the
    discount log2(position + 1) of ``trec_eval`` and ``torchmetrics``.
    """
    first = _first(hits, relevant, k)
    gains = 1.0 / np.log2(np.arange(2, first.shape[1] + 2))  # (k,)
    ideal = np.cumsum(gains)[np.minimum(relevant, first.shape[1]) - 1]  # (B,)
    return np.asarray(first @ gains / ideal, np.float64)


def retrieval_recall(
    images: Vectors, texts: Vectors, text_of_image: npt.NDArray[np.integer[Any]], ks: Sequence[int] = RECALL_AT
) -> dict[str, dict[int, float]]:
    """Recall at k in both directions, where an image may have several texts.

    Text -> image: the text's image is among the first k images. Image -> text: any of the image's texts is among the
    first k texts; images without texts are no queries, but stay candidates.

    Args:
        images: (N, D) unit-norm.
        texts: (M, D) unit-norm.
        text_of_image: (M,) the image of each text.
        ks: the k of recall@k.

    Returns:
        ``{"text->image": {1: …}, "image->text": {1: …}}``, shares.
    """
    described = np.unique(text_of_image)
    found = {
        "text->image": ranks(texts, images, text_of_image),
        "image->text": ranks(images[described], texts, described, text_of_image),
    }
    return {direction: {k: top_k(rank, k) for k in ks} for direction, rank in found.items()}


def _first(hits: npt.NDArray[np.bool_], relevant: npt.NDArray[np.integer[Any]], k: int | None) -> npt.NDArray[np.bool_]:
    """Check shapes; returns the first hits (B, k)."""
    if hits.ndim != 2 or relevant.shape != (len(hits),) or (k is not None and not 1 <= k <= hits.shape[1]):
        raise InputError(
            f"hits (B, K), relevant (B,) and k from 1 to K expected, got {hits.shape}, {relevant.shape}, {k}"
        )
    if (wrong := hits.sum(axis=1) > relevant).any():
        row = int(np.argmax(wrong))
        raise InputError(f"query {row} has more hits ({hits[row].sum()}) than true candidates ({relevant[row]})")
    if not (relevant > 0).all():
        raise InputError(f"query {int(np.argmin(relevant > 0))} has no true candidate")
    return hits[:, :k]
