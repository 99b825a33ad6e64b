"""What compressed indexes lose of what refinement gains, and what a smaller move keeps: docs/measurements/quantised.md.

    python -m benchmarks.quantised                                            # the search example, mini CLIP
    python -m benchmarks.quantised --data DIRECTORY --docs docs/measurements  # also real CLIPs, as realclip_gate

Vectors are seen as reco_plugin.evaluate.compression has it: the index's are compressed, the query is whole. Takes five
to ten minutes, most of them for the memories to learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reco_plugin.evaluate.compression import COMPRESSIONS, Compression, Kept, compress, search, share
from reco_plugin.types import Vectors

from .page import table
from .research import parser_of, publish
from .thresholds import MODEL, Asked, drawings, imagenet, products

K = 10
MOVES = (1.0, 0.9, 0.75, 0.5, 0.25, 0.0)
"""Shares of the way from the plain vector to the refined one."""
Rows = list[list[str]]
Found = npt.NDArray[np.intp]


def moved(asked: Asked, part: float) -> Vectors:
    """Queries (B, D) that go a part of their way."""
    way = (1.0 - part) * asked.refinement.frozen + part * asked.refinement.vectors
    return np.asarray(way / np.linalg.norm(way, axis=1, keepdims=True), np.float32)


def measure(asked: Asked) -> tuple[Rows, Rows]:
    """Rows of both tables for one set."""
    lost, kept = Rows(), Rows()
    ways: tuple[Compression | None, ...] = (None, *COMPRESSIONS)
    exact = {part: search(moved(asked, part), asked.index, None, K).found for part in MOVES}
    for way in ways:
        seen = None if way is None else compress(asked.index, way)
        found = {part: search(moved(asked, part), asked.index, seen, K) for part in MOVES}
        name = asked.name if way is None else ""
        lost.append([name, way or "whole", *_lost(asked, found, exact)])
        for kind, rows in asked.kinds.items():
            first = [100 * _first(asked, one.found)[rows].mean() for one in found.values()]
            again = [100 * _first(asked, one.rescored)[rows].mean() for one in found.values()]
            cells = [f"{a:.1f}" if way is None else f"{a:.1f} → {b:.1f}" for a, b in zip(first, again, strict=True)]
            kept.append([f"{asked.name}{kind}" if way is None else "", way or "whole", *cells])
    by_kind = len(asked.kinds)  # the kinds of one set stand together
    return lost, [row for at in range(by_kind) for row in kept[at::by_kind]]


def _lost(asked: Asked, found: dict[float, Kept], exact: dict[float, Found]) -> Iterator[str]:
    for rescored in (False, True):
        sides = {part: found[part].rescored if rescored else found[part].found for part in (0.0, 1.0)}
        shares = [share(rows, exact[part]) for part, rows in sides.items()]
        first = [100 * float(_first(asked, rows).mean()) for rows in sides.values()]
        yield from (f"{value:.2f}" for value in shares)
        yield from (f"{value:.1f}" for value in first)
        yield f"{first[1] - first[0]:+.1f}"


def _first(asked: Asked, found: Found) -> npt.NDArray[np.bool_]:
    """Whether the first result (B,) is right, of rows (B, k)."""
    return np.asarray(asked.right[np.arange(len(found)), found[:, 0]])


_SIDES = ("plain: of the exact ten", "refined", "plain: first right, %", "refined", "gain")
LOST = ("queries", "index", *_SIDES, *(f"rescored: {name}" for name in _SIDES))
KEPT = ("queries", "index", *(f"{part:.0%} of the move" for part in MOVES))


def main() -> None:
    """Measure, and write the page's blocks."""
    parser = parser_of(__doc__, "quantised", data="folder with the vectors of realclip", cached=False)
    parser.add_argument("--model", type=Path, default=MODEL)
    given = parser.parse_args()
    sets = [next(drawings(given.model))]
    if given.data:
        sets += [next(imagenet(given.data)), *products(given.data)]
    found = [measure(asked) for asked in sets]
    blocks = {
        "refined": table(LOST, [row for lost, _ in found for row in lost], left=2),
        "moves": table(KEPT, [row for _, kept in found for row in kept], left=2),
    }
    publish(given.docs, "quantised", blocks)


if __name__ == "__main__":
    main()
