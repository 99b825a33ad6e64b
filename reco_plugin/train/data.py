"""Training data of the fusion, frozen pairs and the neighbours of both sides, in RAM or in files; and its batches."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..defaults import SAME_IMAGE
from ..errors import DataError
from ..files import allocate, as_data_error
from ..memory import Memory
from ..progress import progress_bar
from ..types import MODALITIES, Modality, Neighbours, Records, Search, Vectors, other
from .processes import Processes

_LOOK = 32  # neighbours to check for near-duplicates at first; more where all of them are
_ROWS = 256  # queries per search
_PARTS = ("table", "rows", "similarity")


@dataclass(frozen=True)
class FoundRows:
    """The neighbours of N queries as rows of one table, with the fields of :class:`~reco_plugin.types.Neighbours`.

    Separate vectors for 10 neighbours per pair would take ten times the memory of the pairs.
    """

    table: Vectors  # (M, D), each neighbour's once; row 0 is zero and stands for padding
    rows: npt.NDArray[np.int32]  # (N, K) rows of the table, nearest first
    similarity: npt.NDArray[np.float32]  # (N, K) cosine, larger is nearer; 0 where padded
    names: Sequence[str] | None = None  # (M,) ids of the table's rows; None where opened by :func:`open_rows`

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Mask (N, K), False where padded."""
        return self.rows > 0

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The neighbours' vectors (N, K, D), copied; for few queries."""
        return self.table[self.rows]

    @property
    def ids(self) -> list[list[str]]:
        """N lists of at most K ids.

        Raises:
            DataError: opened from files, which hold no ids.
        """
        names = self.names
        if names is None:
            raise DataError("stored neighbours have no ids: training needs none")
        return [[names[row] for row in found if row] for found in self.rows.tolist()]


@dataclass(frozen=True)
class FusionData:
    """N training pairs."""

    pairs: Records  # frozen vectors of both sides, (N, D) each; without ids and payloads where opened from files
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
        near = _near_duplicates(memory, pairs.image[start : start + _ROWS], threshold, _LOOK)
        hidden += [ids | {pairs.ids[row]} for row, ids in enumerate(near, start)]
    return hidden


def _near_duplicates(memory: Memory, images: Vectors, threshold: float, look: int) -> list[set[str]]:
    """Find the ids of all images of the memory at least this near, for each of (B, D) images."""
    found = memory.search(Search(images, "image", "text", look))
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
    k: int,
    groups: Sequence[str] | None = None,
    hidden: Sequence[Collection[str]] | None = None,
    folder: Path | None = None,
) -> FusionData:
    """Search the memory for both queries of every pair.

    Args:
        memory: any memory; it may hold the pairs themselves.
        pairs: frozen vectors, (N, D) each.
        k: neighbours per query.
        groups: (N,) groups of pairs that show the same thing; each pair is its own when None.
        hidden: from :func:`hidden_ids`, with its defaults when None.
        folder: a new folder for the vectors and neighbours as memory maps, also for other processes
            (:func:`open_data`); it appears when complete. In RAM when None.
    """
    hidden = hidden if hidden is not None else hidden_ids(memory, pairs)
    names = groups if groups is not None else pairs.ids
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    numbers = np.array([number[name] for name in names], np.int64)
    part = _part(folder) if folder else None
    with progress_bar(total=2 * len(pairs), desc="find neighbours", unit="query") as bar:
        neighbours = {side: _neighbours(memory, pairs, side, k, hidden, part, bar.update) for side in MODALITIES}
    if folder and part:
        pairs = _store(pairs, numbers, part)
        part.rename(folder)
    return FusionData(pairs, numbers, neighbours)


def open_data(folder: Path) -> FusionData:
    """Open the folder of :func:`gather`, without the ids, which training does not need."""
    image, text, groups = (open_array(folder, name) for name in (*MODALITIES, "groups"))
    return FusionData(Records([], image, text, []), groups, {side: open_rows(folder, side) for side in MODALITIES})


def _neighbours(
    memory: Memory,
    pairs: Records,
    side: Modality,
    k: int,
    hidden: Sequence[Collection[str]],
    folder: Path | None,
    progress: Callable[[int], object],
) -> FoundRows:
    found = Collector(folder, side, len(pairs), k, memory.count(), pairs.image.shape[1])
    for start in range(0, len(pairs), _ROWS):
        rows = slice(start, start + _ROWS)
        found.add(start, memory.search(Search(pairs.side(side)[rows], side, other(side), k, hidden[rows])))
        progress(len(pairs.ids[rows]))
    return found.rows()


def _part(folder: Path) -> Path:
    """Make an empty folder beside it to write to; removes that of a killed process."""
    part = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def _store(pairs: Records, groups: npt.NDArray[np.int64], folder: Path) -> Records:
    """Write the vectors of pairs, (N, D) each, to files; returns the pairs with memory maps."""
    for name, array in (("image", pairs.image), ("text", pairs.text), ("groups", groups)):
        stored = new_array(folder, name, array.shape, array.dtype)
        stored[:] = array
        flush(stored)
    return Records(pairs.ids, open_array(folder, "image"), open_array(folder, "text"), pairs.payloads)


class Collector:
    """Collects neighbours, batch by batch."""

    def __init__(self, folder: Path | None, side: Modality, queries: int, k: int, most: int, dimension: int) -> None:
        """Allocate the arrays, in files or (without a folder) in RAM, for at most ``most`` distinct neighbours."""
        self._table = new_array(folder, f"{side}.table", (1 + min(most, queries * k), dimension), np.float32)
        self._rows = new_array(folder, f"{side}.rows", (queries, k), np.int32)
        self._similarity = new_array(folder, f"{side}.similarity", (queries, k), np.float32)
        self._row_of: dict[str, int] = {}
        self._names = [""]  # of padding

    def add(self, first: int, found: Neighbours) -> None:
        """Add the neighbours (B, K, D) of the queries from row ``first`` on."""
        for query, ids in enumerate(found.ids):
            for column, id_ in enumerate(ids):
                self._rows[first + query, column] = self._row(id_, found.vectors[query, column])
        self._similarity[first : first + len(found.ids), : found.similarity.shape[1]] = found.similarity

    def _row(self, id_: str, vector: Vectors) -> int:
        row = self._row_of.get(id_)
        if row is None:
            row = self._row_of[id_] = len(self._names)
            self._names.append(id_)
            self._table[row] = vector
        return row

    def rows(self) -> FoundRows:
        """All added neighbours."""
        for array in (self._table, self._rows, self._similarity):
            flush(array)
        return FoundRows(self._table[: len(self._names)], self._rows, self._similarity, self._names)


def new_array(folder: Path | None, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Make zeros of any shape, in RAM or in a memory-mapped file."""
    if folder is None:
        return np.zeros(shape, dtype)
    path = folder / f"{name}.npy"
    with as_data_error(f"{path} cannot be written"):
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        allocate(path)
    return array


def flush(array: npt.NDArray[Any]) -> None:
    """Write a memory-mapped array of any shape to its disk, which other machines may read."""
    if isinstance(array, np.memmap):
        array.flush()


def open_array(folder: Path, name: str) -> npt.NDArray[Any]:
    """Map an array of :func:`new_array`, of any shape; writes to it stay in this process."""
    array: npt.NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="c")  # torch needs writable arrays
    return array


def open_rows(folder: Path, side: Modality) -> FoundRows:
    """Open the folder of a :class:`Collector`."""
    table, rows, similarity = (open_array(folder, f"{side}.{part}") for part in _PARTS)
    return FoundRows(table[: int(rows.max(initial=0)) + 1], rows, similarity)


_ON_DEVICE_BYTES = 1 << 30
"""Arrays up to this size are kept on the device; of larger ones, the rows of each batch are copied there."""


@dataclass(frozen=True)
class SideInputs:
    """Inputs of one fusion for this process's rows."""

    query: Tensor  # (b, D)
    neighbours: Tensor  # (b, K, D)
    similarity: Tensor  # (b, K)
    trust: Tensor  # (b, K); 0 where padded or dropped in this step


@dataclass(frozen=True)
class FusionBatch:
    """B pairs, each of another group."""

    frozen: dict[Modality, Tensor]  # modality -> (B, D) vectors of the whole batch
    own: dict[Modality, SideInputs]  # modality -> inputs of this process's rows


def check_groups(count: int, processes: Processes) -> None:
    """Refuse too few groups to contrast."""
    if count < 2:
        raise DataError("training needs pairs of at least two groups: with one there is nothing to tell apart")
    if count < processes.count:
        raise DataError(f"{count} groups are too few for {processes.count} processes: start fewer")


class Batches:
    """The batches of a training set, by step.

    Args:
        data: pairs and neighbours.
        size: B; the number of groups, where there are fewer.
        seed: of all batches.
        drop, rotate: see :class:`reco_plugin.train.loop.TrainConfig`.
        processes: that share a batch.
    """

    def __init__(
        self, data: FusionData, size: int, *, seed: int, drop: float, rotate: float, processes: Processes
    ) -> None:
        self._seed, self._drop, self._rotate, self._processes = seed, drop, rotate, processes
        self._order = np.argsort(data.groups, kind="stable")  # rows, group by group
        self._first, self._count = np.unique(data.groups[self._order], return_index=True, return_counts=True)[1:]
        check_groups(len(self._first), processes)
        self._size = min(size, len(self._first)) // processes.count * processes.count
        self._query = {side: self._tensor(data.pairs.side(side)) for side in MODALITIES}
        self._table = {side: self._tensor(data.neighbours[side].table) for side in MODALITIES}
        self._found = {side: data.neighbours[side] for side in MODALITIES}

    def draw(self, step: int) -> FusionBatch:
        """Draw the batch of a step."""
        rng = np.random.default_rng([self._seed, step])
        group = rng.choice(len(self._first), self._size, replace=False)
        rows = self._order[self._first[group] + rng.integers(0, self._count[group])]
        turn = self._turn(step) if rng.random() < self._rotate else None
        frozen = {side: _apply_turn(self._read(self._query[side], rows), turn) for side in MODALITIES}
        return FusionBatch(frozen, {side: self._side(side, rows, frozen[side], turn, rng) for side in MODALITIES})

    def _side(
        self,
        side: Modality,
        rows: npt.NDArray[np.int64],
        query: Tensor,
        turn: Tensor | None,
        rng: np.random.Generator,
    ) -> SideInputs:
        found, part = self._found[side], self._processes.part(len(rows))
        kept = rng.random((len(rows), found.rows.shape[1])) >= self._drop  # of all processes: each draws the same
        own = found.rows[rows[part]]
        trust = (own > 0) & kept[part]
        return SideInputs(
            query[part],
            _apply_turn(self._read(self._table[side], own), turn),
            self._sent(found.similarity[rows[part]]),
            self._sent(trust.astype(np.float32)),
        )

    def _turn(self, step: int) -> Tensor:
        """Draw one random orthogonal map (D, D) for both modalities of a batch."""
        device, dimension = self._processes.device, self._query["image"].shape[1]
        generator = torch.Generator(device).manual_seed(self._seed * 1_000_003 + step)
        turn: Tensor = torch.linalg.qr(torch.randn(dimension, dimension, device=device, generator=generator)).Q
        return turn

    def _tensor(self, array: npt.NDArray[np.float32]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.to(self._processes.device) if array.nbytes <= _ON_DEVICE_BYTES else tensor

    def _read(self, vectors: Tensor, rows: npt.NDArray[np.integer]) -> Tensor:
        """Read rows (b,) of an array (N, D) on the device; (b, D)."""
        chosen = torch.from_numpy(rows.astype(np.int64)).to(vectors.device)
        return vectors[chosen].to(self._processes.device)

    def _sent(self, array: npt.NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array).to(self._processes.device)


def _apply_turn(vectors: Tensor, turn: Tensor | None) -> Tensor:
    return vectors if turn is None else vectors @ turn
