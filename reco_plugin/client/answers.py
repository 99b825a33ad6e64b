"""What a service answers, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Degraded, Payload, Vectors


@dataclass(frozen=True)
class Used:
    """A pair of the memory that a refinement used.

    Attributes:
        id: of the pair.
        similarity: cosine with the item; larger is nearer.
        trust: how much the gate let it speak, in [0, 1].
        weight: its share in the fusion, in [0, 1].
        caption: its text, where the memory kept it.
        payload: as stored.
    """

    id: str
    similarity: float
    trust: float
    weight: float
    caption: str | None
    payload: Payload


@dataclass(frozen=True)
class Refined:
    """Refined vectors and, when asked for, why they are what they are.

    Attributes:
        vectors: (B, D) float32, unit-norm.
        moved: (B,) cosine distance from the frozen vector.
        degraded: why vectors are frozen although refinement was asked for; None where all went well.
        frozen: (B, D) before refinement; None unless an explanation was asked for.
        used: per row, the pairs that were used, nearest first; likewise.
    """

    vectors: Vectors
    moved: npt.NDArray[np.float32]
    degraded: Degraded | None = None
    frozen: Vectors | None = None
    used: tuple[tuple[Used, ...], ...] | None = None

    @classmethod
    def join(cls, parts: Sequence[Refined]) -> Refined:
        """Answers to the parts of one call as one; degraded where any part was."""
        frozen = [part.frozen for part in parts if part.frozen is not None]
        used = [part.used for part in parts if part.used is not None]
        return cls(
            np.concatenate([part.vectors for part in parts]),
            np.concatenate([part.moved for part in parts]),
            next((part.degraded for part in parts if part.degraded), None),
            np.concatenate(frozen) if frozen else None,
            tuple(row for rows in used for row in rows) if used else None,
        )
