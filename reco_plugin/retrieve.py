"""Searches of training and evaluation: a query's neighbours in every mode (paper, section 3.2 and its ablations)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .memory import Searches
from .types import Filter, Modality, Mode, Neighbours, Search, Vectors, sides_of


@dataclass(frozen=True)
class Retrieval:
    """How to search and what to read."""

    k: int  # neighbours per query
    search: Mode = "uni"  # uni compares the query with the memory's vectors of its own modality, cross with the other's
    fusion: Mode = "cross"  # cross reads the neighbours' vectors of the other modality, uni of the query's own
    where: Filter | None = None  # conditions on the payload


def retrieve(
    memory: Searches,
    vectors: Vectors,
    modality: Modality,
    how: Retrieval,
    *,
    exclude: Sequence[Collection[str]] | None = None,
    payloads: bool = False,
    ids: bool = True,
    witnesses: bool = False,
) -> Neighbours:
    """Search the memory for B queries of one modality, (B, D) unit-norm.

    Args:
        memory: the pairs.
        vectors: (B, D).
        modality: of the queries.
        how: search and fusion modes, k, filter.
        exclude: B collections of ids that the respective query must not find (its own pair, near-duplicates).
        payloads: also read payloads.
        ids: whether ids are needed; a server reads nothing but vectors without.
        witnesses: also read what is known of each pair's reliability.
    """
    by, read = sides_of(modality, how.search, how.fusion)
    return memory.search(Search(vectors, by, read, how.k, exclude, how.where, payloads, ids, witnesses))
