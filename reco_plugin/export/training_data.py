"""Training data of the fusion: frozen pairs with the neighbours of both sides, and its batches."""

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

_LOOK = 128  # neighbours that are checked for near-duplicates
_ROWS = 256  # queries per search


@dataclass(frozen=True)
class FoundRows:
    """The neighbours of N queries as rows of one table.

    Separate vectors for 10 neighbours per pair would take ten times the memory of the pairs.
    """

    table: Vectors  # (M, D), each neighbour's once; row 0 is zero and stands for padding
    rows: npt.NDArray[np.int32]  # (N, K) rows of the table, nearest first
    similarity: npt.NDArray[np.float32]  # (N, K) cosine, larger is nearer; 0 where padded
    names: Sequence[str]  # (M,) ids of the table's rows

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Mask (N, K), False where padded."""
        return self.rows > 0

    def vectors_of(self, queries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The neighbours' vectors (B, K, D) of B queries, by their row."""
        return self.table[self.rows[queries]]

    @property
    def ids(self) -> list[list[str]]:
        """N lists of at most K ids."""
        return [[self.names[row] for row in found if row] for found in self.rows.tolist()]


@dataclass(frozen=True)
class FusionData:
    """N training pairs."""

    pairs: Records  # frozen vectors of both sides, (N, D) each
    groups: npt.NDArray[np.int64]  # (N,); pairs of one group show the same thing and are never negatives of one another
    neighbours: dict[Modality, FoundRows]  # K neighbours of each query of that side

    def __len__(self) -> int:
        return len(self.groups)


def hidden_ids(memory: Memory, pairs: Records, threshold: float = SAME_IMAGE) -> list[set[str]]:
    """Find the ids to hide from each of N pairs: itself and near-duplicate images.

    Without this the fusion learns to copy the query's own caption out of the memory.
    """
    hidden: list[set[str]] = []
    for start in range(0, len(pairs), _ROWS):
        found = memory.search(Search(pairs.image[start : start + _ROWS], "image", "text", _LOOK))
        for row, (ids, cosines) in enumerate(zip(found.ids, found.similarity, strict=True), start):
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
    """Search the memory for both queries of every pair.

    Args:
        memory: any memory; it may hold the pairs themselves.
        pairs: frozen vectors, (N, D) each.
        k: neighbours per query.
        groups: (N,) groups of pairs that show the same thing; each pair is its own when None.
        hidden: from :func:`hidden_ids`, with its defaults when None.
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
) -> FoundRows:
    rows, similarity = np.zeros((len(pairs), k), np.int32), np.zeros((len(pairs), k), np.float32)
    row_of, table = {"": 0}, [np.zeros(pairs.image.shape[1], np.float32)]
    for start in range(0, len(pairs), _ROWS):
        part = slice(start, start + _ROWS)
        found = memory.search(Search(pairs.side(side)[part], side, other(side), k, hidden[part]))
        similarity[part, : found.similarity.shape[1]] = found.similarity
        for query, ids in enumerate(found.ids):
            for column, id_ in enumerate(ids):
                if id_ not in row_of:
                    row_of[id_] = len(table)
                    table.append(found.vectors[query, column])
                rows[start + query, column] = row_of[id_]
        progress(len(found.ids))
    return FoundRows(np.stack(table), rows, similarity, list(row_of))


@dataclass(frozen=True)
class SideInputs:
    """Inputs of one fusion."""

    query: Tensor  # (B, D)
    neighbours: Tensor  # (B, K, D)
    similarity: Tensor  # (B, K)
    trust: Tensor  # (B, K); 0 where padded or left out in this step


class Batches:
    """The batches of a training set, by step: B pairs, each of another group.

    Args:
        data: pairs and neighbours.
        size: B; the number of groups, where there are fewer.
        seed: of all batches.
        drop: see :class:`reco_plugin.export.train_layer.TrainConfig`.
        device: to which batches are sent.

    Raises:
        DataError: fewer than two groups.
    """

    def __init__(self, data: FusionData, size: int, *, seed: int, drop: float, device: torch.device) -> None:
        self._data, self._seed, self._drop, self._device = data, seed, drop, device
        self._order = np.argsort(data.groups, kind="stable")  # rows, group by group
        self._first, self._count = np.unique(data.groups[self._order], return_index=True, return_counts=True)[1:]
        if len(self._first) < 2:
            raise DataError("training needs pairs of at least two groups: with one there is nothing to tell apart")
        self._size = min(size, len(self._first))

    def draw(self, step: int) -> dict[Modality, SideInputs]:
        """Draw the batch of a step."""
        rng = np.random.default_rng([self._seed, step])
        group = rng.choice(len(self._first), self._size, replace=False)
        rows = self._order[self._first[group] + rng.integers(0, self._count[group])]
        return {side: self._side(side, rows, rng) for side in MODALITIES}

    def _side(self, side: Modality, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> SideInputs:
        found = self._data.neighbours[side]
        trust = found.found[rows] & (rng.random((len(rows), found.rows.shape[1])) >= self._drop)
        query, near = self._sent(self._data.pairs.side(side)[rows]), self._sent(found.vectors_of(rows))
        return SideInputs(query, near, self._sent(found.similarity[rows]), self._sent(trust.astype(np.float32)))

    def _sent(self, array: npt.NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array).to(self._device)
