"""A memory on a Qdrant server: one collection with two named vectors, behind an alias that readers follow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from ..errors import FingerprintMismatch, MemoryStoreError
from ..types import MODALITIES, Filter, Fingerprint, Neighbours, Records, Search
from .checks import CheckedSearch
from .collection import (
    PAIRS,
    ServedState,
    count_pairs,
    open_served,
    read_collection,
    search_params,
)
from .connection import Server
from .filters import Library, parse_filter
from .header import Header
from .points import PointMemory, StoredHeader

T = TypeVar("T")
_SIDES = [str(modality) for modality in MODALITIES]


class QdrantMemory(StoredHeader, PointMemory):
    """A collection, or the one that an alias stands for: a new version can be put to use while others search."""

    kind = "qdrant"
    written_at_once = 256  # 6 MB of pairs of 1024 dimensions; a server takes 32 MB by REST
    library = Library(
        filter=models.Filter,
        field=models.FieldCondition,
        range=models.Range,
        match_any=lambda texts: models.MatchAny(any=texts),
        match_flag=lambda flag: models.MatchValue(value=flag),
        has_id=lambda points: models.HasIdCondition(has_id=list(points)),
        sparse=lambda indices, values: models.SparseVector(indices=indices, values=values),
        point=lambda point, vector, payload: models.PointStruct(id=point, vector=vector, payload=payload),
        request=lambda vector, using, **how: models.QueryRequest(query=vector, using=using, **how),
    )

    def __init__(self, server: Server, fingerprint: Fingerprint | None, collection: str, *, create: bool) -> None:
        """Ask nothing yet: the first call opens the collection, or makes it."""
        StoredHeader.__init__(self, None)
        PointMemory.__init__(self)
        self.location, self.collection = server.location, collection
        self._server, self._options, self._run = server, server.options, server.run
        self._client: QdrantClient | None = server.connect()
        self._state = ServedState(server, lambda: self._opened(self._client), collection)
        self._opening = threading.Lock()
        self._expected, self._create = fingerprint, create
        self._read_again_at = 0.0

    def open(self) -> None:
        """Open the collection, or make it, if that was not done yet; concurrent calls share one attempt.

        Raises:
            FingerprintMismatch: it is of another encoder.
            MemoryStoreError: there is none and it is not to be made, or it cannot be reached.
        """
        with self._opening:
            if self._header is None:
                client = self._opened(self._client)
                open_served(client, self._server, self.collection, self._expected, create=self._create)
                self._header = self._read_header()
                self._read_again_at = time.monotonic() + self._options.refresh_s

    @property
    def header(self) -> Header:
        """Fingerprint and calibration; only the expected fingerprint until the collection was opened."""
        if self._header is not None:
            return self._header
        if self._expected is None:
            raise MemoryStoreError(f"the memory at {self.location!r} was not reached yet")
        return Header(self._expected)

    def answers(self) -> bool:
        """Whether the server answers now, within a second, at the address that its name has now."""
        self._opened(self._client)
        return self._server.answers()

    def count(self, within: Filter | None = None) -> int:
        """Number of pairs, or of those that fulfil conditions."""
        client, some = self._live(), self._filter(parse_filter(within))
        return self._run("count", lambda left: count_pairs(client, self.collection, left, some))

    def search(self, search: Search) -> Neighbours:
        """Find the k nearest pairs of queries (B, D), all in one call; the header is read again every ``refresh_s``."""
        self._live()
        self._read_again()
        return super().search(search)

    def flush(self) -> None:
        """Nothing to do: every write waits until it is durable."""
        self._live()

    def close(self) -> None:
        """Release the connection."""
        if self._client is not None and self._is_here:
            self._client.close()
            self._client = None

    def _live(self) -> QdrantClient:
        client = self._opened(self._client)
        if self._header is None:
            self.open()
        return client

    def _write(self, doing: str, action: Callable[[int | None], object]) -> None:
        self._run(doing, action, write=True)

    def _put(self, records: Records, points: list[Any]) -> None:
        client = self._live()
        self._write("write", lambda left: client.upsert(self.collection, points, wait=True, timeout=left))

    def _drop(self, points: list[str]) -> None:
        client, gone = self._live(), models.PointIdsList(points=[*points])
        self._write("delete", lambda left: client.delete(self.collection, gone, wait=True, timeout=left))

    def _read_again(self) -> None:
        """Read the header again: another process may have swapped the version, learned, or stored an opinion.

        Raises:
            FingerprintMismatch: the version is of another encoder; every search raises it until that changes.
        """
        now, due = time.monotonic(), self._read_again_at
        if now < due:
            return
        self._read_again_at = now + self._options.refresh_s  # set now, so that only one search does it
        if not self._heading.acquire(blocking=False):  # it is being written here: the next search reads it
            return
        try:
            self._newest()
        except FingerprintMismatch:
            self._read_again_at = due
            raise
        except MemoryStoreError:  # if the store is down, the search itself fails
            pass
        finally:
            self._heading.release()

    def _newest(self) -> Header:
        """The header, read anew.

        Raises:
            FingerprintMismatch: another version was put to use, of another encoder.
        """
        self._live()
        self._header = self._read_header()
        return self._header

    def _store(self, before: Header, after: Header) -> None:
        self._state.write(before, after)

    def _read_header(self) -> Header:
        client = self._opened(self._client)

        def encoder() -> Fingerprint:
            known = self._header.fingerprint if self._header else self._expected
            return self._run("read", lambda _: read_collection(client, self.collection, self.location, known))

        return self._state.read(self._header, encoder)

    def _find(self, search: Search, wanted: CheckedSearch, filters: Sequence[Any]) -> list[list[Any]]:
        return self._ask(search, wanted, filters, search_params(self._options, wanted.k))

    def _query(self, requests: list[Any]) -> list[list[Any]]:
        client = self._live()
        return self._run("search", lambda left: self._send(client, requests, left)) if requests else []

    def _send(
        self, client: QdrantClient, requests: Sequence[models.QueryRequest], left: int | None
    ) -> list[list[models.ScoredPoint]]:
        """The hits of each request; ``left`` seconds may pass, None: as many as the client allows.

        It does not go through ``QdrantClient.query_batch_points``: that first copies each number of each request, in
        case a text is to be embedded, which takes half of the CPU of a search.
        """
        if not self._server.by_grpc:
            batch = models.QueryRequestBatch.model_construct(searches=list(requests))
            search = client.http.search_api.query_batch_points
            limits: dict[str, Any] = {"timeout": left}
            answer = search(collection_name=self.collection, query_request_batch=batch, **limits)
            return [hits.points for hits in answer.result or []]
        message = grpc.QueryBatchPoints(
            collection_name=self.collection,
            query_points=[RestToGrpc.convert_query_request(request, self.collection) for request in requests],
            timeout=left,
        )
        answers = client.grpc_points.QueryBatch(
            message, timeout=float(self._options.timeout_s if left is None else left)
        )
        return [[GrpcToRest.convert_scored_point(hit) for hit in answer.result] for answer in answers.result]

    def _fetch(self, points: Sequence[str], payload: list[str] | bool, *, vectors: bool) -> list[Any]:
        client = self._live()
        how: Any = {"with_payload": payload, "with_vectors": vectors and _SIDES}
        return self._run("read", lambda left: client.retrieve(self.collection, points, timeout=left, **how))

    def _page(
        self, start: Any, size: int, payload: list[str] | bool, *, vectors: bool = False, within: Any = None
    ) -> tuple[list[Any], Any]:
        client = self._live()
        how: Any = {"limit": size, "offset": start, "with_payload": payload, "with_vectors": vectors and _SIDES}
        some = PAIRS if within is None else within  # the reserved point has no field of a pair
        return self._run("read", lambda left: client.scroll(self.collection, some, timeout=left, **how))
