"""Training data of the fusion: frozen pairs with the neighbours of both sides, in batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..defaults import SAME_IMAGE
from ..errors import DataError
from ..memory import Memory
from ..progress import progress_bar
from ..types import MODALITIES, Modality, Records, Search, Vectors, other

_CHECKED = 128  # neighbours that are checked for near-duplicates
_ROWS = 256  # queries per search


@dataclass(frozen=True)
class NeighbourTable:
    """The neighbours of N queries as rows of one table, which has the vector of each neighbour once."""

    table: Vectors  # (M, D); row 0 is zero and pads
    rows: npt.NDArray[np.int32]  # (N, K) rows of the table, nearest first
    similarity: npt.NDArray[np.float32]  # (N, K) cosine, larger is nearer; 0 where padded
    names: Sequence[str]  # (M,) ids of the table's rows

    @property
    def is_present(self) -> npt.NDArray[np.bool_]:
        """(N, K) bool; False where padded."""
        return self.rows > 0

    def vectors_of(self, queries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the neighbours (B, K, D) of B queries, by row."""
        return self.table[self.rows[queries]]

    @property
    def ids(self) -> list[list[str]]:
        """N lists of at most K ids."""
        return [[self.names[row] for row in neighbours if row] for neighbours in self.rows.tolist()]


@dataclass(frozen=True)
class FusionData:
    """N training pairs."""

    pairs: Records  # frozen vectors of both sides, (N, D) each
    groups: npt.NDArray[np.int64]  # (N,); pairs of one group are never negatives of one another
    neighbours: dict[Modality, NeighbourTable]  # K neighbours of each query, by modality of the query

    def __len__(self) -> int:
        return len(self.groups)


def hidden_ids(memory: Memory, pairs: Records, threshold: float = SAME_IMAGE) -> list[set[str]]:
    """Return the ids to hide from each of N pairs: its own id, and those of near-duplicate images.

    Otherwise the fusion would learn to copy the caption of the query from the memory.
    """
    hidden: list[set[str]] = []
    for start in range(0, len(pairs), _ROWS):
        hits = memory.search(Search(pairs.image[start : start + _ROWS], "image", "text", _CHECKED))
        for row, (ids, cosines) in enumerate(zip(hits.ids, hits.similarity, strict=True), start):
            near = {id_ for id_, cosine in zip(ids, cosines, strict=False) if cosine >= threshold}
            hidden.append(near | {pairs.ids[row]})
    return hidden


def gather(
    memory: Memory,
    pairs: Records,
    k: int,
    groups: Sequence[str] | None = None,
    hidden: Sequence[Collection[str]] | None = None,
) -> FusionData:
    """Search the memory with the image and the text of every pair.

    Args:
        memory: any memory; it may hold the pairs themselves.
        pairs: frozen vectors, (N, D) each.
        k: neighbours per query.
        groups: (N,) groups of pairs that show the same thing; None: each pair is a group.
        hidden: as :func:`hidden_ids` returns it; None: with the default threshold.
    """
    hidden = hidden if hidden is not None else hidden_ids(memory, pairs)
    names = groups if groups is not None else pairs.ids
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    with progress_bar(total=2 * len(pairs), desc="find neighbours", unit="query") as bar:
        neighbours = {side: _neighbours(memory, pairs, side, k, hidden, bar.update) for side in MODALITIES}
    return FusionData(pairs, np.array([number[name] for name in names], np.int64), neighbours)


def _neighbours(
    memory: Memory,
    pairs: Records,
    side: Modality,
    k: int,
    hidden: Sequence[Collection[str]],
    progress: Callable[[int], object],
) -> NeighbourTable:
    rows, similarity = np.zeros((len(pairs), k), np.int32), np.zeros((len(pairs), k), np.float32)
    row_of, table = {"": 0}, [np.zeros(pairs.image.shape[1], np.float32)]
    for start in range(0, len(pairs), _ROWS):
        part = slice(start, start + _ROWS)
        hits = memory.search(Search(pairs.side(side)[part], side, other(side), k, hidden[part]))
        similarity[part, : hits.similarity.shape[1]] = hits.similarity
        for query, ids in enumerate(hits.ids):
            for column, id_ in enumerate(ids):
                if id_ not in row_of:
                    row_of[id_] = len(table)
                    table.append(hits.vectors[query, column])
                rows[start + query, column] = row_of[id_]
        progress(len(hits.ids))
    return NeighbourTable(np.stack(table), rows, similarity, list(row_of))


@dataclass(frozen=True)
class SideInputs:
    """Inputs of the fusion of one modality."""

    query: Tensor  # (B, D)
    neighbours: Tensor  # (B, K, D)
    similarity: Tensor  # (B, K)
    trust: Tensor  # (B, K); 0 where padded or left out in this step


class Batches:
    """The batches of a training set by step: B pairs of different groups.

    Args:
        data: pairs and neighbours.
        size: B; with fewer groups, the number of groups.
        seed: seed of all batches.
        drop: see :class:`reco_plugin.export.train_layer.TrainConfig`.
        device: device of the batches.

    Raises:
        DataError: fewer than two groups.
    """

    def __init__(self, data: FusionData, size: int, *, seed: int, drop: float, device: torch.device) -> None:
        self._data, self._seed, self._drop, self._device = data, seed, drop, device
        self._order = np.argsort(data.groups, kind="stable")  # rows, group by group
        self._first, self._count = np.unique(data.groups[self._order], return_index=True, return_counts=True)[1:]
        if len(self._first) < 2:
            raise DataError("training needs pairs of at least two groups: with one group there are no negatives")
        self._size = min(size, len(self._first))

    def draw(self, step: int) -> dict[Modality, SideInputs]:
        """Draw the batch of a step."""
        rng = np.random.default_rng([self._seed, step])
        group = rng.choice(len(self._first), self._size, replace=False)
        rows = self._order[self._first[group] + rng.integers(0, self._count[group])]
        return {side: self._side(side, rows, rng) for side in MODALITIES}

    def _side(self, side: Modality, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> SideInputs:
        near = self._data.neighbours[side]
        trust = near.is_present[rows] & (rng.random((len(rows), near.rows.shape[1])) >= self._drop)
        query, vectors = self._tensor(self._data.pairs.side(side)[rows]), self._tensor(near.vectors_of(rows))
        return SideInputs(query, vectors, self._tensor(near.similarity[rows]), self._tensor(trust.astype(np.float32)))

    def _tensor(self, array: npt.NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array).to(self._device)
