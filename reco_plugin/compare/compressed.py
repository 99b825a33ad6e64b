"""What compressing an index would cost plain and refined queries, found by its own vectors, which are only read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..engines import Page
from ..engines.base import Similarity
from ..evaluate.compression import COMPRESSIONS, Kept, compress, search, share
from ..types import Vectors
from .judgments import Grades
from .measure import judge

_READ = 50_000
"""Documents that are read at most; 100 MB of 512 dimensions."""


@dataclass(frozen=True)
class Compressed:
    """What one way of compression keeps: each pair is plain and refined.

    Attributes:
        way: of it; ``none`` for whole vectors.
        shares: of what exact search finds.
        rescored: the same of three times as many results, compared by whole vectors.
        ndcg: against judgments; None without.
        ndcg_rescored: likewise.
    """

    way: str
    shares: tuple[float, float]
    rescored: tuple[float, float]
    ndcg: tuple[float, float] | None = None
    ndcg_rescored: tuple[float, float] | None = None


@dataclass(frozen=True)
class CompressionCost:
    """All ways, over so many documents and queries; none where no vector of the index can be read."""

    documents: int
    queries: int
    ways: Sequence[Compressed]


def measure_compression(
    pages: Iterable[Page],
    vectors: Mapping[str, Vectors],
    k: int,
    grades: Sequence[Grades] | None,
    metric: Similarity = "cosine",
) -> CompressionCost:
    """Search by all B queries in each way.

    Args:
        pages: of the index's documents.
        vectors: ``plain`` and ``refined``, (B, D).
        k: results.
        grades: what is right for each query; None: nothing is known.
        metric: of the index; with dot products the lengths of its vectors count.
    """
    some = ((one.id, one.vector) for page in pages for one in page.documents if one.vector is not None)
    read = list(islice(some, _READ))
    if not read:
        return CompressionCost(0, len(vectors["plain"]), ())
    ids = [id_ for id_, _ in read]
    index = np.stack([vector for _, vector in read])
    if metric != "dot":
        index /= np.maximum(np.linalg.norm(index, axis=1, keepdims=True), np.float32(1e-12))
    sides = (vectors["plain"], vectors["refined"])
    exact = [search(queries, index, None, k) for queries in sides]
    rows = [] if grades is None else [row for row, right in enumerate(grades) if right]
    right = [] if grades is None else [grades[row] for row in rows]

    def ndcg(kept: Sequence[Kept], *, rescored: bool) -> tuple[float, float] | None:
        if not rows:
            return None
        found = [one.rescored if rescored else one.found for one in kept]
        plain, refined = (
            judge([[ids[at] for at in one[row]] for row in rows], right, k)["ndcg"].mean() for one in found
        )
        return float(plain), float(refined)

    def shares(kept: Sequence[Kept], *, rescored: bool) -> tuple[float, float]:
        plain, refined = (
            share(one.rescored if rescored else one.found, best.found) for one, best in zip(kept, exact, strict=True)
        )
        return plain, refined

    def line(way: str, kept: Sequence[Kept]) -> Compressed:
        first, again = (shares(kept, rescored=rescored) for rescored in (False, True))
        return Compressed(way, first, again, ndcg(kept, rescored=False), ndcg(kept, rescored=True))

    ways = [line("none", exact)]
    for way in COMPRESSIONS:
        seen = compress(index, way)
        ways.append(line(way, [search(queries, index, seen, k) for queries in sides]))
    return CompressionCost(len(ids), len(sides[0]), ways)
