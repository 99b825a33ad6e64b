"""Encoded pairs in blocks, for `reco memory build`, `sync` and the like while this serves; under the admin key.

Vectors are base64 of float32, little-endian, row by row: a fifth of the same numbers as JSON, and quick to read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from ..errors import InputError, MemoryStoreError
from ..memory.checks import check_pair
from ..memory.words import QueryWords
from ..pairs import PairMemory
from ..types import Modality, Records, Search
from ..values import ROW, SOURCE, pack, unpack
from .edge import Edge
from .failures import Failure, Refused, failure_of, too_many_items
from .logs import LOGGER
from .memory import Removed
from .routes import memory_routes
from .schemas import Items, Strict

log = logging.getLogger(LOGGER)
T = TypeVar("T")
STATE = "x-reco-memory-state"
"""Header of requests that belong together: ``state`` of the memory as the first one saw it."""
AT_ONCE = 256
"""Pairs that are read at once, unless a request says otherwise."""
MOVED = "another version of the memory was put to use meanwhile: give the same command again"


class PutRecords(Strict):
    """N pairs as columns; an id that exists is replaced."""

    ids: Items[str] = Field(min_length=1)
    image: str = Field(description="base64 of (N, D) float32")
    text: str = Field(description="base64 of (N, D) float32")
    payloads: list[dict[str, Any]]
    rows: list[str | None] = Field([], description="digests of their rows in the source, or nothing")
    sources: list[str | None] = Field([], description="names of the sources that brought them, or nothing")


class Stored(BaseModel):
    """How many pairs were written."""

    stored: int
    version: int


class ReadRecords(Strict):
    """Which pairs to read: those of ids, or the next ones behind an id, of all."""

    ids: Items[str] | None = None
    after: str | None = Field(None, description="the last id that was read; none for the first pairs")
    limit: int = Field(AT_ONCE, ge=1, description="pairs, where no ids are given")
    vectors: bool = False


class FoundRecords(BaseModel):
    """Pairs as columns."""

    ids: list[str]
    payloads: list[dict[str, Any]]
    """With the marks of rows and sources."""
    image: str | None = None
    text: str | None = None
    last: str | None = None
    """To read on: the last id, where no ids were given; none at the end."""


class RemoveRecords(Strict):
    """Ids of pairs."""

    ids: Items[str]


class SearchRecords(Strict):
    """B queries that are vectors."""

    vectors: str = Field(description="base64 of (B, D) float32")
    by: Modality
    read: Modality = Field(description="side whose vectors are answered")
    k: int = Field(1, ge=1)
    exclude: Items[str] = Field([], description="ids that no query finds")
    where: dict[str, Any] | None = None
    words: Items[str | None] = Field([], description="of B queries, by which captions are found, too")


class FoundNear(BaseModel):
    """The nearest pairs of B queries; vectors and similarities of all hits, one query after the other."""

    ids: list[list[str]]
    payloads: list[list[dict[str, Any]]]
    similarity: str
    vectors: str


class Settled(BaseModel):
    """The memory once all is written."""

    pairs: int
    version: int


class Learning(BaseModel):
    """How far learning is that was asked for."""

    asked: int
    """Number of the latest run that was asked for."""
    ended: int
    """Number of the latest that has ended: below `asked`, one waits or runs."""
    done: int
    """Steps of the one that runs."""
    total: int
    failed: str
    """Why the latest failed; empty if it did not."""


def router(edge: Edge) -> APIRouter:
    """The routes; the key check decides who may use them."""
    routes = memory_routes()
    memory, most = edge.embedder.reco.memory, edge.settings.max_items

    @routes.post("/records", response_model=Stored)
    async def put_records(request: Request, body: PutRecords) -> Response:
        """Write pairs that are encoded already, searchable at once; then settle, once all are written."""
        return await edge(request).write(_there(edge, request, lambda: put(memory, body)))

    @routes.post("/records/read", response_model=FoundRecords)
    async def read_records(request: Request, body: ReadRecords) -> Response:
        """Read pairs by id, or all of them in parts while others write."""
        if body.limit > most:
            raise Refused(too_many_items(body.limit, most, "limit"))
        return await edge(request).reply(_there(edge, request, lambda: read(memory, body)))

    @routes.post("/records/remove", response_model=Removed)
    async def remove_records(request: Request, body: RemoveRecords) -> Response:
        """Delete pairs by id; unknown ids are no error."""

        def remove() -> Removed:
            return Removed(removed=memory.remove(body.ids), pairs=len(memory), version=memory.version)

        return await edge(request).write(_there(edge, request, remove))

    @routes.post("/records/search", response_model=FoundNear)
    async def search_records(request: Request, body: SearchRecords) -> Response:
        """Find the pairs nearest to vectors."""
        return await edge(request).reply(_there(edge, request, lambda: search(memory, body, most)))

    @routes.post("/settle", response_model=Settled)
    async def settle_memory(request: Request) -> Response:
        """Make all that was written durable, and let the memory learn from it while this serves."""

        def settle() -> Settled:
            memory.settle()
            return Settled(pairs=len(memory), version=memory.version)

        return await edge(request).write(_there(edge, request, settle))

    @routes.post("/calibrate", response_model=Learning)
    async def learn_anew(request: Request) -> Response:
        """Let the memory learn from all of its pairs while this serves: one run at a time, later requests join it."""
        return await edge(request).write(
            _there(edge, request, lambda: Learning.model_validate(vars(memory.learner.ask())))
        )

    @routes.get("/calibrate", response_model=Learning)
    async def show_learning(request: Request) -> Response:
        """How far that is."""
        return await edge(request).reply(lambda: Learning.model_validate(vars(memory.learner.runs)))

    return routes


def _there(edge: Edge, request: Request, call: Callable[[], T]) -> Callable[[], T]:
    """The call, refused if the request names another state of the memory than the one that is here when it runs.

    Else a run of many requests would write to two versions.
    """
    meant = request.headers.get(STATE)

    def checked() -> T:
        if meant is not None and meant != edge.in_use.state:
            raise Refused(Failure(409, "memory_moved", MOVED, STATE))
        try:
            return call()
        except MemoryStoreError as error:  # who fills the memory has to read why, and may
            log.warning("a request to the memory failed: %s", error)
            passes = type(error) is not MemoryStoreError  # an outage, unlike a full disk
            failure = failure_of(error) if passes else Failure(500, "memory_failed", "")
            raise Refused(replace(failure, message=str(error))) from error

    return checked


def put(memory: PairMemory, asked: PutRecords) -> Stored:
    """Write encoded pairs.

    Raises:
        InputError: columns of different lengths, or a pair that cannot be stored; nothing is written.
        MemoryStoreError: the memory cannot be written.
    """
    number, dimension = len(asked.ids), memory.encoder.dimension
    for name, column in (("payloads", asked.payloads), ("rows", asked.rows), ("sources", asked.sources)):
        if len(column) != number and (column or name == "payloads"):
            raise InputError(f"{name} has {len(column)} entries, and ids {number}: give one for each")
    marks = zip(*((column or [None] * number) for column in (asked.rows, asked.sources)), strict=True)
    payloads = [
        check_pair(id_, None, payload) | {key: mark for key, mark in ((ROW, row), (SOURCE, source)) if mark is not None}
        for id_, payload, (row, source) in zip(asked.ids, asked.payloads, marks, strict=True)
    ]
    image, text = unpack(asked.image, (number, dimension), "image"), unpack(asked.text, (number, dimension), "text")
    stored = memory.add_records([Records(asked.ids, image, text, payloads)], settle=False)
    return Stored(stored=stored, version=memory.version)


def read(memory: PairMemory, asked: ReadRecords) -> FoundRecords:
    """Read pairs, in the order of their ids; unknown ones are left out.

    Raises:
        MemoryStoreError: the memory cannot be read.
    """
    store = memory.store
    ids = store.ids_after(asked.after, asked.limit) if asked.ids is None else asked.ids
    last = ids[-1] if asked.ids is None and ids else None
    if not asked.vectors:
        found = dict(store.payloads(ids)) if ids else {}
        known = [id_ for id_ in dict.fromkeys(ids) if id_ in found]
        return FoundRecords(ids=known, payloads=[dict(found[id_]) for id_ in known], last=last)
    records = memory.get(ids) if ids else Records.join([], memory.encoder.dimension)
    return FoundRecords(
        ids=list(records.ids),
        payloads=[dict(payload) for payload in records.payloads],
        image=pack(records.image),
        text=pack(records.text),
        last=last,
    )


def search(memory: PairMemory, asked: SearchRecords, most: int) -> FoundNear:
    """Search with vectors.

    Raises:
        Refused: 413, more hits than items are allowed in a request.
        InputError: vectors or conditions that are wrong.
        MemoryStoreError: the memory does not answer.
    """
    queries = unpack(asked.vectors, (-1, memory.encoder.dimension), "vectors")
    if (hits := len(queries) * asked.k) > most:
        raise Refused(too_many_items(hits, most, "vectors x k"))
    exclude = [asked.exclude] * len(queries) if asked.exclude else None
    if asked.words and len(asked.words) != len(queries):
        raise InputError(f"words must be of {len(queries)} queries, got {len(asked.words)}")
    said = [QueryWords.of(text or "") for text in asked.words] or None
    found = memory.store.search(
        Search(queries, asked.by, asked.read, asked.k, where=asked.where, exclude=exclude, payloads=True, words=said)
    )
    return FoundNear(
        ids=[list(ids) for ids in found.ids],
        payloads=[[dict(payload) for payload in row] for row in found.payloads or [[] for _ in found.ids]],
        similarity=pack(found.similarity[found.found]),
        vectors=pack(np.asarray(found.vectors[found.found], np.float32)),
    )
