"""Of a catalogue that is larger than a fit needs: whole groups, drawn by their names before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.groups import group_of
from ..data.rows import Rejected, Rows
from ..types import Pair
from .split import chance

_BINS = 1 << 16


@dataclass(frozen=True)
class Sample:
    """Which rows are used.

    Attributes:
        group: payload column that says what a pair shows; None: its caption.
        below: groups whose name draws less than this are in the sample; a larger sample holds a smaller one.
        rows: of the sample.
        of: rows of the catalogue.
    """

    group: str | None
    below: float
    rows: int
    of: int

    def holds(self, row: Pair | Rejected) -> bool:
        """Whether a row is used; of rejected ones, which have no group, the same share."""
        return _drawn(row, self.group) < self.below


def sample(rows: Rows, group: str | None, most: int) -> Sample | None:
    """The largest sample of at most so many rows; None where all of them are that few.

    Reads all rows once to count them, without their images, unless the source tells that they are few enough.

    Args:
        rows: the catalogue.
        group: payload column that says what a pair shows; None: its caption.
        most: rows; 0 for all.
    """
    if not most or (rows.total is not None and rows.total <= most):
        return None
    counts = np.zeros(_BINS, np.int64)
    for part in rows.parts:
        for row in part.read():
            counts[min(int(_drawn(row, group) * _BINS), _BINS - 1)] += 1
    reached = np.cumsum(counts)
    total = int(reached[-1])
    if total <= most:
        return None
    bins = int(np.searchsorted(reached, most, side="right"))
    return Sample(group, bins / _BINS, int(reached[bins - 1]) if bins else 0, total)


def _drawn(row: Pair | Rejected, group: str | None) -> float:
    name = row.where if isinstance(row, Rejected) else group_of(row, group)
    return chance(f"sample\0{name}")
