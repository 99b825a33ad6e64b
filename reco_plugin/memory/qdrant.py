"""A memory on a Qdrant server: one collection with two named vectors, behind an alias that readers follow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from ..errors import FingerprintMismatch, MemoryStoreError, MemoryUnavailable
from ..types import MODALITIES, Fingerprint, Neighbours, Payload, Records, Search, caption_of
from .checks import (
    Opener,
    check_ids,
    check_records,
    check_search,
    check_witnesses,
    chunks,
    part_of_a_write,
)
from .collection import consistency, open_served, read_collection, search_params
from .filters import USER_ID, WITNESSES
from .header import Header
from .point_memory import AT_ONCE, PointMemory
from .points import (
    READ_BEFORE,
    WORDS,
    FilterConstructors,
    compare_stored,
    point_id,
    stored_payload,
    to_neighbours,
    to_worded,
    wanted_payload,
)
from .qdrant_state import STATE_ID, ServedState, count_pairs
from .said import SaidRecord
from .server import Server, client_closed_on_error
from .time_limit import time_limit
from .words import MOST, QueryWords, Worded, asked_by_words, stored_words

T = TypeVar("T")
_SIDES = [str(modality) for modality in MODALITIES]
_POINTS_AT_ONCE = 256  # 6 MB of pairs of 1024 dimensions; a server takes 32 MB by REST
_PAIRS = models.Filter(must_not=[models.HasIdCondition(has_id=[STATE_ID])])
_UNJUDGED = models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key=WITNESSES))])
_WORDS = FilterConstructors(
    filter=models.Filter,
    field=models.FieldCondition,
    range=models.Range,
    match_any=lambda values: models.MatchAny(any=values),
    match_flag=lambda flag: models.MatchValue(value=flag),
    has_id=lambda points: models.HasIdCondition(has_id=list(points)),
)


class QdrantMemory(PointMemory):
    """A collection, or the one that an alias stands for: a new version can be put to use while others search."""

    kind = "qdrant"

    def __init__(self, client: QdrantClient, server: Server, collection: str, fingerprint: Fingerprint | None) -> None:
        self.location, self.collection = server.location, collection
        self._client: QdrantClient | None = client
        self._server, self._options, self._patience = server, server.options, server.patience
        self._opener = Opener()
        self._state = ServedState(self._run, self._live, collection)
        self._heading = threading.Lock()  # a thread learns while another one is told
        self._expected = fingerprint
        self._read_header()
        self._read_again_at = time.monotonic() + self._options.refresh_s

    @classmethod
    def open(cls, server: Server, fingerprint: Fingerprint | None, *, create: bool, collection: str) -> QdrantMemory:
        """Open or create the memory of a server."""
        client = server.connect()
        with client_closed_on_error(client):
            open_served(client, server, collection, fingerprint, create=create)
            return cls(client, server, collection, fingerprint)

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        assert self._state.header is not None  # noqa: S101 - read as it is opened
        return self._state.header

    @property
    def keeps_time(self) -> bool:
        """Whether a search ends by itself within a :func:`~reco_plugin.memory.time_limit.limited` block.

        By gRPC, whose client has a deadline for a whole call; that of REST has one for each part.
        """
        return self._server.by_grpc

    def answers(self) -> bool:
        """Whether the server answers now, within a second, at the address that its name has now."""
        self._live()
        return self._server.answers()

    def reconnect(self) -> None:
        """Take a new connection to the server, if it answers: at the address that its name has now.

        Calls that are on their way keep the old one.

        Raises:
            MemoryUnavailable: it does not answer.
        """
        if not self.answers():
            raise MemoryUnavailable(f"the memory at {self.location!r} does not answer")
        fresh = self._server.connect()
        if self._client is None:  # closed meanwhile
            fresh.close()
        else:
            self._client = fresh

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store what was learned."""
        with self._heading:
            self._state.keep_calibration(calibration)

    def note_learning(self, note: dict[str, Any]) -> None:
        """Keep who learns from the pairs."""
        with self._heading:
            self._state.keep_note(note)

    def look(self) -> Header:
        """The header, read anew.

        Raises:
            FingerprintMismatch: another version was put to use, of another encoder.
        """
        with self._heading:
            return self._read_header()

    def change_said(self, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        """Store what people said."""
        with self._heading:
            self._state.keep_said(added, gone)

    def set_witnesses(self, ids: Sequence[str], witnesses: npt.NDArray[np.float32]) -> None:
        """Store the witnesses (N, 3) of pairs in their payload."""
        client, checked = self._live(), check_witnesses(ids, witnesses)
        self._state.refuse_other_version()
        for names in chunks(list(checked), AT_ONCE):
            with part_of_a_write():
                there = {str(point.id) for point in self._fetch([*map(point_id, names)], [USER_ID], vectors=False)}
            changes = [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(payload={WITNESSES: checked[name]}, points=[point_id(name)])
                )
                for name in names
                if point_id(name) in there
            ]
            if changes:
                self._run(
                    "write",
                    lambda left, changes=changes: client.batch_update_points(  # type: ignore[misc]
                        self.collection, changes, wait=True, timeout=left
                    ),
                    write=True,
                )

    def count_unjudged(self) -> int:
        """Number of pairs without witnesses."""
        client = self._live()
        ask = self._ask_unjudged
        return ask("count", lambda left: client.count(self.collection, _UNJUDGED, exact=True, timeout=left)).count

    def count(self) -> int:
        """Number of pairs."""
        client = self._live()
        return self._run("count", lambda left: count_pairs(client, self.collection, left))

    def upsert(self, records: Records) -> None:
        """Add or replace pairs, vectors (N, D); returns when they can be found."""
        client = self._live()
        checked = check_records(records, self._dimension)
        with part_of_a_write():
            there = self._retrieve(checked.ids, list(READ_BEFORE), _POINTS_AT_ONCE, vectors=True)
            kept = compare_stored(checked, chain.from_iterable(there))
        for start in range(0, len(checked), _POINTS_AT_ONCE):
            points = _to_points(checked, slice(start, start + _POINTS_AT_ONCE), kept)
            self._run(
                "write",
                lambda left, points=points: client.upsert(self.collection, points, wait=True, timeout=left),  # type: ignore[misc]
                write=True,
            )

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        client = self._live()
        points: list[Any] = [point_id(name) for name in set(check_ids(ids, "delete"))]
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
        wanted = check_search(search, self._dimension)
        filters, told = list(_WORDS.filters(wanted)), list[str]()
        if search.words is not None:  # not in the same call: they say what is searched with
            pairs, find = self.header.calibration.get("pairs", 0), partial(self._by_words, filters)
            vectors, told = asked_by_words(search, wanted.vectors, pairs, find)
            wanted = replace(wanted, vectors=vectors)
        params = search_params(self._options, wanted.k)
        requests = [
            models.QueryRequest(
                query=vector,
                using=search.by,
                limit=wanted.k,
                filter=condition,
                with_vector=[search.read],
                with_payload=wanted_payload(search),
                params=params,
            )
            for vector, condition in zip(wanted.vectors.tolist(), filters, strict=True)
        ]
        found = self._run("search", lambda left: self._query(client, requests, left)) if requests else []
        near = to_neighbours(found, self._dimension, search, k=wanted.k)
        return replace(near, asked=wanted.vectors, words=told) if told else near

    def flush(self) -> None:
        """Nothing to do: every write waits until it is durable."""
        self._live()

    def close(self) -> None:
        """Release the connection."""
        if self._client is not None and self._opener.is_here:  # in a fork, the process that opened it closes it
            self._client.close()
            self._client = None

    def _live(self) -> QdrantClient:
        return self._opener.check(self._client, self.location)

    def _run(self, doing: str, action: Callable[[int | None], T], *, write: bool = False) -> T:
        return self._patience.run(doing, action, write=write)

    def _ask_unjudged(self, doing: str, action: Callable[[int | None], T]) -> T:
        """Ask by the witnesses' key; a server in strict mode wants an index of it, which is made then."""
        try:
            return self._run(doing, action)
        except MemoryStoreError as error:
            if "index required" not in str(error).lower():
                raise
        client, kind = self._live(), models.FloatIndexParams(type=models.FloatIndexType.FLOAT, on_disk=True)
        self._run(
            "index",
            lambda left: client.create_payload_index(self.collection, WITNESSES, kind, timeout=left),
            write=True,
        )
        return self._run(doing, action)

    def _read_again(self) -> None:
        """Read the header again: another process may have swapped the version, learned or been told something.

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
            self._read_header()
        except FingerprintMismatch:
            self._read_again_at = due
            raise
        except MemoryStoreError:  # if the store is down, the search itself fails
            pass
        finally:
            self._heading.release()

    def _read_header(self) -> Header:
        client = self._live()

        def encoder() -> Fingerprint:
            known = self._state.header.fingerprint if self._state.header else self._expected
            return self._run("read", lambda _: read_collection(client, self.collection, self.location, known))

        return self._state.read(encoder)

    def _query(
        self, client: QdrantClient, requests: Sequence[models.QueryRequest], left: int | None
    ) -> list[list[models.ScoredPoint]]:
        """The hits of each request; ``left`` seconds may pass, None: as many as the client allows.

        It is not asked by ``QdrantClient.query_batch_points``: that first copies each number of each request, in
        case a text is to be embedded, which takes half of the CPU of a search.
        """
        agreed = consistency(self._options)
        if not self._server.by_grpc:
            batch = models.QueryRequestBatch.model_construct(searches=list(requests))
            limits: dict[str, Any] = {"consistency": agreed, "timeout": left}
            search = client.http.search_api.query_batch_points
            told = search(collection_name=self.collection, query_request_batch=batch, **limits)
            return [answer.points for answer in told.result or []]
        message = grpc.QueryBatchPoints(
            collection_name=self.collection,
            query_points=[RestToGrpc.convert_query_request(request, self.collection) for request in requests],
            read_consistency=None if agreed is None else RestToGrpc.convert_read_consistency(agreed),
            timeout=left,
        )
        limit, seconds = time_limit(), float(self._options.timeout_s if left is None else left)
        most = seconds if limit is None else max(0.0, min(seconds, limit.left_s))
        answers = client.grpc_points.QueryBatch(message, timeout=most)
        return [[GrpcToRest.convert_scored_point(hit) for hit in answer.result] for answer in answers.result]

    def _by_words(self, filters: Sequence[models.Filter | None], said: Mapping[int, QueryWords]) -> list[list[Worded]]:
        """The captions that have most of the words of some rows, each under its filter."""
        client = self._live()
        requests = [
            models.QueryRequest(
                query=models.SparseVector(indices=list(one.weights), values=list(one.weights.values())),
                using=WORDS,
                limit=MOST + 1,
                filter=filters[row],
                with_vector=["text", WORDS],
                with_payload=False,
            )
            for row, one in said.items()
        ]
        return [to_worded(hits) for hits in self._run("search", lambda left: self._query(client, requests, left))]

    def _fetch(self, points: Sequence[str], payload: list[str] | bool, *, vectors: bool) -> list[Any]:
        client, sides = self._live(), vectors and _SIDES
        return self._run(
            "read",
            lambda left: client.retrieve(
                self.collection, points, with_payload=payload, with_vectors=sides, timeout=left
            ),
        )

    def _page(
        self, start: Any, size: int, payload: list[str] | bool, *, vectors: bool = False, unjudged: bool = False
    ) -> tuple[list[Any], Any]:
        client, where = self._live(), _UNJUDGED if unjudged else _PAIRS
        asked: Any = {"limit": size, "offset": start, "with_payload": payload, "with_vectors": vectors and _SIDES}
        run = self._ask_unjudged if unjudged else self._run
        return run("read", lambda left: client.scroll(self.collection, where, timeout=left, **asked))


def _to_points(records: Records, rows: slice, witnesses: Mapping[str, Sequence[float]]) -> list[models.PointStruct]:
    columns = (records.ids[rows], records.image[rows].tolist(), records.text[rows].tolist(), records.payloads[rows])
    return [
        models.PointStruct(
            id=point_id(name),
            vector={"image": image, "text": text, WORDS: _words_of(payload)},
            payload=stored_payload(name, payload, witnesses.get(name)),
        )
        for name, image, text, payload in zip(*columns, strict=True)
    ]


def _words_of(payload: Payload) -> models.SparseVector:
    words = stored_words(caption_of(payload))
    return models.SparseVector(indices=words, values=[1.0] * len(words))
