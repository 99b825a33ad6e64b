"""What the fusion trains on: frozen pairs and, found once, the neighbours of both sides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..errors import InputError
from ..memory import Memory
from ..retrieve import Retrieval, retrieve
from ..types import MODALITIES, Modality, Neighbours, Records, Vectors

NEAR_DUPLICATE = 0.97
"""Cosine between images from which a neighbour counts as the query's own picture; it would give the caption away."""
_LOOK = 32  # neighbours that are inspected for near-duplicates at first; more where all of them are
_ROWS = 256  # queries per search


@dataclass(frozen=True)
class FusionData:
    """N training pairs.

    Attributes:
        pairs: frozen vectors of both sides, (N, D) each.
        groups: (N,) int; pairs of one group show the same thing and are never negatives of one another.
        neighbours: modality -> what a query of that side retrieves, (N, K, D).
    """

    pairs: Records
    groups: npt.NDArray[np.int64]
    neighbours: dict[Modality, Neighbours]

    def __len__(self) -> int:
        return len(self.pairs)


def hidden_ids(
    memory: Memory,
    pairs: Records,
    also: Sequence[Collection[str]] | None = None,
    threshold: float = NEAR_DUPLICATE,
) -> list[set[str]]:
    """For each pair the ids that its own queries must not find: itself, near-duplicate images, and ``also``.

    Without this the fusion learns to copy the query's own caption out of the memory.
    """
    if also is not None and len(also) != len(pairs):
        raise InputError(f"also has {len(also)} entries for {len(pairs)} pairs")
    hidden: list[set[str]] = []
    for start in range(0, len(pairs), _ROWS):
        near = _near_duplicates(memory, pairs.image[start : start + _ROWS], threshold, _LOOK)
        for row, ids in enumerate(near, start):
            hidden.append(ids | {pairs.ids[row]} | set(also[row] if also else ()))
    return hidden


def _near_duplicates(memory: Memory, images: Vectors, threshold: float, look: int) -> list[set[str]]:
    """Ids of all images of the memory at least this near, for each of (B, D) images."""
    found = retrieve(memory, images, "image", Retrieval(k=look))
    near = [
        {id_ for id_, cosine in zip(ids, similarity, strict=False) if cosine >= threshold}
        for ids, similarity in zip(found.ids, found.similarity, strict=True)
    ]
    crowded = [row for row, ids in enumerate(near) if len(ids) == look]
    if crowded:
        for row, ids in zip(crowded, _near_duplicates(memory, images[crowded], threshold, 4 * look), strict=True):
            near[row] = ids
    return near


def gather(
    memory: Memory,
    pairs: Records,
    how: Retrieval,
    groups: Sequence[str] | None = None,
    hidden: Sequence[Collection[str]] | None = None,
) -> FusionData:
    """Search the memory for every pair's two queries.

    Args:
        memory: any memory; it may hold the pairs themselves.
        pairs: frozen vectors.
        how: k and the search and fusion modes to train for.
        groups: which pairs show the same thing; each its own when left out.
        hidden: from :func:`hidden_ids`; computed with the defaults when left out.
    """
    hidden = hidden if hidden is not None else hidden_ids(memory, pairs)
    names = groups if groups is not None else pairs.ids
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    with tqdm(total=2 * len(pairs), desc="find neighbours", unit="query") as bar:
        neighbours = {side: _neighbours(memory, pairs, side, how, hidden, bar) for side in MODALITIES}
    return FusionData(pairs, np.array([number[name] for name in names], np.int64), neighbours)


def _neighbours(
    memory: Memory,
    pairs: Records,
    side: Modality,
    how: Retrieval,
    hidden: Sequence[Collection[str]],
    bar: tqdm[None],
) -> Neighbours:
    parts = []
    for start in range(0, len(pairs), _ROWS):
        rows = slice(start, start + _ROWS)
        parts.append(retrieve(memory, pairs.side(side)[rows], side, how, exclude=hidden[rows]))
        bar.update(len(parts[-1].ids))
    stack = parts[0]
    return replace(
        stack,
        ids=[ids for part in parts for ids in part.ids],
        similarity=np.concatenate([part.similarity for part in parts]),
        vectors=np.concatenate([part.vectors for part in parts]),
        found=np.concatenate([part.found for part in parts]),
    )
