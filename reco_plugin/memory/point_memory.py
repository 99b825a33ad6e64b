"""What a folder and a server do alike: pairs are points, written, searched and read by the calls of a subclass."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from ..defaults import SCROLL_BATCH
from ..errors import FORKED, MemoryStoreError
from ..types import MODALITIES, Neighbours, Payload, Records, Search, caption_of
from ..values import are_same
from .checks import CheckedSearch, check_ids, check_positive, check_records, check_search, check_witnesses, chunks
from .filters import USER_ID, WITNESSES, Library
from .header import Header
from .points import (
    WORDS,
    pages,
    point_id,
    to_neighbours,
    to_payload,
    to_records,
    to_witnesses,
    to_worded,
    translate_errors,
    user_id,
    wanted_payload,
)
from .time_limit import part_of_a_write
from .words import MOST, QueryWords, Worded, asked_by_words, stored_words

T = TypeVar("T")
AT_ONCE = 1000
"""Points that are read at once, without vectors."""


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
    def _set_payloads(self, payloads: Mapping[str, dict[str, Any]]) -> None:
        """Add to the payload of points that exist, by their ids."""

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
        self, start: Any, size: int, payload: list[str] | bool, *, vectors: bool = False, where: Any = None
    ) -> tuple[list[Any], Any]:
        """At most so many pairs from a point on, None: from the first, and the point behind."""

    @abstractmethod
    def _count(self, where: Any) -> int:
        """Number of pairs under a filter."""

    def upsert(self, records: Records) -> None:
        """Add or replace pairs, vectors (N, D); one that is replaced by the same vectors keeps its witnesses."""
        self._live()
        checked = check_records(records, self._dimension)
        with part_of_a_write():
            known = self._known_before(checked)
        for start in range(0, len(checked), self.written_at_once):
            part = checked.take(np.arange(start, min(len(checked), start + self.written_at_once)))
            self._put(part, self._to_points(part, known))

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        self._live()
        points = list({point_id(name) for name in check_ids(ids, "delete")})
        with part_of_a_write():
            there = self._count(self.library.filter(must=[self.library.has_id(points)])) if points else 0
        if there:
            self._drop(points)
        return there

    def set_witnesses(self, ids: Sequence[str], witnesses: npt.NDArray[np.float32]) -> None:
        """Store the witnesses (N, 3) of pairs in their payload."""
        self._live()
        checked = check_witnesses(ids, witnesses)
        for names in chunks(list(checked), AT_ONCE):
            new = {point_id(name): {WITNESSES: checked[name]} for name in names}
            with part_of_a_write():
                there = [str(point.id) for point in self._fetch(list(new), False, vectors=False)]
            if there:
                self._set_payloads({name: new[name] for name in there})

    def witnesses(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """The witnesses (N, 3) of pairs."""
        names = check_ids(ids, "ids")
        found = chain.from_iterable(self._retrieve(names, [WITNESSES]))
        return to_witnesses(found, [point_id(name) for name in names])

    def count_unjudged(self) -> int:
        """Number of pairs without witnesses."""
        return self._count(self._unjudged)

    def unjudged(self, most: int) -> list[str]:
        """Ids of pairs without witnesses, at most so many."""
        self._live()
        size = min(check_positive(most, "most"), AT_ONCE)
        found = pages(lambda start: self._page(start, size, [USER_ID], where=self._unjudged))
        return [user_id(point) for point in islice(chain.from_iterable(found), most)]

    def search(self, search: Search) -> Neighbours:
        """Find the k nearest pairs of queries (B, D), all in one call."""
        self._live()
        wanted = check_search(search, self._dimension)
        hidden = {id(ids): [point_id(name) for name in ids] for ids in wanted.exclude}
        filters = self.library.filters(wanted.conditions, [hidden[id(ids)] for ids in wanted.exclude])
        told: Sequence[str] = ()
        with translate_errors(self.location, "search"):
            if search.words is not None:  # first: they say what is searched with
                pairs = self.header.calibration.get("pairs", 0)
                vectors, told = asked_by_words(search, wanted.vectors, pairs, partial(self._by_words, filters))
                wanted = replace(wanted, vectors=vectors)
            near = to_neighbours(self._find(search, wanted, filters), self._dimension, search, k=wanted.k)
            return replace(near, asked=wanted.vectors, words=told) if told else near

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

    def ids_after(self, last: str | None, limit: int) -> list[str]:
        """The next ids behind ``last``, in the order of point ids."""
        self._live()
        start = None if last is None else point_id(last)
        found, _ = self._page(start, check_positive(limit, "limit") + (start is not None), [USER_ID])
        behind = found[1:] if found and str(found[0].id) == start else found
        return [user_id(point) for point in behind[:limit]]

    @property
    def _dimension(self) -> int:
        return self.header.fingerprint.dimension

    @property
    def _unjudged(self) -> Any:
        return self.library.filter(must=[self.library.is_empty(WITNESSES)])

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
                    with_vector=[search.read],
                    with_payload=payload,
                    params=params,
                )
                for row in rows or range(len(wanted.vectors))
            ]
        )

    def _by_words(self, filters: Sequence[Any], said: Mapping[int, QueryWords]) -> list[list[Worded]]:
        """The captions that have most of the words of some rows, each under its filter."""
        requests = [
            self.library.request(
                self.library.sparse(list(one.weights), list(one.weights.values())),
                WORDS,
                limit=MOST + 1,
                filter=filters[row],
                with_vector=["text", WORDS],
                with_payload=False,
            )
            for row, one in said.items()
        ]
        return [to_worded(hits) for hits in self._query(requests)]

    def _retrieve(
        self, ids: Sequence[str], payload: list[str] | bool, size: int = AT_ONCE, *, vectors: bool = False
    ) -> Iterator[list[Any]]:
        """The existing points of these ids, in their order."""
        for chunk in chunks(ids, size):
            wanted = [point_id(name) for name in chunk]
            there = {str(point.id): point for point in self._fetch(wanted, payload, vectors=vectors)}
            yield [there[name] for name in wanted if name in there]

    def _known_before(self, records: Records) -> dict[str, list[float]]:
        """Id -> witnesses, of the pairs (N, D) that are stored with the same vectors and have some."""
        rows, known = {point_id(name): row for row, name in enumerate(records.ids)}, dict[str, list[float]]()
        for point in chain.from_iterable(self._retrieve(records.ids, [WITNESSES], vectors=True)):
            witnesses, row = (point.payload or {}).get(WITNESSES), rows[str(point.id)]
            if witnesses and all(
                are_same(np.asarray(point.vector[m], np.float32), records.side(m)[row]) for m in MODALITIES
            ):
                known[records.ids[row]] = witnesses
        return known

    def _to_points(self, records: Records, known: Mapping[str, list[float]]) -> list[Any]:
        """Points of pairs (N, D): both vectors, the words of the caption, and the payload with the user's id."""
        made = []
        columns = (records.ids, records.image.tolist(), records.text.tolist(), records.payloads)
        for name, image, text, payload in zip(*columns, strict=True):
            words = stored_words(caption_of(payload))
            vectors = {"image": image, "text": text, WORDS: self.library.sparse(words, [1.0] * len(words))}
            witnesses = {WITNESSES: known[name]} if name in known else {}
            made.append(self.library.point(point_id(name), vectors, {**payload, USER_ID: name} | witnesses))
        return made

    def _to_records(self, points: list[Any]) -> Records:
        with translate_errors(self.location, "read"):
            return to_records(points, self._dimension)
