"""The embedded engine: a Qdrant Edge shard in a folder, held by one process at a time."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

from ..errors import MemoryReadOnly, MemoryStoreError
from ..settings import MemoryOptions
from ..types import MODALITIES, Filter, Fingerprint, Modality, Records, Search, Vectors
from .checks import CheckedSearch
from .disk import SHARD_NAME, check_room, hold, load_shard, make_shard, release
from .filters import Library, parse_filter, quoted
from .header import HEADER_NAME, RESTORE, Header, describe_loss, make_folder, open_folder, write_header
from .points import AT_ONCE, PointMemory, StoredHeader, pages, to_sides, translate_errors
from .search_index import LEAST, SearchIndex

_FLUSH_EVERY = 5000
"""Points after which the write-ahead log is emptied: reopening after a crash replays it."""
_AT_ONCE = 8
"""Queries, whose hits are made into objects of Python while no other thread runs, nor a service's event loop: with 64,
for 90 to 150 ms on a busy machine in place of 30. More than 8 save 3 % of a search's CPU."""
_SIDES: list[str] = list(MODALITIES)
_EXACT = qe.SearchParams(exact=True)


class EdgeMemory(StoredHeader, PointMemory):
    """A shard with a write-ahead log: what ``upsert`` and ``delete`` wrote survives a killed process.

    Qdrant Edge holds Python's global lock while it works.
    """

    kind = "edge"
    written_at_once = 1000
    library = Library(
        filter=qe.Filter,
        field=qe.FieldCondition,
        range=qe.RangeFloat,
        match_any=qe.MatchAny,
        match_flag=lambda flag: qe.MatchValue(np.bool_(flag)),  # type: ignore[arg-type]  # Edge takes a bool for 0 or 1
        has_id=lambda points: qe.HasIdCondition(set(points)),
        sparse=qe.SparseVector,
        point=qe.Point,
        request=lambda vector, using, **how: qe.QueryRequest(query=qe.Query.Nearest(vector, using=using), **how),
    )

    def __init__(
        self, shard: qe.EdgeShard, header: Header, folder: Path, options: MemoryOptions, held: int | None
    ) -> None:
        """Take over an open shard, and what :func:`~reco_plugin.memory.disk.hold` gave for its folder."""
        StoredHeader.__init__(self, header)
        PointMemory.__init__(self)
        self.location, self._folder = str(folder), folder
        self._shard: qe.EdgeShard | None = shard
        self._release = weakref.finalize(self, release, held)  # also where it is dropped without a close
        self._unflushed, self._flushing = 0, threading.Lock()  # Edge fails where two flush, or one closes
        self._damaged = header.pairs > self.count()
        if self._damaged:
            warnings.warn(f"{self.location}: {describe_loss(self.missing)}", stacklevel=3)
        self._index = SearchIndex(self, enabled=not options.exact)
        self._tenant_field = options.tenant_field
        if self._tenant_field is not None:  # does nothing where it is indexed
            keyword = qe.KeywordIndexParams(is_tenant=True)
            shard.update(qe.UpdateOperation.create_field_index(quoted(self._tenant_field), keyword))

    @classmethod
    def open(
        cls, location: str, fingerprint: Fingerprint | None, options: MemoryOptions, *, create: bool
    ) -> EdgeMemory:
        """Open or create the memory in a folder.

        Raises:
            MemoryReadOnly: the folder cannot be written, and Edge writes even to read.
        """
        folder = Path(location)
        path = folder / SHARD_NAME
        if create and fingerprint is not None:
            make_folder(folder)
        held = hold(folder)
        try:
            header = open_folder(folder, fingerprint, create=create)
            with translate_errors(location, "open"):
                if not path.exists():
                    if header.calibration:
                        raise MemoryStoreError(f"{path} is missing, of which something was learned: {RESTORE}")
                    check_room(folder)
                    make_shard(path, header.fingerprint.dimension)
                if not os.access(path, os.W_OK):
                    raise MemoryReadOnly(
                        f"{path} cannot be written, which the engine needs also to read: allow this user to write it, "
                        "or copy the folder to a place that can be written"
                    )
                shard = load_shard(path, header.fingerprint.dimension)
        except BaseException:
            release(held)
            raise
        return cls(shard, header, folder, options, held)

    def _change(self, change: Callable[[Header], Header]) -> None:
        """Store with each change how many pairs there are at least."""
        super()._change(lambda header: replace(changed := change(header), pairs=max(changed.pairs, self.count())))

    def _store(self, before: Header, after: Header) -> None:
        """Write ``memory.json``."""
        write_header(self._folder, after)

    @property
    def missing(self) -> int:
        """Pairs that were lost before it was opened, because files are damaged, and were not added again."""
        return max(0, self.header.pairs - self.count()) if self._damaged else 0

    def answers(self) -> bool:
        """Whether its folder is still there; without it, the open files are still searched, but nothing is stored."""
        return all((self._folder / name).exists() for name in (HEADER_NAME, SHARD_NAME))

    def count(self, within: Filter | None = None) -> int:
        """Number of pairs, or of those that fulfil conditions."""
        some = self._filter(parse_filter(within))
        with translate_errors(self.location, "count"):
            return _count(self._live(), some)

    @property
    def index_state(self) -> str:
        """See :attr:`reco_plugin.memory.search_index.SearchIndex.state`."""
        return self._index.state

    def point_ids(self) -> Iterator[list[str]]:
        """UUIDs of all points, page by page."""
        found = pages(lambda start: self._page(start, AT_ONCE, False))
        return ([str(point.id) for point in page] for page in found)

    def point_vectors(self, points: Sequence[str]) -> tuple[list[str], dict[Modality, Vectors]]:
        """Those of the points that exist, and their vectors (N, D)."""
        there = self._fetch(points, False, vectors=True)
        with translate_errors(self.location, "read"):
            return [str(point.id) for point in there], to_sides(there, self._dimension)

    def flush(self) -> None:
        """Write segments to the disk and empty the write-ahead log."""
        with self._flushing:
            shard = self._live()
            with translate_errors(self.location, "flush"):
                shard.flush()
            self._unflushed = 0

    def close(self) -> None:
        """Flush and release the folder."""
        if self._shard is not None and self._is_here:
            self._index.close()
            with self._flushing, translate_errors(self.location, "close"):
                shard, self._shard = self._shard, None
                if shard is not None:
                    try:
                        shard.flush()  # fails where another memory has taken the folder's place
                        with self._heading, suppress(MemoryStoreError):  # a smaller number of pairs stays true
                            if (pairs := _count(shard)) > self.header.pairs:
                                self._store(self.header, replace(self.header, pairs=pairs))
                    finally:
                        shard.close()
                        self._release()

    def _live(self) -> qe.EdgeShard:
        return self._shard if self._shard is not None and self._process == os.getpid() else self._opened(self._shard)

    def _put(self, records: Records, points: list[Any]) -> None:
        shard = self._live()
        check_room(self._folder, records)
        with translate_errors(self.location, "write"):
            shard.update(qe.UpdateOperation.upsert_points(points))
        self._index.add([str(point.id) for point in points], {m: records.side(m) for m in MODALITIES})
        self._written(len(points))

    def _drop(self, points: list[str]) -> None:
        shard = self._live()
        check_room(self._folder)
        with self._heading, translate_errors(self.location, "delete"):
            before = self.header
            left = max(before.pairs, self.count()) - len(points)
            if left < before.pairs:  # first, so that a process that is killed in between leaves no loss
                after = replace(before, pairs=left)
                self._store(before, after)
                self._header = after
            shard.update(qe.UpdateOperation.delete_points(list(points)))
        self._written(len(points))

    def _written(self, points: int) -> None:
        self._unflushed += points
        if self._unflushed >= _FLUSH_EVERY:
            self.flush()

    def _find(self, search: Search, wanted: CheckedSearch, filters: Sequence[Any]) -> list[list[Any]]:
        """The hits of each query, by the search index where there is one.

        The index names points to compare with; a query that then finds fewer than k compares all. A small tenant's
        pairs are all compared.
        """
        among = None if self._is_small_tenant(wanted) else self._index.candidates(search.by, wanted)
        if among is None:
            return self._ask(search, wanted, filters, _EXACT)
        narrow = [
            qe.Filter(must=[self.library.has_id(some), *([f] if f else [])])
            for some, f in zip(among, filters, strict=True)
        ]
        found = self._ask(search, wanted, narrow, _EXACT)
        if short := [row for row, hits in enumerate(found) if len(hits) < wanted.k]:
            for row, hits in zip(short, self._ask(search, wanted, filters, _EXACT, short), strict=True):
                found[row] = hits
        return found

    def _is_small_tenant(self, wanted: CheckedSearch) -> bool:
        some = [one for one in wanted.conditions if one.key == self._tenant_field]
        return bool(some) and _count(self._live(), self._filter(some), exact=False) < LEAST

    def _query(self, requests: list[Any]) -> list[list[Any]]:
        shard, found = self._live(), list[list[Any]]()
        for start in range(0, len(requests), _AT_ONCE):
            found += shard.query_batch(qe.QueryBatchRequest(requests[start : start + _AT_ONCE]))
        return found

    def _fetch(self, points: Sequence[str], payload: list[str] | bool, *, vectors: bool) -> list[Any]:
        with translate_errors(self.location, "read"):
            return list(self._live().retrieve(list(points), payload, vectors and _SIDES))

    def _page(
        self, start: Any, size: int, payload: list[str] | bool, *, vectors: bool = False, within: Any = None
    ) -> tuple[list[Any], Any]:
        sides = vectors and _SIDES
        request = qe.ScrollRequest(offset=start, limit=size, filter=within, with_payload=payload, with_vector=sides)
        with translate_errors(self.location, "read"):
            found, behind = self._live().scroll(request)
            return list(found), behind


def _count(shard: qe.EdgeShard, within: Any = None, *, exact: bool = True) -> int:
    return int(shard.count(qe.CountRequest(exact=exact, filter=within)))
