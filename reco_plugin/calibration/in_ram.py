"""Searches of pairs that are in RAM, in products of many queries: thousands of questions take seconds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..machine.blas import side_by_side
from ..memory import Header
from ..types import Neighbours, Records, Search
from .nearest import NUMBERS, nearest_columns

_AT_ONCE = 128  # queries of one product: of 64, each costs a quarter more, since all pairs are rearranged for it


@dataclass(frozen=True)
class PairsInRam:
    """Pairs of a memory as what a refinement searches.

    Attributes:
        header: of the memory.
        pairs: N.
        witnesses: (N, 3) of them.
    """

    header: Header
    pairs: Records
    witnesses: npt.NDArray[np.float32]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.pairs.ids)}

    def search(self, search: Search) -> Neighbours:
        """Compare queries (B, D) with every pair; conditions and payloads are not looked at."""
        size = max(1, min(_AT_ONCE, NUMBERS // max(len(self.pairs), 1)))
        held, k, hidden = self.pairs.side(search.by), min(search.k, len(self.pairs)), search.exclude
        rows, similarity = np.empty((len(search.vectors), k), np.intp), np.empty((len(search.vectors), k), np.float32)

        def find(start: int) -> None:
            some = slice(start, start + size)
            scores = search.vectors[some] @ held.T
            for row, names in enumerate(hidden[some] if hidden else ()):
                scores[row, [self._rows[name] for name in names if name in self._rows]] = -2.0
            rows[some], similarity[some] = nearest_columns(scores, k)

        side_by_side(find, range(0, len(search.vectors), size))
        found = similarity > -1.5
        return Neighbours(
            [[self.pairs.ids[row] for row in some] for some in rows.tolist()] if search.ids else [[] for _ in rows],
            np.where(found, similarity, np.float32(0.0)),
            np.where(found[..., None], self.pairs.side(search.read)[rows], np.float32(0.0)),
            found,
            None,
            np.where(found[..., None], self.witnesses[rows], np.float32(np.nan)) if search.witnesses else None,
        )
