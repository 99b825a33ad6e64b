"""Reads of an Edge shard, for a memory, for its search index, and for a copy of a damaged folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import qdrant_edge as qe

from ..types import MODALITIES, Modality, Vectors
from .point_memory import AT_ONCE
from .points import pages, to_sides, translate_errors

_SIDES: list[str] = list(MODALITIES)


class ShardReader:
    """Reads points, also in a thread of the search index; ``live`` gives the shard, or raises if closed."""

    def __init__(self, live: Callable[[], qe.EdgeShard], location: str, dimension: int) -> None:
        self._live, self._location, self._dimension = live, location, dimension

    def count(self, where: qe.Filter | None = None) -> int:
        """Number of pairs."""
        with translate_errors(self._location, "count"):
            return int(self._live().count(qe.CountRequest(filter=where, exact=True)))

    def page(
        self, start: Any, size: int, payload: list[str] | bool, *, vectors: bool, where: qe.Filter | None = None
    ) -> tuple[list[Any], Any]:
        """So many points from this one on, or the next one if it is gone, and the one behind them."""
        request = qe.ScrollRequest(
            offset=start, limit=size, filter=where, with_payload=payload, with_vector=vectors and _SIDES
        )
        with translate_errors(self._location, "read"):
            found, behind = self._live().scroll(request)
            return list(found), behind

    def retrieve(self, points: Sequence[str], payload: list[str] | bool, *, vectors: bool) -> list[Any]:
        """Those of the points that exist, with these keys of their payload, or all or none."""
        with translate_errors(self._location, "read"):
            return list(self._live().retrieve(list(points), payload, vectors and _SIDES))

    def point_ids(self) -> Iterator[list[str]]:
        """UUIDs of all points, page by page."""
        found = pages(lambda start: self.page(start, AT_ONCE, False, vectors=False))
        return ([str(point.id) for point in page] for page in found)

    def point_vectors(self, points: Sequence[str]) -> tuple[list[str], dict[Modality, Vectors]]:
        """Those of the points that exist, and their vectors (N, D)."""
        there = self.retrieve(points, False, vectors=True)
        with translate_errors(self._location, "read"):
            return [str(point.id) for point in there], to_sides(there, self._dimension)
