"""Split groups into fit, validation and test; drawn by name, so that a growing catalogue keeps its split.

From a catalogue that is larger than a fit needs, whole groups are sampled before images are decoded.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ..data.groups import group_of
from ..data.rows import Rejected, Rows
from ..errors import DataError
from ..types import Pair

SplitName = Literal["fit", "validation", "test"]
PARTS: tuple[SplitName, ...] = get_args(SplitName)
FEWEST = 10
"""Groups of a part: an interval over fewer is meaningless."""


@dataclass(frozen=True)
class HeldOut:
    """N pairs, split. A pair that asks is in no memory of its part, unlike the other pairs of its group."""

    part: npt.NDArray[np.str_]  # (N,) part of each pair
    asks: npt.NDArray[np.bool_]  # (N,) whether a held-out pair is a query

    def rows(self, *parts: SplitName) -> npt.NDArray[np.int64]:
        """Rows (M,) of all pairs of some parts."""
        return np.flatnonzero(np.isin(self.part, parts))

    def queries(self, part: SplitName) -> npt.NDArray[np.int64]:
        """Rows (Q,) of the pairs of one part that are queries."""
        return np.flatnonzero((self.part == part) & self.asks)

    def rest(self, part: SplitName) -> npt.NDArray[np.int64]:
        """Rows (M,) of the pairs of one part that are not queries."""
        return np.flatnonzero((self.part == part) & ~self.asks)


def split(ids: Sequence[str], groups: Sequence[str], *, validation: float, test: float, seed: int = 0) -> HeldOut:
    """Split N pairs by their groups (N,); ``validation`` and ``test`` are shares of the groups.

    Raises:
        DataError: a part has fewer than ten groups.
    """
    part_of = {group: _part(group, validation, test, seed) for group in set(groups)}
    counts = Counter(part_of.values())
    if min(counts[part] for part in PARTS) < FEWEST:
        raise _too_few(counts, validation, test)
    part = np.array([part_of[group] for group in groups])
    return HeldOut(part, _asks(ids, groups, seed) & (part != "fit"))


def check_groups(
    rows: Rows, group: str | None, used: CatalogueSample | None, *, validation: float, test: float, seed: int = 0
) -> None:
    """Check, before anything is encoded, that each part gets enough groups; reads rows until it does, no images.

    Args:
        rows: the catalogue.
        group: payload column of the groups; None: the caption.
        used: the sample of its rows; None for all.
        validation: share of the groups.
        test: share of the groups.
        seed: of the draw.

    Raises:
        DataError: a part has fewer than ten groups.
    """
    seen, counts = set[str](), Counter[SplitName]()
    for row in chain.from_iterable(part.read() for part in rows.parts):
        if isinstance(row, Rejected) or (used is not None and not used.holds(row)):
            continue
        if (name := group_of(row, group)) not in seen:
            seen.add(name)
            counts[_part(name, validation, test, seed)] += 1
            if min(counts[part] for part in PARTS) >= FEWEST:
                return
    if seen:  # else its reading says what is wrong
        raise _too_few(counts, validation, test)


def _too_few(counts: Mapping[SplitName, int], validation: float, test: float) -> DataError:
    few, least = min(PARTS, key=lambda part: counts.get(part, 0)), min(validation, test, 1.0 - validation - test)
    return DataError(
        f"{sum(counts.values())} groups are too few: {counts.get(few, 0)} fall into the {few} part, and it needs "
        f"{FEWEST}. With a smallest share of {least:g} that takes {math.ceil(FEWEST / least):,} groups on average, and "
        f"{_enough(least):,} to be sure. Give a larger catalogue, a finer --group, or other shares (--validation, "
        "--test)"
    )


def _enough(share: float) -> int:
    """Groups of which this share has ten in 19 of 20 draws.

    >>> _enough(0.15)
    108
    """
    half = 1.645 * math.sqrt(share * (1.0 - share))
    root = (half + math.sqrt(half * half + 4.0 * share * FEWEST)) / (2.0 * share)
    return math.ceil(root * root)


def chance(name: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends on name and seed alone.

    >>> round(chance("fox"), 3), round(chance("fox", 1), 3)
    (0.32, 0.547)
    """
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8]) / 2.0**64


def _part(group: str, validation: float, test: float, seed: int) -> SplitName:
    drawn = chance(group, seed)
    return "test" if drawn < test else "validation" if drawn < test + validation else "fit"


def _asks(ids: Sequence[str], groups: Sequence[str], seed: int) -> npt.NDArray[np.bool_]:
    """Choose about half of each group as queries, (N,): at least one, and not all of two or more."""
    drawn = np.array([chance(f"ask\0{id_}", seed) for id_ in ids])
    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    asks = drawn < 0.5
    order = np.lexsort((drawn, number))
    first = np.flatnonzero(np.diff(number[order], prepend=-1))  # of each group, in order
    last = np.append(first[1:], len(order)) - 1
    asks[order[last[last > first]]] = False
    asks[order[first]] = True
    return np.asarray(asks)


_BINS = 1 << 16


@dataclass(frozen=True)
class CatalogueSample:
    """A sample of the rows of a catalogue."""

    group: str | None  # payload column of the groups; None: the caption
    below: float  # groups whose :func:`chance` is below are in the sample; a larger sample contains a smaller one
    rows: int  # of the sample
    of: int  # rows of the catalogue

    def holds(self, row: Pair | Rejected) -> bool:
        """Whether a row is in the sample; of rejected ones, which have no group, the same share."""
        return _drawn(row, self.group) < self.below


def sample(rows: Rows, group: str | None, most: int) -> CatalogueSample | None:
    """Find the largest sample of at most ``most`` rows; None where no sample is needed.

    Reads all rows once to count them, without their images, unless the source knows that they are few enough.

    Args:
        rows: the catalogue.
        group: payload column of the groups; None: the caption.
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
    return CatalogueSample(group, bins / _BINS, int(reached[bins - 1]) if bins else 0, total)


def _drawn(row: Pair | Rejected, group: str | None) -> float:
    name = row.where if isinstance(row, Rejected) else group_of(row, group)
    return chance(f"sample\0{name}")
