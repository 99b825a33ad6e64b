"""What a folder and a server do alike: pairs are points of Qdrant, written, searched and read by a subclass's calls."""

from __future__ import annotations

import os
import struct
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from ..defaults import SCROLL_BATCH
from ..errors import FORKED, MemoryFull, MemoryLocked, MemoryStoreError, RecoError
from ..types import MODALITIES, Filter, Modality, Neighbours, Payload, Records, Search, Vectors, caption_of
from ..values import CONFIRMED
from .base import part_of_a_write
from .checks import CheckedSearch, check_ids, check_positive, check_records, check_search, chunks
from .filters import COSINE, RESERVED, USER_ID, Condition, Library, check_numbers, parse_filter
from .header import RESTORE, Header, SaidRecord
from .lexical import MOST, StandIns, Worded, stand_ins, stored_words

T = TypeVar("T")
AT_ONCE = 1000
"""Points that are read at once, without vectors."""
WORDS = "words"
"""Name of the sparse vector of a caption's words."""
_NAMESPACE = uuid.UUID("b4f0a5c6-1d0e-5c61-9d3a-7e2f6c0b8a11")
_LOCKED = "WouldBlock"
"""In Edge's message when another process holds the folder."""
_FULL = "os error 28"
"""No space left on device, in Rust's message."""


class Point(Protocol):
    """A stored pair as both Qdrant libraries return it."""

    @property
    def id(self) -> object:
        """Point id."""

    @property
    def payload(self) -> dict[str, Any] | None:
        """The pair's payload, with the user's id in it."""

    @property
    def vector(self) -> Any:
        """Modality -> list of floats, of the requested modalities."""


class ScoredPoint(Point, Protocol):
    """A hit."""

    @property
    def score(self) -> float:
        """Cosine."""


def point_id(user_id: str) -> str:
    """The UUID of a pair's point: the user's id if it is one, else derived from it.

    >>> point_id("6e0b7f0c-9d55-4b8e-8a4c-0f6b9a6c2a11")
    '6e0b7f0c-9d55-4b8e-8a4c-0f6b9a6c2a11'
    >>> point_id("cat.jpg")
    '16323acf-a333-5530-a593-1a13323f122a'
    """
    try:
        if len(user_id) == 36 and str(uuid.UUID(user_id)) == user_id:
            return user_id
    except ValueError:
        pass
    return str(uuid.uuid5(_NAMESPACE, user_id))


def user_id(point: Point) -> str:
    """The user's id of a point."""
    name = (point.payload or {}).get(USER_ID)
    return str(point.id if name is None else name)  # to look at an id of Edge's makes a UUID


def to_payload(point: Point) -> tuple[str, Payload]:
    """The user's id and payload of a point."""
    stored = point.payload or {}  # once: Edge makes it each time
    name = stored.get(USER_ID)
    payload = {key: value for key, value in stored.items() if key not in RESERVED}
    return str(point.id if name is None else name), payload


def to_records(points: Sequence[Point], dimension: int) -> Records:
    """N points with both vectors and their payload as records, vectors (N, D)."""
    pairs = [to_payload(point) for point in points]
    sides = to_sides(points, dimension)
    return Records([name for name, _ in pairs], sides["image"], sides["text"], [payload for _, payload in pairs])


def to_sides(points: Sequence[Point], dimension: int) -> dict[Modality, Vectors]:
    """Both vectors (N, D) of N points.

    Each point's lists of floats are packed, and freed, before the next are made: half of the time that arrays of lists
    of lists take.

    Raises:
        ValueError: a vector has another dimension, or there is none.
    """
    sides: dict[Modality, Vectors] = {m: np.empty((len(points), dimension), np.float32) for m in MODALITIES}
    pack, step = struct.Struct(f"{dimension}f").pack_into, 4 * dimension
    into = [(m, side.data) for m, side in sides.items()]
    try:
        for place, point in enumerate(points):
            stored = point.vector  # once: Edge makes both lists each time
            for name, side in into:
                pack(side, place * step, *stored[name])
    except (struct.error, KeyError) as error:
        raise _unfit_vector(error, dimension) from error
    return sides


def _unfit_vector(error: Exception, dimension: int) -> ValueError:
    return ValueError(f"a stored pair has no vector of {dimension} numbers: {error}")


def wanted_payload(search: Search) -> bool | list[str]:
    """What a search reads of each payload."""
    return search.payloads or [*([USER_ID] if search.ids else []), COSINE, CONFIRMED]


def to_neighbours(found: Sequence[Sequence[ScoredPoint]], dimension: int, search: Search, *, k: int) -> Neighbours:
    """Hits of B queries as padded neighbours, vectors (B, K, D).

    Raises:
        ValueError: a hit has no such vector.
    """
    out = empty_neighbours(len(found), k, dimension, search)
    pack, step, into = struct.Struct(f"{dimension}f").pack_into, 4 * dimension, out.vectors.data  # as in `to_sides`
    own, confirmed = out.own.data if search.own else None, out.is_confirmed
    try:
        for row, hits in enumerate(found):  # one loop for all columns: a search is the most frequent call of all
            ids = out.ids[row]
            for column, hit in enumerate(hits):
                payload = hit.payload or {}
                name = payload.get(USER_ID)
                ids.append(str(hit.id if name is None else name))  # to look at an id of Edge's makes a UUID
                out.similarity[row, column] = hit.score
                pack(into, (row * k + column) * step, *hit.vector[search.read])
                if own is not None:
                    pack(own, (row * k + column) * step, *hit.vector[search.by])
                out.cosine[row, column] = payload[COSINE]
                confirmed[row, column] = payload.get(CONFIRMED) is True
                if out.payloads is not None:
                    out.payloads[row].append({key: value for key, value in payload.items() if key not in RESERVED})
            out.found[row, : len(hits)] = True
    except (struct.error, KeyError) as error:
        raise _unfit_vector(error, dimension) from error
    return out


def to_worded(hit: ScoredPoint) -> Worded:
    """A pair that was found by its words."""

    def read() -> tuple[frozenset[int], Vectors]:
        vectors = hit.vector  # once: Edge makes the lists each time
        return frozenset(vectors[WORDS].indices), np.asarray(vectors["text"], np.float32)

    _, payload = to_payload(hit)
    return Worded(hit.score, user_id(hit), str(payload.get("caption", "")), read)


def empty_neighbours(batch: int, k: int, dimension: int, search: Search) -> Neighbours:
    """No neighbours: similarity (B, K) and vectors (B, K, D), all padding, and what else the search asks for."""
    return Neighbours(
        list(map(list[str], [()] * batch)),
        np.zeros((batch, k), np.float32),
        np.zeros((batch, k, dimension), np.float32),
        np.zeros((batch, k), np.bool_),
        np.zeros((batch, k), np.float32),
        list(map(list[Payload], [()] * batch)) if search.payloads else None,
        own=np.zeros((batch, k if search.own else 0, dimension), np.float32),
        confirmed=np.zeros((batch, k), np.bool_),
    )


def pages(read: Callable[[Any], tuple[list[Any], Any]]) -> Iterator[list[Any]]:
    """All pages of a scroll; ``read`` takes an offset, None at first, and returns a page and the next offset."""
    start = None
    while True:
        points, start = read(start)
        if points:
            yield points
        if start is None:
            return


def locked_error(location: str) -> MemoryLocked:
    """The error for a folder that is open elsewhere."""
    return MemoryLocked(
        f"the memory at {location!r} is open in another process, or in another open Reco of this one; such a folder "
        "is open once at a time. Close the other, or run a Qdrant server and give its URL: --memory grpc://localhost:6334."
    )


@contextmanager
def translate_errors(location: str, doing: str) -> Iterator[None]:
    """Raise errors of an operation ("search") of the libraries' engines, most without a class of their own, as ours."""
    try:
        yield
    except RecoError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of Rust, cannot be imported
            raise
        text, failed = " ".join(str(error).split()), f"cannot {doing} the memory at {location!r}"
        if _LOCKED in text:
            raise locked_error(location) from error
        if _FULL in text:
            raise MemoryFull(
                f"{failed}: its disk is full. Make room there, and do the same again; what was written stays"
            ) from error
        raise MemoryStoreError(f"{failed}: {text}. If a file of it is damaged or cut off, {RESTORE}") from error


class StoredHeader(ABC):
    """The header of a memory, changed by one thread at a time."""

    def __init__(self, header: Header | None) -> None:
        """None: it was not read yet."""
        self._header, self._heading = header, threading.Lock()  # a thread learns while another stores an opinion

    @abstractmethod
    def _store(self, before: Header, after: Header) -> None:
        """Store what has changed in a header, or raise."""

    @property
    def header(self) -> Header:
        """Fingerprint and what was learned."""
        assert self._header is not None  # noqa: S101 - a subclass that reads it later has its own
        return self._header

    def look(self) -> Header:
        """The header, read anew where others may have written it."""
        with self._heading:
            return self._newest()

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store what was learned."""
        self._change(lambda header: header.with_calibration(calibration))

    def change_said(self, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        """Store opinions."""
        self._change(lambda header: header.with_said(added, gone))

    def _newest(self) -> Header:
        return self.header

    def _change(self, change: Callable[[Header], Header]) -> None:
        with self._heading:
            before = self._newest()
            after = change(before)
            self._store(before, after)
            self._header = after


class PointMemory(ABC):
    """A memory whose pairs are points of Qdrant."""

    location: str
    library: ClassVar[Library[Any]]
    """Constructors of the library that the subclass calls."""
    written_at_once: ClassVar[int]
    """Pairs per write."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    @abstractmethod
    def header(self) -> Header:
        """See :class:`~reco_plugin.memory.base.Memory`."""

    @abstractmethod
    def _live(self) -> Any:
        """The open store; a MemoryStoreError where it is closed."""

    @abstractmethod
    def _put(self, records: Records, points: list[Any]) -> None:
        """Write pairs (N, D), which are these points."""

    @abstractmethod
    def _drop(self, points: list[str]) -> None:
        """Delete points that exist."""

    @abstractmethod
    def _find(self, search: Search, wanted: CheckedSearch, filters: Sequence[Any]) -> list[list[Any]]:
        """The hits of each query under its filter."""

    @abstractmethod
    def _query(self, requests: list[Any]) -> list[list[Any]]:
        """The hits of each request."""

    @abstractmethod
    def _fetch(self, points: Sequence[str], payload: list[str] | bool, *, vectors: bool) -> list[Any]:
        """Those of the points that exist, in any order, with these keys of their payload, or all or none."""

    @abstractmethod
    def _page(
        self, start: Any, size: int, payload: list[str] | bool, *, vectors: bool = False, within: Any = None
    ) -> tuple[list[Any], Any]:
        """At most so many pairs from a point on, None: from the first, and the point behind; ``within``: a filter."""

    def upsert(self, records: Records) -> None:
        """Add or replace pairs, vectors (N, D)."""
        self._live()
        checked = check_records(records, self._dimension)
        for start in range(0, len(checked), self.written_at_once):
            part = checked.take(np.arange(start, min(len(checked), start + self.written_at_once)))
            self._put(part, self._to_points(part))

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        self._live()
        names = check_ids(ids, "delete")
        with part_of_a_write():
            there = [str(point.id) for found in self._retrieve(names, False) for point in found]
        if there:
            self._drop(there)
        return len(there)

    def search(self, search: Search) -> Neighbours:
        """Find the k nearest pairs of queries (B, D), all in one call."""
        self._live()
        header = self.header
        dimension = header.fingerprint.dimension
        own = CheckedSearch(search.vectors, search.k, (), ()) if search.checked else None
        wanted = own or check_search(search, dimension)
        filters: list[Any] = [None] * len(wanted.vectors)
        if wanted.conditions or any(wanted.exclude):
            hidden = {id(ids): [point_id(name) for name in ids] for ids in wanted.exclude}
            filters = self.library.filters(wanted.conditions, [hidden[id(ids)] for ids in wanted.exclude])
        stands: StandIns | None = None
        with translate_errors(self.location, "search"):
            if search.words is not None:  # first: they say what is searched with
                pairs = header.calibration.get("pairs", 0)
                find = partial(self._by_words, filters, self._filter(wanted.within))
                stands = stand_ins(search, wanted.vectors, pairs, find)
                wanted = replace(wanted, vectors=stands.vectors)
            near = to_neighbours(self._find(search, wanted, filters), dimension, search, k=wanted.k)
            if wanted.conditions and not near.found.any():
                keys, visible = [condition.key for condition in wanted.conditions], self._filter(wanted.within)
                shown, _ = self._page(None, AT_ONCE, keys, within=visible)
                check_numbers(wanted.conditions, (one.payload or {} for one in shown))
            if stands is None:
                return near
            return replace(near, asked=stands.vectors, words=stands.words, word_ids=stands.word_ids)

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs in order of their point ids, or those of ``ids`` in their order, in batches (N, D)."""
        self._live()
        check_positive(batch_size, "batch_size")
        if ids is None:
            found = pages(lambda start: self._page(start, batch_size, True, vectors=True))
        else:
            found = self._retrieve(check_ids(ids, "scroll"), True, batch_size, vectors=True)
        return map(self._to_records, filter(None, found))

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of all pairs, or of ``ids``."""
        self._live()
        if ids is None:
            found = pages(lambda start: self._page(start, AT_ONCE, True))
        else:
            found = self._retrieve(check_ids(ids, "ids"), True)
        return map(to_payload, chain.from_iterable(found))

    def ids_after(self, last: str | None, limit: int, within: Filter | None = None) -> list[str]:
        """The next ids behind ``last``, in the order of point ids."""
        self._live()
        start = None if last is None else point_id(last)
        size, some = check_positive(limit, "limit") + (start is not None), self._filter(parse_filter(within))
        found, _ = self._page(start, size, [USER_ID], within=some)
        behind = found[1:] if found and str(found[0].id) == start else found
        return [user_id(point) for point in behind[:limit]]

    def _filter(self, conditions: Sequence[Condition]) -> Any:
        """The filter of some conditions; None without any."""
        return self.library.filters(conditions, [()])[0]

    @property
    def _dimension(self) -> int:
        return self.header.fingerprint.dimension

    def _opened(self, store: T | None) -> T:
        """The open store.

        Raises:
            MemoryStoreError: it is None, which is closed, or this is a fork of the process that opened it.
        """
        if store is None:
            raise MemoryStoreError(f"the memory at {self.location!r} is closed: open it again")
        if not self._is_here:
            raise MemoryStoreError(f"the memory at {self.location!r} {FORKED}")
        return store

    @property
    def _is_here(self) -> bool:
        """Whether this is the process that opened it, and that closes it."""
        return self._process == os.getpid()

    def _ask(
        self, search: Search, wanted: CheckedSearch, filters: Sequence[Any], params: Any, rows: Sequence[int] = ()
    ) -> list[list[Any]]:
        """The hits of all queries, or of some rows, each under its filter."""
        payload = wanted_payload(search)
        return self._query(
            [
                self.library.request(
                    wanted.vectors[row].tolist(),
                    search.by,
                    limit=wanted.k,
                    filter=filters[row],
                    with_vector=[search.read, search.by] if search.own else [search.read],
                    with_payload=payload,
                    params=params,
                )
                for row in rows or range(len(wanted.vectors))
            ]
        )

    def _by_words(
        self, filters: Sequence[Any], within: Any, weights: Mapping[int, Mapping[int, float]], everywhere: bool
    ) -> list[list[Worded]]:
        """See :data:`~reco_plugin.memory.lexical.Find`; each row under its filter, ``everywhere`` means ``within``."""
        requests = [
            self.library.request(
                self.library.sparse(list(words), list(words.values())),
                WORDS,
                limit=MOST + 1,
                filter=within if everywhere else filters[row],
                with_vector=["text", WORDS],
                with_payload=[USER_ID, "caption"],
            )
            for row, words in weights.items()
        ]
        return [[to_worded(hit) for hit in hits] for hits in self._query(requests)]

    def _retrieve(
        self, ids: Sequence[str], payload: list[str] | bool, size: int = AT_ONCE, *, vectors: bool = False
    ) -> Iterator[list[Any]]:
        """The existing points of these ids, in their order."""
        for chunk in chunks(ids, size):
            wanted = [point_id(name) for name in chunk]
            there = {str(point.id): point for point in self._fetch(wanted, payload, vectors=vectors)}
            yield [there[name] for name in wanted if name in there]

    def _to_points(self, records: Records) -> list[Any]:
        """Points of pairs (N, D): both vectors, the words of the caption, and the payload with ours."""
        made = []
        sides, cosine = (records.image.tolist(), records.text.tolist()), records.cosine.tolist()
        for name, image, text, own, payload in zip(records.ids, *sides, cosine, records.payloads, strict=True):
            words = stored_words(caption_of(payload))
            vectors = {"image": image, "text": text, WORDS: self.library.sparse(words, [1.0] * len(words))}
            made.append(self.library.point(point_id(name), vectors, {**payload, USER_ID: name, COSINE: own}))
        return made

    def _to_records(self, points: list[Any]) -> Records:
        with translate_errors(self.location, "read"):
            return to_records(points, self._dimension)
