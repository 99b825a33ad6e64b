"""A Qdrant server, or qdrant-client's own small engine in a folder or in RAM."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from qdrant_client import QdrantClient, models

from ..defaults import SCROLL_BATCH
from ..errors import FingerprintMismatch, MemoryStoreError
from ..memory_options import USABLE, MemoryOptions
from ..request import Search
from ..types import Fingerprint, Neighbours, Payload, Records
from .checks import Opener, check_ids, check_positive, check_records, check_search, chunks
from .collection import (
    METADATA_KEY,
    OpenCollection,
    collection_of_alias,
    consistency,
    local_client,
    open_local,
    open_served,
    read_collection,
    search_params,
)
from .filters import USER_ID
from .header import Header, open_folder, to_json, write_header
from .layout import has_id
from .points import pages, refuse_shared_points, stored_payload, to_neighbours, to_payload, to_records, translate_errors
from .qdrant_search import query_batch
from .server import Server, client_closed_on_error

LOCAL_LIMIT = 20_000
"""Points above which the client's own engine is too slow."""
_POINTS_AT_ONCE = 256  # 6 MB of pairs of 1024 dimensions; a server takes 32 MB by REST
_IDS_AT_ONCE = 1000
T = TypeVar("T")


class QdrantMemory:
    """One collection with two named vectors; the header is in its metadata, or in ``memory.json`` of a folder.

    On a server, ``collection`` is an alias that readers follow, so a new version can be swapped in while they run.
    """

    kind = "qdrant"

    def __init__(
        self, client: QdrantClient, opened: OpenCollection, *, location: str, collection: str, server: Server | None
    ) -> None:
        self.location = location
        self.collection = collection
        self._client: QdrantClient | None = client
        self._header, self._layout, self._opener = opened.header, opened.layout, Opener()
        self._server = server
        self._folder = None if server or location == ":memory:" else Path(location)
        self._options = server.options if server else MemoryOptions()
        self._patience = server.patience if server else None
        self._warned = False
        self._read_again_at = time.monotonic() + self._options.refresh_s

    @classmethod
    def open_local(
        cls, location: str, fingerprint: Fingerprint | None, options: MemoryOptions, *, create: bool, collection: str
    ) -> QdrantMemory:
        """Open or create a memory of the client's own engine."""
        folder = None if location == ":memory:" else Path(location)
        if folder:  # in RAM, a server's options are ignored
            options.check_fits(cls.kind, USABLE[cls.kind], location)
        header = open_folder(folder, cls.kind, fingerprint, create=create) if folder else None
        with translate_errors(location, "open", locked="already accessed by another instance"):
            client = local_client(folder)
            with client_closed_on_error(client):
                opened = open_local(client, collection, location, header, fingerprint, create=create)
        return cls(client, opened, location=location, collection=collection, server=None)

    @classmethod
    def open_served(
        cls, server: Server, fingerprint: Fingerprint | None, *, create: bool, collection: str
    ) -> QdrantMemory:
        """Open or create the memory of a server."""
        client = server.connect()
        with client_closed_on_error(client):
            opened = server.patience.run(
                "open",
                lambda _: open_served(client, collection, server.location, fingerprint, server.options, create=create),
            )
        return cls(client, opened, location=server.location, collection=collection, server=server)

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        return self._header

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store the gate's constants."""
        client = self._live()
        header = replace(self._header, calibration=dict(calibration))
        stored = to_json(self.kind, header)
        if self._folder:
            write_header(self._folder, self.kind, header)
        else:
            self._run("write", lambda _: self._say(client, {METADATA_KEY: stored}), write=True)
        self._header = header

    def count(self) -> int:
        """Number of pairs."""
        client, where = self._live(), self._layout.pairs_only()
        return self._run("count", lambda left: client.count(self.collection, where, exact=True, timeout=left)).count

    def upsert(self, records: Records) -> None:
        """Add or replace pairs, vectors (N, D); returns when they can be found."""
        client = self._writable("add pairs to")
        checked = check_records(records, self._dimension)
        there = self._retrieved(_IDS_AT_ONCE, checked.ids, vectors=False, payload=[USER_ID], write=True)
        refuse_shared_points(checked.ids, self._layout.point_id, (point for page in there for point in page))
        for start in range(0, len(checked), _POINTS_AT_ONCE):
            points = self._to_points(checked, slice(start, start + _POINTS_AT_ONCE))
            self._run(
                "write",
                lambda left, points=points: client.upsert(self.collection, points, wait=True, timeout=left),  # type: ignore[misc]
                write=True,
            )
        self._warn_of_size()

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        client = self._writable("remove pairs from")
        points: list[Any] = [self._layout.point_id(name) for name in set(check_ids(ids, "delete"))]
        if not points:
            return 0
        there = models.Filter(must=[has_id(points)])
        found = self._run("delete", lambda left: client.count(self.collection, there, exact=True, timeout=left))
        gone = models.PointIdsList(points=points)
        self._run("delete", lambda left: client.delete(self.collection, gone, wait=True, timeout=left), write=True)
        return found.count

    def search(self, search: Search) -> Neighbours:
        """Find the k nearest pairs of queries (B, D), all in one call; reads the header again every ``refresh_s``."""
        client = self._live()
        self._read_again(client)
        layout = self._layout
        read = layout.name(search.read)
        wanted = check_search(search, self._dimension)
        params = search_params(self._options, wanted.k) if self._server else None
        requests = [
            models.QueryRequest(
                query=vector,
                using=layout.name(search.by),
                limit=wanted.k,
                filter=condition,
                with_vector=[read],
                with_payload=search.payloads or ([USER_ID] if search.ids and not layout.attached else False),
                params=params,
            )
            for vector, condition in zip(wanted.vectors.tolist(), layout.filters(wanted), strict=True)
        ]
        found = self._run("search", lambda left: self._query(client, requests, left)) if requests else []
        return to_neighbours(found, self._dimension, k=wanted.k, read=read, payloads=search.payloads)

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs in the collection's order, or those of ``ids`` in their order, in batches (N, D)."""
        self._live()
        check_positive(batch_size, "batch_size")
        if ids is None:
            return self._scroll_all(batch_size)
        return self._scroll_ids(batch_size, check_ids(ids, "scroll"))

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of all pairs, or of ``ids``."""
        self._live()
        if ids is None:
            pages = self._pages(self._layout.pairs_only(), _IDS_AT_ONCE, vectors=False)
        elif self._layout.attached:  # points that lack a vector are not pairs, so vectors are read too
            return (row for each in self.scroll(_IDS_AT_ONCE, ids) for row in zip(each.ids, each.payloads, strict=True))
        else:
            pages = self._retrieved(_IDS_AT_ONCE, check_ids(ids, "ids"), vectors=False)
        return (to_payload(point) for page in pages for point in page)

    def flush(self) -> None:
        """Nothing to do: every write waits until it is durable."""
        self._live()

    def close(self) -> None:
        """Release the connection or folder."""
        if self._client is not None and self._opener.is_here:  # in a fork, the process that opened it closes it
            with translate_errors(self.location, "close", locked="\0"):
                self._client.close()
            self._client = None

    @property
    def _dimension(self) -> int:
        return self._header.fingerprint.dimension

    def _live(self) -> QdrantClient:
        if self._client is None:
            raise MemoryStoreError(f"the memory at {self.location!r} is closed: open it again")
        self._opener.refuse_fork(self.location)
        return self._client

    def _writable(self, what: str) -> QdrantClient:
        if not self._layout.writable:
            raise MemoryStoreError(
                f"cannot {what} the collection {self.collection!r} at {self.location!r}: it was attached for reading "
                "only. Write to it as its owner does, or attach it again with --writable"
            )
        return self._live()

    def _run(self, doing: str, action: Callable[[int | None], T], *, write: bool = False) -> T:
        if self._patience is not None:
            return self._patience.run(doing, action, write=write)
        with translate_errors(self.location, doing, locked="already accessed by another instance"):
            return action(None)

    def _query(self, client: QdrantClient, requests: list[models.QueryRequest], left: int | None) -> list[list[Any]]:
        if self._server is None:
            return [answer.points for answer in client.query_batch_points(self.collection, requests)]
        agreed, within = consistency(self._options), self._options.timeout_s
        return query_batch(client, self.collection, requests, agreed, within, left)

    def _read_again(self, client: QdrantClient) -> None:
        """Read header and layout again: another process may have swapped the version or calibrated it.

        Raises:
            FingerprintMismatch: the version is of another encoder; every search raises it until that changes.
        """
        if self._server is None or time.monotonic() < self._read_again_at:
            return
        header, before = self._header, self._read_again_at
        self._read_again_at = time.monotonic() + self._options.refresh_s  # set now, so that only one search does it
        try:
            opened = self._run(
                "read", lambda _: read_collection(client, self.collection, self.location, header.fingerprint)
            )
        except FingerprintMismatch:
            self._read_again_at = before
            raise
        except MemoryStoreError:  # if the store is down, the search itself fails
            return
        self._layout = opened.layout
        if opened.header != header and self._header is header:  # not if it was calibrated here meanwhile
            self._header = opened.header

    def _say(self, client: QdrantClient, metadata: dict[str, Any]) -> None:
        real = (self._server and collection_of_alias(client, self.collection)) or self.collection
        client.update_collection(real, metadata=metadata)

    def _warn_of_size(self) -> None:
        if self._server is None and not self._warned and (pairs := self.count()) > LOCAL_LIMIT:
            self._warned = True
            warnings.warn(
                f"the memory at {self.location!r} holds {pairs} pairs, and qdrant-client's own engine is slow above "
                f"{LOCAL_LIMIT}: use kind='edge', or a Qdrant server",
                stacklevel=3,
            )

    def _scroll_all(self, batch_size: int) -> Iterator[Records]:
        for points in self._pages(self._layout.pairs_only(), batch_size, vectors=list(self._layout.names.values())):
            yield to_records(points, self._dimension, self._layout.names)

    def _pages(self, where: models.Filter | None, size: int, *, vectors: list[str] | bool) -> Iterator[list[Any]]:
        def read(start: Any) -> Any:
            client = self._live()
            asked: Any = {"limit": size, "with_payload": True, "with_vectors": vectors}
            return self._run(
                "read",
                lambda left: client.scroll(self.collection, where, offset=start, timeout=left, **asked),
            )

        return pages(read)

    def _scroll_ids(self, batch_size: int, ids: list[str]) -> Iterator[Records]:
        vectors = list(self._layout.names.values())
        for points in self._retrieved(batch_size, ids, vectors=vectors):
            if whole := [point for point in points if len(point.vector or ()) == len(vectors)]:
                yield to_records(whole, self._dimension, self._layout.names)

    def _retrieved(
        self, size: int, ids: Sequence[str], *, vectors: Any, payload: Any = True, write: bool = False
    ) -> Iterator[list[Any]]:
        """The existing points of these ids, in their order."""
        for chunk in chunks(ids, size):
            client, wanted = self._live(), [self._layout.point_id(name) for name in chunk]
            points = self._run(
                "read",
                lambda left, client=client, wanted=wanted: client.retrieve(  # type: ignore[misc]
                    self.collection, wanted, with_payload=payload, with_vectors=vectors, timeout=left
                ),
                write=write,  # part of a write: its longer time limit
            )
            there = {str(point.id): point for point in points}
            yield [there[str(name)] for name in wanted if str(name) in there]

    def _to_points(self, records: Records, rows: slice) -> list[models.PointStruct]:
        columns = (records.ids[rows], records.image[rows].tolist(), records.text[rows].tolist(), records.payloads[rows])
        layout = self._layout
        return [
            models.PointStruct(
                id=layout.point_id(name),
                vector={layout.image: image, layout.text: text},
                payload=stored_payload(name, payload),
            )
            for name, image, text, payload in zip(*columns, strict=True)
        ]
