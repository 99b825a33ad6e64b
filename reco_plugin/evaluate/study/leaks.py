"""Near-duplicates of the queries in the memory: what makes figures too good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...defaults import SAME_IMAGE
from ...types import Records
from .task import Task

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Leaks:
    """What a query can retrieve that shows its own image.

    Attributes:
        queries: (N,) whether a query has a near-duplicate in the memory that is not hidden from it.
        pairs: (M,) whether a pair is one.
        nearest: (N,) cosine to the nearest image that is not hidden; -1 where there is none.
    """

    queries: npt.NDArray[np.bool_]
    pairs: npt.NDArray[np.bool_]
    nearest: npt.NDArray[np.float32]


def leaks(task: Task, records: Records, near: float = SAME_IMAGE) -> Leaks:
    """Compare every query with every image of the memory; its own pair, where its id is known, is hidden from it.

    Args:
        task: its queries.
        records: M pairs.
        near: cosine above which a pair shows the query's image.
    """
    row_of = {id_: row for row, id_ in enumerate(records.ids)}
    nearest, pairs = np.full(len(task), -1.0, np.float32), np.zeros(len(records), np.bool_)
    if not len(records):
        return Leaks(nearest > near, pairs, nearest)
    step = max(1, _BLOCK // len(records))
    for start in range(0, len(task), step):
        cosine = task.queries[start : start + step] @ records.image.T  # (b, M)
        if task.own is not None:
            for offset, id_ in enumerate(task.own[start : start + step]):
                if id_ in row_of:
                    cosine[offset, row_of[id_]] = -1.0
        nearest[start : start + step] = cosine.max(axis=1)
        pairs |= (cosine > near).any(axis=0)
    return Leaks(nearest > near, pairs, nearest)
