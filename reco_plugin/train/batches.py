"""Seeded batches of a training set: the same for any number of processes, each of which reads its own rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import DataError
from ..types import MODALITIES, Modality
from .data import FusionData
from .processes import Processes

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
    """Refuse too few groups to contrast.

    Raises:
        DataError: fewer than two, or than processes.
    """
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

    Raises:
        DataError: there are too few groups to contrast.
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
