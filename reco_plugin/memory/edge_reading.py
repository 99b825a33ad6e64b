"""Reads of an Edge shard that are more than one call: a search, with or without its index, and all points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import qdrant_edge as qe

from ..types import MODALITIES, Modality, Vectors
from .filters import USER_ID
from .points import pages, to_sides, translate_errors

POINTS_AT_ONCE = 1000
_SIDES: list[str] = list(MODALITIES)


class ShardReader:
    """Reads points, for a memory and in a thread of its search index; ``live`` gives the shard, or raises if closed."""

    def __init__(self, live: Callable[[], qe.EdgeShard], location: str, dimension: int) -> None:
        self._live, self._location, self._dimension = live, location, dimension

    def count(self, where: qe.Filter | None = None) -> int:
        """Number of pairs."""
        with translate_errors(self._location, "count"):
            return int(self._live().count(qe.CountRequest(filter=where, exact=True)))

    def some(self, where: qe.Filter, most: int, payload: list[str]) -> list[Any]:
        """At most so many points, with these keys of their payload and no vectors, some at a time.

        Nothing else of this process runs while Qdrant Edge looks for them.
        """
        found, start = list[Any](), None
        while len(found) < most:
            size = min(most - len(found), POINTS_AT_ONCE)
            asked = qe.ScrollRequest(offset=start, limit=size, filter=where, with_payload=payload, with_vector=False)
            with translate_errors(self._location, "read"):
                points, start = self._live().scroll(asked)
            found += points
            if start is None:
                break
        return found

    def pages(self, size: int, *, payload: bool, vectors: bool) -> Iterator[list[Any]]:
        """All points, at most ``size`` at a time."""

        def read(start: Any) -> Any:
            request = qe.ScrollRequest(offset=start, limit=size, with_payload=payload, with_vector=vectors and _SIDES)
            with translate_errors(self._location, "read"):
                return self._live().scroll(request)

        return pages(read)

    def page(self, start: str | None, size: int) -> list[Any]:
        """So many points from this one on, or the next one if it is gone, with the users' ids alone."""
        request = qe.ScrollRequest(offset=start, limit=size, with_payload=[USER_ID], with_vector=False)
        with translate_errors(self._location, "read"):
            return list(self._live().scroll(request)[0])

    def retrieve(self, points: Sequence[str], payload: list[str] | bool, *, vectors: bool) -> list[Any]:
        """Those of the points that exist, with these keys of their payload, or all or none."""
        with translate_errors(self._location, "read"):
            return list(self._live().retrieve(list(points), payload, vectors and _SIDES))

    def point_ids(self) -> Iterator[list[str]]:
        """UUIDs of all points, page by page."""
        found = self.pages(POINTS_AT_ONCE, payload=False, vectors=False)
        return ([str(point.id) for point in page] for page in found)

    def point_vectors(self, points: Sequence[str]) -> tuple[list[str], dict[Modality, Vectors]]:
        """Those of the points that exist, and their vectors (N, D)."""
        there = self.retrieve(points, False, vectors=True)
        with translate_errors(self._location, "read"):
            return [str(point.id) for point in there], to_sides(there, self._dimension)
