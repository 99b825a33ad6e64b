"""What extras may add to the method, which knows none of them: what else a memory learns, and factors of a move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..types import Modality, Neighbours, Records, Vectors

if TYPE_CHECKING:
    from .calibrate import Calibrated


class Extra(Protocol):
    """Something else that is learned from the pairs of a memory, and stored with its calibration."""

    @property
    def name(self) -> str:
        """Under which it is stored."""
        ...

    def learn(
        self, learned: Calibrated, pairs: Records, k: int, progress: Callable[[int], object]
    ) -> Mapping[str, Any] | None:
        """What is stored, as JSON; None: nothing. ``progress`` is called with 0 now and then."""
        ...


class TellsPresence(Protocol):
    """Tells whether the memory holds what a query asks for."""

    def of(
        self, modality: Modality, query: Vectors, found: Neighbours, mean: Vectors, unit: float
    ) -> npt.NDArray[np.float32] | None:
        """Presence (B,), from 0 to 1, of queries (B, D); None where it cannot be told.

        ``mean`` is that of the other modality's vectors, ``unit`` the deviation of a query's plain scores over them.
        """
        ...

    def why_not(self, modality: Modality) -> str:
        """Why it cannot be told, for people."""
        ...


class HoldsBack(Protocol):
    """Knows which answers are wrong for which queries."""

    def keep(
        self, modality: Modality, queries: Vectors, found: Neighbours, spread: float, same_caption: float
    ) -> npt.NDArray[np.float32] | None:
        """How much of each pair that was found stays, (B, K) from 0 to 1; None: all of each."""
        ...

    def refused(self, modality: Modality, queries: Vectors) -> npt.NDArray[np.bool_] | None:
        """Of which queries (B, D) an answer is known to be wrong; None: of none."""
        ...
