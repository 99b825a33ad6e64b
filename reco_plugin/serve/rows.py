"""One row of an answer, and rows put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Degraded, Refinement
from .embedding import Embedded, Timings, Used
from .failures import Failure


@dataclass(frozen=True)
class Row:
    """The answer to one item.

    Attributes:
        vector: (D,) unit-norm.
        frozen: (D,) before refinement.
        moved: cosine distance of the two.
        refined: whether it was to be refined, and the memory had something to do it by.
        truncated: whether a text was cut.
        tokens: of a text.
        used: pairs that the refinement used; empty unless asked for.
    """

    vector: npt.NDArray[np.float32]
    frozen: npt.NDArray[np.float32]
    moved: float = 0.0
    refined: bool = False
    truncated: bool = False
    tokens: int = 0
    used: tuple[Used, ...] = ()


def used_pairs(result: Refinement, row: int) -> tuple[Used, ...]:
    """The pairs that one row of an explained refinement used, nearest first; none where nothing was explained."""
    found, trust, weights = result.neighbours, result.trust, result.weights
    if found is None or trust is None or weights is None:
        return ()
    payloads = found.payloads[row] if found.payloads is not None else [{}] * len(found.ids[row])
    return tuple(
        Used(id_, float(found.similarity[row, column]), float(trust[row, column]), float(weights[row, column]), payload)
        for column, (id_, payload) in enumerate(zip(found.ids[row], payloads, strict=True))
    )


def put_together(
    rows: Sequence[Row | Failure],
    dimension: int,
    *,
    degraded: Degraded | None,
    explained: bool,
    timings: Timings,
) -> Embedded:
    """Rows as columns; zeros where an item failed."""
    vectors, frozen = np.zeros((2, len(rows), dimension), np.float32)
    good = [(place, row) for place, row in enumerate(rows) if isinstance(row, Row)]
    for place, row in good:
        vectors[place], frozen[place] = row.vector, row.frozen
    filled = [row if isinstance(row, Row) else None for row in rows]
    return Embedded(
        vectors=vectors,
        frozen=frozen,
        failures=tuple(row if isinstance(row, Failure) else None for row in rows),
        truncated=tuple(row is not None and row.truncated for row in filled),
        tokens=tuple(row.tokens if row else 0 for row in filled),
        refined=tuple(row is not None and row.refined for row in filled),
        moved=np.array([row.moved if row else 0.0 for row in filled], np.float32),
        degraded=degraded,
        used=tuple(row.used if row else () for row in filled) if explained else None,
        timings=timings,
    )
