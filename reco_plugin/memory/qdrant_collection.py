"""A connection to a Qdrant collection: its header, read again as others write, and its points."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from ..errors import FingerprintMismatch, MemoryStoreError, MemoryUnavailable
from ..progress import progress_bar
from ..types import Payload, Records, caption_of
from ..words import MOST, QueryWords, Worded, stored_words
from .checks import Opener, chunks
from .collection import OpenCollection, consistency, name_beside
from .filters import USER_ID, WITNESSES
from .header import Header
from .kept_served import KeptOnServer
from .learned import digest_of
from .points import WORDS, pages, stored_payload, to_worded
from .server import Server
from .time_limit import time_limit

IDS_AT_ONCE = 1000
_UNMOVED_S = 30.0
log = logging.getLogger(__name__)
T = TypeVar("T")


class QdrantCollection:
    """One collection of a client, with the names of its vectors."""

    def __init__(self, client: QdrantClient, opened: OpenCollection, server: Server, collection: str) -> None:
        self.location = server.location
        self.collection = collection
        self._client: QdrantClient | None = client
        self._layout, self._opener = opened.layout, Opener()
        self._server = server
        self._kept = KeptOnServer(self._run, self._live, collection, self.location)
        self._options, self._patience = server.options, server.patience
        self._heading = threading.Lock()  # a thread learns while another one is told
        self._header = self._kept.read(opened.header.fingerprint).header
        self._header_of = self._kept.collection
        self._missed = ""  # digest of what was learned and could not be found
        self._looking: threading.Thread | None = None
        self._look_failed = False
        self._read_again_at = time.monotonic() + self._pause
        self._words_given = False  # to all pairs; looked for before the first write

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        return self._header

    @property
    def keeps_time(self) -> bool:
        """Whether a search ends by itself within a :func:`~reco_plugin.memory.time_limit.limited` block.

        By gRPC, whose client has a deadline for a whole call; that of REST has one for each part. Not where the header
        is to be read again, too.
        """
        return self._server.by_grpc and not self._waits_to_look(time.monotonic(), self._read_again_at)

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

    @property
    def _pause(self) -> float:
        """Seconds until the header is read again; longer where an older version keeps all in it."""
        return self._options.refresh_s if self._kept.moved else max(self._options.refresh_s, _UNMOVED_S)

    @property
    def _dimension(self) -> int:
        return self._header.fingerprint.dimension

    def _live(self) -> QdrantClient:
        return self._opener.check(self._client, self.location)

    def _writable(self, what: str) -> QdrantClient:
        if not self._layout.writable:
            raise MemoryStoreError(
                f"cannot {what} the collection {self.collection!r} at {self.location!r}: it was attached for reading "
                "only. Write to it as its owner does, or attach it again with --writable"
            )
        return self._live()

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
        """Read header and layout again: another process may have swapped the version, learned or been told something.

        Where searches come often none waits for that, but for the first one after a pause.

        Raises:
            FingerprintMismatch: the version is of another encoder; every search raises it until that changes.
        """
        now, due = time.monotonic(), self._read_again_at
        if now < due:
            return
        self._read_again_at = now + self._pause  # set now, so that only one search does it
        if not self._waits_to_look(now, due):
            self._look_behind()
            return
        if not self._heading.acquire(blocking=False):  # it is being written here: the next search reads it
            return
        try:
            self._take_over()
        except FingerprintMismatch:
            self._read_again_at = due
            raise
        except MemoryStoreError:  # if the store is down, the search itself fails
            self._look_failed = True
        finally:
            self._heading.release()

    def _waits_to_look(self, now: float, due: float) -> bool:
        """Whether a search that comes now reads the header first: not of a server that did not answer the last time."""
        return now >= due + self._pause and not self._look_failed

    def _look_behind(self) -> None:
        def look() -> None:
            try:
                with self._heading:
                    self._take_over()
            except FingerprintMismatch:
                self._look_failed, self._read_again_at = False, -math.inf  # the next search finds it, too, and says so
            except MemoryStoreError:
                self._look_failed = True

        if self._looking is None or not self._looking.is_alive():
            self._looking = threading.Thread(target=look, name="reco-header", daemon=True)
            self._looking.start()

    def _take_over(self) -> None:
        """Read header and layout, and keep to them; what was learned counts on where it cannot be found any more."""
        known = self._header
        opened = self._kept.read(known.fingerprint)
        self._look_failed = False
        header, digest = opened.header, digest_of(opened.header.calibration)
        is_same, self._header_of = self._kept.collection == self._header_of, self._kept.collection
        if is_same and digest and known.calibration and not digest_of(known.calibration):
            if digest != self._missed:
                log.warning(
                    "%s: what others learned is not there (collection %s), what was known before counts on",
                    self.location,
                    name_beside(self._header_of),
                )
            header = replace(header, calibration=known.calibration)
        self._missed = digest
        self._layout = opened.layout
        if header != known:
            self._header = header

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
        client, text = self._live(), self._layout.text
        requests = [
            models.QueryRequest(
                query=models.SparseVector(indices=list(one.weights), values=list(one.weights.values())),
                using=WORDS,
                limit=MOST + 1,
                filter=filters[row],
                with_vector=[text, WORDS],
                with_payload=False,
            )
            for row, one in said.items()
        ]
        return [to_worded(hits) for hits in self._run("search", lambda left: self._query(client, requests, left))]

    def _give_words(self) -> None:
        """Give the pairs that an older version wrote the words of their captions, before the first write.

        A server before 1.18 cannot take a new vector for them: there, queries are by their vectors alone until the
        memory is built anew.
        """
        client, words = self._live(), models.SparseVectorConfig(modifier=models.Modifier.IDF)
        wordless = models.Filter(must_not=[models.HasVectorCondition(has_vector=WORDS)])
        self._words_given = True
        try:
            if not self._layout.words:
                named = models.SparseVectorNameConfig(sparse=words)
                make = partial(client.create_vector_name, self.collection, WORDS, named)
                self._run("write", lambda left: make(timeout=left), write=True)
                self._layout = replace(self._layout, words=True)
            total = self._run("count", lambda _: client.count(self.collection, wordless, exact=True)).count
            with progress_bar(total=total, desc="words of captions", unit="pair", disable=not total) as bar:
                for points in self._pages(wordless, IDS_AT_ONCE, vectors=False) if total else ():
                    rows = [
                        models.PointVectors(id=one.id, vector={WORDS: _words_of(one.payload or {})}) for one in points
                    ]
                    give = partial(client.update_vectors, self.collection, rows, wait=True)
                    self._run("write", lambda left, give=give: give(timeout=left), write=True)  # type: ignore[misc]
                    bar.update(len(points))
        except MemoryStoreError as error:
            if type(error) is not MemoryStoreError:  # an outage
                self._words_given = False
                raise
            log.warning("%s: captions are not found by their words: %s", self.location, error)

    def _set_witnesses(self, client: QdrantClient, names: Sequence[str], witnesses: dict[str, list[float]]) -> None:
        with self._heading:
            place = self._kept.judged()  # not another version, whose pairs have the same ids
        found = self._retrieve(IDS_AT_ONCE, names, vectors=False, payload=[USER_ID], write=True, place=place)
        there = {str(point.id) for point in chain.from_iterable(found)}
        rows = [(point, witnesses[name]) for name in names if str(point := self._layout.point_id(name)) in there]
        changes = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={WITNESSES: row}, points=[point]))
            for point, row in rows
        ]
        if changes:
            self._run(
                "write",
                lambda left: client.batch_update_points(place, changes, wait=True, timeout=left),
                write=True,
            )

    def _pages(self, where: models.Filter | None, size: int, *, vectors: list[str] | bool) -> Iterator[list[Any]]:
        def read(start: Any) -> Any:
            client = self._live()
            asked: Any = {"limit": size, "with_payload": True, "with_vectors": vectors}
            return self._run(
                "read",
                lambda left: client.scroll(self.collection, where, offset=start, timeout=left, **asked),
            )

        return pages(read)

    def _retrieve(
        self,
        size: int,
        ids: Sequence[str],
        *,
        vectors: Any,
        payload: Any = True,
        write: bool = False,
        place: str = "",
    ) -> Iterator[list[Any]]:
        """The existing points of these ids, in their order; of another collection than the alias's, if one is named."""
        for chunk in chunks(ids, size):
            client, wanted = self._live(), [self._layout.point_id(name) for name in chunk]
            points = self._run(
                "read",
                lambda left, client=client, wanted=wanted: client.retrieve(  # type: ignore[misc]
                    place or self.collection, wanted, with_payload=payload, with_vectors=vectors, timeout=left
                ),
                write=write,  # part of a write: its longer time limit
            )
            there = {str(point.id): point for point in points}
            yield [there[str(name)] for name in wanted if str(name) in there]

    def _to_points(
        self, records: Records, rows: slice, witnesses: Mapping[str, Sequence[float]]
    ) -> list[models.PointStruct]:
        columns = (records.ids[rows], records.image[rows].tolist(), records.text[rows].tolist(), records.payloads[rows])
        layout = self._layout
        return [
            models.PointStruct(
                id=layout.point_id(name),
                vector={layout.image: image, layout.text: text} | ({WORDS: _words_of(payload)} if layout.words else {}),
                payload=stored_payload(name, payload, witnesses.get(name)),
            )
            for name, image, text, payload in zip(*columns, strict=True)
        ]


def _words_of(payload: Payload) -> models.SparseVector:
    words = stored_words(caption_of(payload))
    return models.SparseVector(indices=words, values=[1.0] * len(words))
