"""The embedded engine: a Qdrant Edge shard in a folder, held by one process at a time."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as qe

from ..config import OF_A_FOLDER, MemoryOptions
from ..errors import MemoryReadOnly
from ..types import MODALITIES, Fingerprint, Neighbours, Payload, Records, Search, caption_of
from .checks import (
    CheckedSearch,
    Opener,
    check_ids,
    check_records,
    check_search,
    check_witnesses,
    chunks,
)
from .disk import LAST_BYTES, ShardCopy, alone_in, bytes_of_pairs, check_room, load_shard, make_shard
from .edge_reading import ShardReader
from .filters import WITNESSES
from .header import Header, open_folder, refuse_missing_data, write_header
from .index import SearchIndex
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
    translate_errors,
    wanted_payload,
)
from .said import SaidRecord
from .words import MOST, QueryWords, Worded, asked_by_words, stored_words

SHARD_NAME = "shard"
_UNJUDGED = qe.Filter(must=[qe.IsEmptyCondition(WITNESSES)])
_MANY = 300_000
"""Pairs from which a Qdrant server is the place for them."""
_FLUSH_EVERY = 5000
"""Points after which the write-ahead log is emptied: reopening after a crash replays it."""
_ID_BYTES = 64
"""Bytes of a deleted point in the log; measured: 38."""
_WITNESS_BYTES = 512
"""Bytes of a pair's witnesses in log and payload, and of the payload that is written anew with them."""


_WORDS = FilterConstructors(
    filter=qe.Filter,
    field=qe.FieldCondition,
    range=qe.RangeFloat,
    match_any=qe.MatchAny,
    match_flag=lambda flag: qe.MatchValue(np.bool_(flag)),  # type: ignore[arg-type]  # Edge 0.9 takes a bool for 0 or 1
    has_id=lambda points: qe.HasIdCondition(set(points)),
)
_AT_ONCE = 8
"""Queries, whose hits are made into objects of Python while no other thread runs, nor a service's event loop: with 64,
for 90 to 150 ms on a busy machine in place of 30. More than 8 save 3 % of a search's CPU."""


class EdgeMemory(PointMemory):
    """A shard with a write-ahead log: what ``upsert`` and ``delete`` wrote survives a killed process.

    Qdrant Edge holds Python's global lock while it works. A read-only folder
    is searched in a copy, and writing to it is an error.
    """

    kind = "edge"

    def __init__(
        self,
        shard: qe.EdgeShard,
        header: Header,
        folder: Path,
        options: MemoryOptions,
        copy: ShardCopy | None = None,
    ) -> None:
        self.location = str(folder)
        self._shard: qe.EdgeShard | None = shard
        self._header, self._heading = header, threading.Lock()  # a thread learns while another is told
        self._folder = folder
        self._options = options
        self._opener = Opener()
        self._unflushed, self._flushing = 0, threading.Lock()  # Edge fails where two flush, or one closes
        self._copy = copy
        self._reader = ShardReader(self._live, self.location, self._dimension)
        self._warned = False  # of a size
        self._warn_of_size()
        self._index = SearchIndex(
            self._reader,
            folder,
            writable=copy is None,
            enabled=options.index == "auto" and not options.exact,
        )

    @classmethod
    def open(
        cls, location: str, fingerprint: Fingerprint | None, options: MemoryOptions, *, create: bool
    ) -> EdgeMemory:
        """Open or create the memory in a folder."""
        options.check_fits(OF_A_FOLDER, location)
        folder = Path(location)
        path = folder / SHARD_NAME
        makes = create and fingerprint is not None and not path.exists()
        with alone_in(folder) if makes else nullcontext():
            header = open_folder(folder, fingerprint, create=create)
            with translate_errors(location, "open"):
                if not path.exists():
                    refuse_missing_data(path, header, create=create)
                    check_room(folder, "make", 0)
                    make_shard(path, header.fingerprint.dimension)
        copy = ShardCopy(path) if path.exists() and not os.access(path, os.W_OK) else None
        try:
            with translate_errors(location, "open"):
                shard = load_shard(Path(copy.name) if copy else path, header.fingerprint.dimension)
        except BaseException:
            if copy is not None:
                copy.cleanup()
            raise
        return cls(shard, header, folder, options, copy)

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        return self._header

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store what was learned; for a read-only folder, only while this is open."""
        self._live()
        with self._heading:
            self._keep(self._header.with_calibration(calibration))

    def note_learning(self, note: dict[str, Any]) -> None:
        """Keep in ``memory.json`` who learns from the pairs; not in a read-only folder."""
        self._live()
        with self._heading:
            self._keep(replace(self._header, learning=dict(note) if self._copy is None else {}))

    def look(self) -> Header:
        """The header: only this process writes it."""
        return self._header

    def change_said(self, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        """Keep what people said in ``memory.json``."""
        self.check_writable()
        with self._heading:
            self._keep(self._header.with_said(added, gone))

    def _keep(self, header: Header) -> None:
        """Write a header; of a read-only folder only while this is open."""
        if self._copy is None:
            write_header(self._folder, header)
        self._header = header

    def set_witnesses(self, ids: Sequence[str], witnesses: npt.NDArray[np.float32]) -> None:
        """Store the witnesses (N, 3) of pairs in their payload; none in a read-only folder."""
        shard, checked = self._live(), check_witnesses(ids, witnesses)
        if self._copy is not None:
            return
        for chunk in chunks(list(checked), AT_ONCE):
            check_room(self._folder, "write to", _WITNESS_BYTES * len(chunk))
            points = {point_id(name): checked[name] for name in chunk}
            there = self._reader.retrieve(list(points), False, vectors=False)
            known = [(name, points[name]) for name in (str(point.id) for point in there)]
            with translate_errors(self.location, "write"):
                for point, row in known:
                    shard.update(qe.UpdateOperation.set_payload([point], {WITNESSES: row}))
            self._written(len(known))

    def count_unjudged(self) -> int:
        """Number of pairs without witnesses; 0 in a read-only folder."""
        self._live()
        return 0 if self._copy is not None else self._reader.count(_UNJUDGED)

    def count(self) -> int:
        """Number of pairs."""
        return self._reader.count()

    def upsert(self, records: Records) -> None:
        """Add or replace pairs, vectors (N, D).

        Raises:
            InputError: also if two ids would be the same point.
            MemoryStoreError: also if it might fill the disk, see :mod:`.disk`.
        """
        shard = self.check_writable()
        checked = check_records(records, self._dimension)
        there = self._retrieve(checked.ids, list(READ_BEFORE), vectors=True)
        kept = compare_stored(checked, chain.from_iterable(there))
        for start in range(0, len(checked), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            check_room(self._folder, "write to", bytes_of_pairs(self._dimension, checked.payloads[rows]))
            points = _to_points(checked, rows, kept)
            names = [str(point.id) for point in points]
            self._index.before_write()
            with translate_errors(self.location, "write"):
                shard.update(qe.UpdateOperation.upsert_points(points))
            self._index.add(names, {m: checked.side(m)[rows] for m in MODALITIES})
            self._written(len(points))

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        shard = self.check_writable()
        points = {point_id(name) for name in check_ids(ids, "delete")}
        if not points:
            return 0
        check_room(self._folder, "delete from", _ID_BYTES * len(points), LAST_BYTES)
        self._index.before_write()
        with translate_errors(self.location, "delete"):
            there = shard.count(qe.CountRequest(filter=qe.Filter(must=[qe.HasIdCondition(set(points))]), exact=True))
            if there:
                shard.update(qe.UpdateOperation.delete_points(list(points)))
                self._written(there)
        self._index.add((), {})
        return there

    def search(self, search: Search) -> Neighbours:
        """Find the k nearest pairs of queries (B, D), all in one call."""
        shard, dimension = self._live(), self._header.fingerprint.dimension
        payload = wanted_payload(search)
        plain = search.checked and self._index.idle  # no conditions, no exclusions, every pair
        wanted = CheckedSearch(search.vectors, search.k, [], ()) if plain else check_search(search, dimension)
        filters = [] if plain else list(_WORDS.filters(wanted))
        with translate_errors(self.location, "search"):
            told: Sequence[str] = ()
            if search.words is not None:
                pairs, find = self._header.calibration.get("pairs", 0), partial(self._by_words, shard, filters)
                vectors, told = asked_by_words(search, wanted.vectors, pairs, find)
                wanted = replace(wanted, vectors=vectors)
            if plain:
                found = self._ask(shard, search, wanted, payload, range(len(wanted.vectors)))
            else:
                found = self._find(shard, search, wanted, payload, filters)
            near = to_neighbours(found, dimension, search, k=wanted.k)
            return replace(near, asked=wanted.vectors, words=told) if told else near

    def _by_words(
        self, shard: qe.EdgeShard, filters: Sequence[qe.Filter | None], said: Mapping[int, QueryWords]
    ) -> list[list[Worded]]:
        """The captions that have most of the words of some rows, each under its filter."""
        requests = [
            qe.QueryRequest(
                query=qe.Query.Nearest(qe.SparseVector(list(one.weights), list(one.weights.values())), using=WORDS),
                limit=MOST + 1,
                filter=filters[row] if filters else None,
                with_vector=["text", WORDS],
                with_payload=False,
            )
            for row, one in said.items()
        ]
        return [to_worded(hits) for hits in _ask_in_turns(shard, requests)]

    def _find(
        self,
        shard: qe.EdgeShard,
        search: Search,
        wanted: CheckedSearch,
        payload: bool | list[str],
        filters: Sequence[qe.Filter | None],
    ) -> list[list[Any]]:
        """The hits of each query under its conditions, by the search index where there is one.

        The index names points to compare with; a query that then finds fewer than k compares all.
        """
        every = range(len(wanted.vectors))
        among = None if self._options.exact else self._index.candidates(search.by, wanted)
        if among is None:
            return self._ask(shard, search, wanted, payload, every, filters)
        narrow = [
            qe.Filter(must=[_WORDS.has_id(some), *([f] if f else [])]) for some, f in zip(among, filters, strict=True)
        ]
        found = self._ask(shard, search, wanted, payload, every, narrow)
        short = [row for row, hits in enumerate(found) if len(hits) < wanted.k]
        again = self._ask(shard, search, wanted, payload, short, [filters[row] for row in short]) if short else []
        for row, hits in zip(short, again, strict=True):
            found[row] = hits
        return found

    def _ask(
        self,
        shard: qe.EdgeShard,
        search: Search,
        wanted: CheckedSearch,
        payload: bool | list[str],
        rows: Sequence[int],
        filters: Sequence[qe.Filter | None] = (),
    ) -> list[list[Any]]:
        """The hits of some queries, each under its filter."""
        requests = []
        params = qe.SearchParams(exact=True)
        for row, condition in zip(rows, filters or [None] * len(rows), strict=True):
            nearest = qe.Query.Nearest(wanted.vectors[row].tolist(), using=search.by)
            requests.append(
                qe.QueryRequest(
                    query=nearest,
                    limit=wanted.k,
                    filter=condition,
                    with_vector=[search.read],
                    with_payload=payload,
                    params=params,
                )
            )
        return _ask_in_turns(shard, requests)

    @property
    def index_state(self) -> str:
        """See :attr:`reco_plugin.memory.index.SearchIndex.state`."""
        return self._index.state

    def check_writable(self) -> qe.EdgeShard:
        """The shard, to write to.

        Raises:
            MemoryReadOnly: the folder cannot be written.
        """
        if self._copy is not None:
            raise MemoryReadOnly(
                f"the memory at {self.location!r} was opened to be read only, since its folder cannot be written: "
                "allow this user to write it, or copy it to a folder that can be written, and open it again"
            )
        return self._live()

    def flush(self) -> None:
        """Write segments to the disk and empty the write-ahead log."""
        with self._flushing:
            shard = self._live()
            with translate_errors(self.location, "flush"):
                _flush(shard)
            self._unflushed = 0

    def close(self) -> None:
        """Flush and release the folder."""
        if self._shard is not None and self._opener.is_here:  # in a fork, the process that opened it closes it
            self._index.close()
            with self._flushing, translate_errors(self.location, "close"):
                shard, self._shard = self._shard, None
                if shard is not None:
                    try:
                        _flush(shard)
                    finally:
                        shard.close()
            if self._copy is not None:
                self._copy.cleanup()

    def _live(self) -> qe.EdgeShard:
        if self._shard is not None and self._opener.process == os.getpid():
            return self._shard
        return self._opener.check(self._shard, self.location)

    def _written(self, points: int) -> None:
        self._unflushed += points
        if self._unflushed >= _FLUSH_EVERY:
            self.flush()
            self._warn_of_size()

    def _warn_of_size(self) -> None:
        if not self._warned and (pairs := self.count()) >= _MANY:
            self._warned = True
            warnings.warn(
                f"the memory at {self.location!r} holds {pairs:,} pairs, and from {_MANY:,} on a Qdrant server is "
                f"faster: reco memory copy {self.location} grpc://localhost:6334",
                stacklevel=2,
            )

    def _fetch(self, points: Sequence[str], payload: list[str] | bool, *, vectors: bool) -> list[Any]:
        return self._reader.retrieve(points, payload, vectors=vectors)

    def _page(
        self, start: Any, size: int, payload: list[str] | bool, *, vectors: bool = False, unjudged: bool = False
    ) -> tuple[list[Any], Any]:
        if unjudged and self._copy is not None:  # which can keep none
            return [], None
        return self._reader.page(start, size, payload, vectors=vectors, where=_UNJUDGED if unjudged else None)


def _flush(shard: qe.EdgeShard) -> None:
    """Flush; what fails is tried again, since only a second failure says that a file is damaged."""
    try:
        shard.flush()
    except Exception:  # Edge has no class of its own
        shard.flush()


def _ask_in_turns(shard: qe.EdgeShard, requests: list[qe.QueryRequest]) -> list[list[Any]]:
    found = list[list[Any]]()
    for start in range(0, len(requests), _AT_ONCE):
        found += shard.query_batch(qe.QueryBatchRequest(requests[start : start + _AT_ONCE]))
    return found


def _words_of(payload: Payload) -> qe.SparseVector:
    words = stored_words(caption_of(payload))
    return qe.SparseVector(words, [1.0] * len(words))


def _to_points(records: Records, rows: slice, witnesses: Mapping[str, Sequence[float]]) -> list[qe.Point]:
    columns = (records.ids[rows], records.image[rows].tolist(), records.text[rows].tolist(), records.payloads[rows])
    return [
        qe.Point(
            point_id(name),
            {"image": image, "text": text, WORDS: _words_of(payload)},
            stored_payload(name, payload, witnesses.get(name)),
        )
        for name, image, text, payload in zip(*columns, strict=True)
    ]
