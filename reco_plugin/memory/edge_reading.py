"""Reads of an Edge shard that are more than one call: a search, with or without its index, and all points."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import qdrant_edge as qe

from ..defaults import SEARCH_EF
from ..memory_options import MemoryOptions
from ..request import Search
from ..types import MODALITIES, Modality, Vectors
from .checks import CheckedSearch
from .points import FilterConstructors, pages, point_id, translate_errors, wanted_payload

LOCKED = "WouldBlock"
"""In Edge's error when another process holds the folder."""
_POINTS_AT_ONCE = 1000


def has_id(points: Collection[str]) -> qe.HasIdCondition:
    """The condition that a point is one of these."""
    return qe.HasIdCondition(set(points))


_WORDS = FilterConstructors(
    filter=qe.Filter,
    field=qe.FieldCondition,
    range=qe.RangeFloat,
    match_any=qe.MatchAny,
    match_flag=lambda flag: qe.MatchValue(np.bool_(flag)),  # type: ignore[arg-type]  # Edge 0.9 takes a bool for 0 or 1
    has_id=has_id,
)


def find(
    shard: qe.EdgeShard,
    search: Search,
    wanted: CheckedSearch,
    options: MemoryOptions,
    among: Sequence[Collection[str]] | None = None,
) -> list[list[Any]]:
    """The hits of each query.

    Args:
        shard: where to search.
        search: what is read of a hit.
        wanted: the same, checked.
        options: how Edge searches.
        among: per query, the points to compare with; a query that then finds fewer than k searches all.
    """
    filters = list(_WORDS.filters(wanted, (), point_id))

    def run(rows: Sequence[int], conditions: Sequence[qe.Filter | None], *, exact: bool) -> list[list[Any]]:
        requests = [
            qe.QueryRequest(
                query=qe.Query.Nearest(wanted.vectors[row].tolist(), using=search.by),
                limit=wanted.k,
                filter=condition,
                with_vector=[search.read],
                with_payload=wanted_payload(search),
                params=qe.SearchParams(hnsw_ef=max(options.search_ef or SEARCH_EF, wanted.k), exact=exact),
            )
            for row, condition in zip(rows, conditions, strict=True)
        ]
        return list(shard.query_batch(qe.QueryBatchRequest(requests)))

    every = range(len(wanted.vectors))
    if among is None:
        return run(every, filters, exact=options.exact)
    narrow = [qe.Filter(must=[has_id(some), *([f] if f else [])]) for some, f in zip(among, filters, strict=True)]
    found = run(every, narrow, exact=True)
    if short := [row for row, hits in enumerate(found) if len(hits) < wanted.k]:
        for row, hits in zip(short, run(short, [filters[row] for row in short], exact=options.exact), strict=True):
            found[row] = hits
    return found


class ShardReader:
    """What the search index reads of a shard; ``live`` gives the shard, or raises if it is closed."""

    def __init__(self, live: Callable[[], qe.EdgeShard], location: str, dimension: int) -> None:
        self._live, self._location, self._dimension = live, location, dimension

    def count(self) -> int:
        """Number of pairs."""
        with translate_errors(self._location, "count", locked=LOCKED):
            return self._live().count(qe.CountRequest(exact=True))

    def point_ids(self) -> Iterator[list[str]]:
        """UUIDs of all points, page by page."""

        def read(start: Any) -> Any:
            request = qe.ScrollRequest(offset=start, limit=_POINTS_AT_ONCE, with_payload=False, with_vector=False)
            with translate_errors(self._location, "read", locked=LOCKED):
                return self._live().scroll(request)

        return ([str(point.id) for point in page] for page in pages(read))

    def point_vectors(self, points: Sequence[str]) -> tuple[list[str], dict[Modality, Vectors]]:
        """Those of the points that exist, and their vectors (N, D)."""
        with translate_errors(self._location, "read", locked=LOCKED):
            there = self._live().retrieve(list(points), False, True)
        stored: list[Any] = [point.vector for point in there]
        sides = {m: np.asarray([v[m] for v in stored], np.float32).reshape(-1, self._dimension) for m in MODALITIES}
        return [str(point.id) for point in there], sides
