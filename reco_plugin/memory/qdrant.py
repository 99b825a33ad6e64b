"""A Qdrant server, or qdrant-client's own small engine in a folder or in RAM."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from qdrant_client import QdrantClient, models

from ..errors import MemoryStoreError
from ..types import Filter, Fingerprint, Modality, Neighbours, Records, Vectors
from .checks import USER_ID, Search, check_ids, check_positive, check_records, check_search, chunks
from .collection import METADATA_KEY, Server, folder_of, local_client, open_collection, way_out
from .filters import WHOLE, Condition, Scalar
from .header import Header, open_folder, to_json, write_header
from .points import point_id, stored_payload, to_neighbours, to_records, translated

LOCAL_LIMIT = 20_000
"""Points above which the client's own engine is too slow to be of use."""
_POINTS_AT_ONCE = 256
"""A server takes 32 MB by REST; this many pairs of 1024 dimensions are about 6 MB."""


class QdrantMemory:
    """One collection with two named vectors; the header is in its metadata, or in ``memory.json`` of a folder."""

    kind = "qdrant"

    def __init__(
        self,
        client: QdrantClient,
        header: Header,
        *,
        location: str,
        collection: str,
        server: Server | None,
        hnsw_ef: int,
    ) -> None:
        self.location = location
        self._client: QdrantClient | None = client
        self._header = header
        self._collection = collection
        self._server = server
        self._folder = folder_of(location, server)
        self._params = models.SearchParams(hnsw_ef=hnsw_ef) if server else None
        self._warned = False

    @classmethod
    def open(
        cls,
        location: str,
        fingerprint: Fingerprint | None,
        *,
        create: bool,
        collection: str,
        server: Server | None,
        hnsw_ef: int,
    ) -> QdrantMemory:
        """Open or make the memory."""
        folder = folder_of(location, server)
        header = open_folder(folder, cls.kind, fingerprint, create=create) if folder else None
        with _translated(location, "open"):
            client = server.connect() if server else local_client(folder)
            try:
                header = open_collection(client, collection, location, header, fingerprint, create=create)
            except BaseException:
                client.close()
                raise
        return cls(client, header, location=location, collection=collection, server=server, hnsw_ef=hnsw_ef)

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        return self._header

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store the gate's constants."""
        client = self._live()
        header = replace(self._header, calibration=dict(calibration))
        if self._folder:
            write_header(self._folder, self.kind, header)
        else:
            stored = to_json(self.kind, header)
            with _translated(self.location, "write"):
                client.update_collection(self._collection, metadata={METADATA_KEY: stored})
        self._header = header

    def count(self) -> int:
        """Number of pairs."""
        client = self._live()
        with _translated(self.location, "count"):
            return client.count(self._collection, exact=True).count

    def upsert(self, records: Records) -> None:
        """Add or replace pairs; returns when they can be found."""
        client = self._live()
        checked = check_records(records, self._dimension)
        for start in range(0, len(checked), _POINTS_AT_ONCE):
            points = _to_points(checked, slice(start, start + _POINTS_AT_ONCE))
            with _translated(self.location, "write"):
                client.upsert(self._collection, points, wait=True)
        self._warn_of_size()

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many were there."""
        client = self._live()
        points: list[Any] = [point_id(name) for name in set(check_ids(ids, "delete"))]
        if not points:
            return 0
        with _translated(self.location, "delete"):
            there = client.count(self._collection, models.Filter(must=[_has_id(points)]), exact=True).count
            client.delete(self._collection, models.PointIdsList(points=points), wait=True)
        return there

    def search(
        self,
        vectors: Vectors,
        *,
        by: Modality,
        read: Modality,
        k: int,
        exclude: Sequence[Collection[str]] | None = None,
        where: Filter | None = None,
        payloads: bool = False,
    ) -> Neighbours:
        """Find each query's k nearest pairs, all queries in one call."""
        client = self._live()
        wanted = check_search(vectors, self._dimension, by=by, read=read, k=k, exclude=exclude, where=where)
        requests = [
            models.QueryRequest(
                query=vector,
                using=by,
                limit=int(k),
                filter=condition,
                with_vector=[read],
                with_payload=True if payloads else [USER_ID],
                params=self._params,
            )
            for vector, condition in zip(wanted.vectors.tolist(), _filters(wanted), strict=True)
        ]
        with _translated(self.location, "search"):
            answers = client.query_batch_points(self._collection, requests) if requests else []
        found = [answer.points for answer in answers]
        return to_neighbours(found, self._dimension, k=k, read=read, payloads=payloads)

    def scroll(self, batch_size: int = 1024, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs in the collection's order, or those of these ids in their order."""
        self._live()
        check_positive(batch_size, "batch_size")
        if ids is None:
            return self._scroll_all(batch_size)
        return self._scroll_ids(batch_size, check_ids(ids, "scroll"))

    def flush(self) -> None:
        """Nothing to do: every write was answered when it was durable."""
        self._live()

    def close(self) -> None:
        """Let go of the connection or folder."""
        if self._client is not None:
            with _translated(self.location, "close"):
                self._client.close()
            self._client = None

    @property
    def _dimension(self) -> int:
        return self._header.fingerprint.dimension

    def _live(self) -> QdrantClient:
        if self._client is None:
            raise MemoryStoreError(f"the memory at {self.location!r} is closed: open it again")
        return self._client

    def _warn_of_size(self) -> None:
        if self._server is None and not self._warned and (pairs := self.count()) > LOCAL_LIMIT:
            self._warned = True
            warnings.warn(
                f"the memory at {self.location!r} holds {pairs} pairs, and qdrant-client's own engine is slow above "
                f"{LOCAL_LIMIT}: use kind='edge', or a Qdrant server",
                stacklevel=3,
            )

    def _scroll_all(self, batch_size: int) -> Iterator[Records]:
        offset = None
        while True:
            with _translated(self.location, "read"):
                points, offset = self._live().scroll(
                    self._collection, limit=batch_size, offset=offset, with_payload=True, with_vectors=True
                )
            if points:
                yield to_records(points, self._dimension)
            if offset is None:
                return

    def _scroll_ids(self, batch_size: int, ids: list[str]) -> Iterator[Records]:
        for chunk in chunks(ids, batch_size):
            wanted = [point_id(name) for name in chunk]
            with _translated(self.location, "read"):
                points = self._live().retrieve(self._collection, list(wanted), with_payload=True, with_vectors=True)
            there = {str(point.id): point for point in points}
            if there:
                yield to_records([there[name] for name in wanted if name in there], self._dimension)


def _to_points(records: Records, rows: slice) -> list[models.PointStruct]:
    columns = (records.ids[rows], records.image[rows].tolist(), records.text[rows].tolist(), records.payloads[rows])
    return [
        models.PointStruct(
            id=point_id(name), vector={"image": image, "text": text}, payload=stored_payload(name, payload)
        )
        for name, image, text, payload in zip(*columns, strict=True)
    ]


def _filters(wanted: Search) -> Iterator[models.Filter | None]:
    must: list[Any] = [_condition(condition) for condition in wanted.conditions]
    for ids in wanted.exclude:
        must_not: list[Any] = [_has_id([point_id(name) for name in ids])] if ids else []
        yield models.Filter(must=must or None, must_not=must_not or None) if must or must_not else None


def _has_id(points: list[Any]) -> models.HasIdCondition:
    return models.HasIdCondition(has_id=points)


def _condition(condition: Condition) -> models.Filter | models.FieldCondition | models.HasIdCondition:
    key = f'"{condition.key}"'  # quoted: a dot in it is no path
    if condition.any_of is None:
        return models.FieldCondition(key=key, range=models.Range(**condition.bounds))
    if not condition.any_of:
        return _has_id([])
    return models.Filter(should=[_equal(key, value) for value in condition.any_of])


def _equal(key: str, value: Scalar) -> models.FieldCondition:
    if isinstance(value, (bool, str)) or (isinstance(value, int) and abs(value) >= WHOLE):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))


def _translated(location: str, doing: str) -> AbstractContextManager[None]:
    return translated(location, doing, locked="already accessed by another instance", way_out=way_out)
