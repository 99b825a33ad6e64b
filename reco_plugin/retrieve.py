"""Searches of training and evaluation: a query's neighbours (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .memory import Searches
from .types import Modality, Neighbours, Search, Vectors, other


def retrieve(
    memory: Searches,
    vectors: Vectors,
    modality: Modality,
    k: int,
    *,
    exclude: Sequence[Collection[str]] | None = None,
    witnesses: bool = False,
) -> Neighbours:
    """Search the memory for B queries within their own modality, and read the other one's vectors (B, k, D).

    Args:
        memory: the pairs.
        vectors: (B, D), unit-norm.
        modality: of the queries.
        k: neighbours per query.
        exclude: B collections of ids that the respective query must not find (its own pair, near-duplicates).
        witnesses: also read what is known of each pair's reliability.
    """
    return memory.search(Search(vectors, modality, other(modality), k, exclude, witnesses=witnesses))
