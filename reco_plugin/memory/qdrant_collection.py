"""A connection to a Qdrant collection: its header, read again as others write, and its points."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qdrant_client import QdrantClient, models

from ..errors import FingerprintMismatch, MemoryStoreError
from ..memory_options import MemoryOptions
from ..types import Records
from .checks import Opener, chunks
from .collection import OpenCollection, collection_of_alias, read_collection
from .filters import USER_ID, WITNESSES
from .header import Header
from .points import pages, stored_payload, to_records, translate_errors
from .server import Server

IDS_AT_ONCE = 1000
T = TypeVar("T")


class QdrantCollection:
    """One collection of a client, with the names of its vectors."""

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
        self._warned = False  # of a size
        self._read_again_at = time.monotonic() + self._options.refresh_s

    @property
    def header(self) -> Header:
        """Fingerprint and trust."""
        return self._header

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

    def _set_witnesses(self, client: QdrantClient, names: Sequence[str], witnesses: dict[str, list[float]]) -> None:
        found = self._retrieve(IDS_AT_ONCE, names, vectors=False, payload=[USER_ID], write=True)
        there = {str(point.id) for page in found for point in page}
        rows = [(point, witnesses[name]) for name in names if str(point := self._layout.point_id(name)) in there]
        changes = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={WITNESSES: row}, points=[point]))
            for point, row in rows
        ]
        if changes:
            self._run(
                "write",
                lambda left: client.batch_update_points(self.collection, changes, wait=True, timeout=left),
                write=True,
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
        for points in self._retrieve(batch_size, ids, vectors=vectors):
            if whole := [point for point in points if len(point.vector or ()) == len(vectors)]:
                yield to_records(whole, self._dimension, self._layout.names)

    def _retrieve(
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
