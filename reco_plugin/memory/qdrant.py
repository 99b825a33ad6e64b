"""A memory on a Qdrant server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models

from ..defaults import NEIGHBOURS, SCROLL_BATCH, SEARCH_EF
from ..errors import MemoryStoreError
from ..types import Fingerprint, Neighbours, Payload, Records, Search
from ..words import asked_by_words
from .checks import check_ids, check_positive, check_records, check_search, check_witnesses, chunks, part_of_a_write
from .collection import open_served, search_params
from .filters import USER_ID, WITNESSES
from .header import Header
from .points import (
    READ_BEFORE,
    compare_stored,
    ids_behind,
    pages,
    to_ids,
    to_neighbours,
    to_payload,
    to_records,
    to_witnesses,
    translate_errors,
    wanted_payload,
)
from .qdrant_collection import IDS_AT_ONCE, QdrantCollection
from .said import SaidRecord
from .server import Server, client_closed_on_error

log = logging.getLogger(__name__)
_DEPTH_KEY = "search_ef"
"""Of what a memory learned: how deep its searches must look."""
_DEPTHS = (64, 96, 128, 192, 256, 384, 512, 1024)
"""Candidates that the HNSW index may look at, as they are tried."""
_RECALL = 0.98
"""Share of the true ten nearest that a search must find, on pairs of the memory."""
_ASKED = 50
"""Pairs that ask, by image and by text; 50 exact searches each take 10 s among a million pairs."""
DEEP = 10_000
"""Pairs from which it is worth measuring: fewer are compared with all of them, or nearly so."""
_POINTS_AT_ONCE = 256  # 6 MB of pairs of 1024 dimensions; a server takes 32 MB by REST


class QdrantMemory(QdrantCollection):
    """One collection with two named vectors; the header is in its metadata.

    ``collection`` is an alias that readers follow, so a new version can be swapped in while they run.
    """

    kind = "qdrant"

    @classmethod
    def open(cls, server: Server, fingerprint: Fingerprint | None, *, create: bool, collection: str) -> QdrantMemory:
        """Open or create the memory of a server."""
        client = server.connect()
        with client_closed_on_error(client):
            opened = open_served(client, server, collection, fingerprint, create=create)
        return cls(client, opened, server, collection)

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store what was learned, see :mod:`.kept_served`.

        With it goes ``search_ef``, how deep searches must look, of a large memory on a server.
        """
        client = self._live()
        kept = {
            name: value for name, value in calibration.items() if name != _DEPTH_KEY
        }  # of another memory, where copied
        learned = kept | self._depth(client) if kept else {}
        with self._heading:
            self._header = self._kept.keep_calibration(self._header, learned)

    def note_learning(self, note: dict[str, Any]) -> None:
        """Keep who learns from the pairs."""
        self._live()
        with self._heading:
            self._header = self._kept.keep_note(self._header, note)

    def look(self) -> Header:
        """The header, read anew.

        Raises:
            FingerprintMismatch: another version was put to use, of another encoder.
        """
        self._live()
        with self._heading:
            self._take_over()
        return self._header

    def change_said(self, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        """Store what people said: a point each, so that none writes over another's."""
        self._live()
        with self._heading:
            self._header = self._kept.keep_said(self._header, added, gone)

    def set_witnesses(self, ids: Sequence[str], witnesses: npt.NDArray[np.float32]) -> None:
        """Store the witnesses (N, 3) of pairs in their payload; none in a collection attached for reading only."""
        client, checked = self._live(), check_witnesses(ids, witnesses)
        if not self._layout.writable:
            return
        for names in chunks(list(checked), _POINTS_AT_ONCE):
            try:
                self._set_witnesses(client, names, checked)
            except MemoryStoreError as error:
                if type(error) is not MemoryStoreError:  # an outage
                    raise
                self._set_witnesses(client, names, checked)  # a pair was deleted meanwhile, which a server refuses

    def witnesses(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """The witnesses (N, 3) of pairs."""
        names = check_ids(ids, "ids")
        found = self._retrieve(IDS_AT_ONCE, names, vectors=False, payload=[WITNESSES])
        return to_witnesses(chain.from_iterable(found), [self._layout.point_id(name) for name in names])

    def count_unjudged(self) -> int:
        """Number of pairs without witnesses; 0 in a collection attached for reading only."""
        client, where = self._live(), self._layout.unjudged()
        if not self._layout.writable:
            return 0
        found = self._ask_unjudged("count", lambda left: client.count(self.collection, where, exact=True, timeout=left))
        return found.count

    def unjudged(self, most: int) -> list[str]:
        """Ids of pairs without witnesses, at most so many; none in a collection attached for reading only."""
        client, where = self._live(), self._layout.unjudged()
        size = min(check_positive(most, "most"), IDS_AT_ONCE)
        asked: Any = {"limit": size, "with_payload": [USER_ID], "with_vectors": False}

        def read(start: Any) -> Any:
            return self._ask_unjudged(
                "read", lambda left: client.scroll(self.collection, where, offset=start, timeout=left, **asked)
            )

        return to_ids(islice(chain.from_iterable(pages(read)), most)) if self._layout.writable else []

    def count(self) -> int:
        """Number of pairs."""
        client, where = self._live(), self._layout.pairs_only()
        return self._run("count", lambda left: client.count(self.collection, where, exact=True, timeout=left)).count

    def upsert(self, records: Records) -> None:
        """Add or replace pairs, vectors (N, D); returns when they can be found."""
        client = self._writable("add pairs to")
        checked = check_records(records, self._dimension)
        if not (self._words_given or self._layout.attached):
            self._give_words()
        layout = self._layout
        there = self._retrieve(_POINTS_AT_ONCE, checked.ids, vectors=True, payload=list(READ_BEFORE), write=True)
        kept = compare_stored(checked, layout.point_id, chain.from_iterable(there), layout.names)
        for start in range(0, len(checked), _POINTS_AT_ONCE):
            points = self._to_points(checked, slice(start, start + _POINTS_AT_ONCE), kept)
            self._run(
                "write",
                lambda left, points=points: client.upsert(self.collection, points, wait=True, timeout=left),  # type: ignore[misc]
                write=True,
            )

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        client = self._writable("remove pairs from")
        points: list[Any] = [self._layout.point_id(name) for name in set(check_ids(ids, "delete"))]
        if not points:
            return 0
        there = models.Filter(must=[models.HasIdCondition(has_id=points)])
        with part_of_a_write():
            found = self._run("delete", lambda left: client.count(self.collection, there, exact=True, timeout=left))
        gone = models.PointIdsList(points=points)
        self._run("delete", lambda left: client.delete(self.collection, gone, wait=True, timeout=left), write=True)
        return found.count

    def search(self, search: Search) -> Neighbours:
        """Find the k nearest pairs of queries (B, D), all in one call; the header is read again every ``refresh_s``."""
        client = self._live()
        self._read_again()
        layout = self._layout
        read = layout.name(search.read)
        wanted = check_search(search, self._dimension)
        filters, told = list(layout.filters(wanted)), list[str]()
        if search.words is not None and layout.words:  # not in the same call: they say what is searched with
            pairs, find = self._header.calibration.get("pairs", 0), partial(self._by_words, filters)
            vectors, told = asked_by_words(search, wanted.vectors, pairs, find)
            wanted = replace(wanted, vectors=vectors)
        params = search_params(self._options, wanted.k, self._measured_depth())
        requests = [
            models.QueryRequest(
                query=vector,
                using=layout.name(search.by),
                limit=wanted.k,
                filter=condition,
                with_vector=[read],
                with_payload=wanted_payload(search, ids=not layout.attached),
                params=params,
            )
            for vector, condition in zip(wanted.vectors.tolist(), filters, strict=True)
        ]
        found = self._run("search", lambda left: self._query(client, requests, left)) if requests else []
        near = to_neighbours(found, self._dimension, search, k=wanted.k, read=read)
        return replace(near, asked=wanted.vectors, words=told) if told else near

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs in the collection's order, or those of ``ids`` in their order, in batches (N, D)."""
        self._live()
        check_positive(batch_size, "batch_size")
        names, vectors = self._layout.names, list(self._layout.names.values())
        if ids is None:
            pages = self._pages(self._layout.pairs_only(), batch_size, vectors=vectors)
        else:
            pages = self._retrieve(batch_size, check_ids(ids, "scroll"), vectors=vectors)
        pairs = ([point for point in page if len(point.vector or ()) == len(vectors)] for page in pages)
        return (to_records(page, self._dimension, names) for page in pairs if page)

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of all pairs, or of ``ids``."""
        self._live()
        if ids is None:
            pages = self._pages(self._layout.pairs_only(), IDS_AT_ONCE, vectors=False)
        elif self._layout.attached:  # points that lack a vector are not pairs, so vectors are read too
            return (row for each in self.scroll(IDS_AT_ONCE, ids) for row in zip(each.ids, each.payloads, strict=True))
        else:
            pages = self._retrieve(IDS_AT_ONCE, check_ids(ids, "ids"), vectors=False)
        return map(to_payload, chain.from_iterable(pages))

    def ids_after(self, last: str | None, limit: int) -> list[str]:
        """The next ids behind ``last``, in the order of point ids."""
        client, layout = self._live(), self._layout
        start = None if last is None else layout.point_id(last)
        size, where = check_positive(limit, "limit") + (start is not None), layout.pairs_only()
        asked: Any = {"limit": size, "offset": start, "with_payload": [USER_ID], "with_vectors": False}
        found, _ = self._run("read", lambda left: client.scroll(self.collection, where, timeout=left, **asked))
        return ids_behind(found, start, limit)

    def flush(self) -> None:
        """Nothing to do: every write waits until it is durable."""
        self._live()

    def close(self) -> None:
        """Release the connection."""
        if self._client is not None and self._opener.is_here:  # in a fork, the process that opened it closes it
            with translate_errors(self.location, "close"):
                self._client.close()
            self._client = None

    def _measured_depth(self) -> int:
        depth = self._header.calibration.get(_DEPTH_KEY)
        return depth if isinstance(depth, int) and depth > 0 else SEARCH_EF

    def _depth(self, client: QdrantClient) -> dict[str, int]:
        """How deep searches must look, measured on pairs; nothing where that changes nothing."""
        if self.count() < DEEP:
            return {}
        names, where = self._layout.names.values(), self._layout.pairs_only()

        def ask(params: models.SearchParams) -> list[set[Any]]:
            given: Any = {"limit": NEIGHBOURS, "filter": where, "params": params}
            queries = [(name, point.vector[name]) for point in some for name in names if name in point.vector]
            requests = [models.QueryRequest(query=vector, using=name, **given) for name, vector in queries]
            found = (self._run("search", lambda left, r=r: self._query(client, [r], left)) for r in requests)  # type: ignore[misc]
            return [{hit.id for hit in answer} for (answer,) in found]

        try:
            some = next(self._pages(where, _ASKED, vectors=list(names)))  # ids are hashes: a random choice
            return {_DEPTH_KEY: _find_depth(ask)}
        except MemoryStoreError as error:  # what was learned is stored nevertheless
            log.warning("how deep searches must look is not known, %d stays: %s", SEARCH_EF, error)
            return {}


def _find_depth(ask: Callable[[models.SearchParams], list[set[Any]]]) -> int:
    """The fewest candidates with which a search finds enough; the most, where none does.

    ``ask`` searches with all pairs that ask, and gives the points that each found.
    """
    true = ask(models.SearchParams(exact=True))
    for depth in _DEPTHS[:-1]:
        found = ask(models.SearchParams(hnsw_ef=depth))
        if sum(len(a & b) for a, b in zip(true, found, strict=True)) >= _RECALL * sum(map(len, true)):
            return depth
    return _DEPTHS[-1]
