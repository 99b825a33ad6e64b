"""``/v1/memory``: read, search and change the pairs while serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from ..defaults import RESULTS
from ..encoders.local import EncoderInput
from ..errors import InputError
from ..memory.checks import check_pair
from ..memory.lexical import QueryWords
from ..types import MODALITIES, Modality, Records, Search
from ..values import EXCLUSIONS, ROW, SOURCE, pack, strip_marks
from .app_state import Edge
from .embedder import Embedder, check_k
from .failures import Refused, failure_of, too_many_items
from .items import Item
from .model_routes import MemoryState, describe_calibration
from .routing import life_of, memory_routes
from .schemas import Items, JsonVector, QueryBody, Strict
from .wire import with_nulls

Ids = Annotated[list[str], Query(alias="id", min_length=1, description="id of a pair; repeat it for more")]
_PAGE = 256
"""Pairs that are listed at once, unless a request says otherwise."""


class MemoryInfo(MemoryState):
    """The memory as a whole."""

    pairs: int
    missing: int
    """Pairs that were lost because the files of the folder are damaged."""
    location: str
    encoder: str
    fingerprint: str
    dimension: int
    calibration: dict[str, Any] | None = None
    """What was learned about the pairs, as it is stored; on request."""


class PairIn(Strict):
    """A pair to add; each side is raw or a CLIP vector of this model's encoder."""

    id: str = Field(min_length=1, description="the same id replaces the pair")
    text: str | None = Field(None, description="the caption; kept in the payload as `caption`")
    text_vector: JsonVector | None = None
    image: str | None = Field(None, description="data URI or base64")
    image_vector: JsonVector | None = None
    payload: dict[str, Any] = Field({}, description="JSON values to filter by and to show")
    source: str | None = Field(None, description="name of the source that brings the pair, for `reco memory sync`")
    row: str | None = Field(None, description="digest of its row in that source")

    @model_validator(mode="after")
    def _one_of_each(self) -> PairIn:
        for side in MODALITIES:
            raw, vector = self._side(side)
            if (raw is None) == (vector is None):
                raise ValueError(f"give {side} or {side}_vector, and not both")
        return self

    def _side(self, side: Modality) -> tuple[str | None, list[float] | None]:
        return (self.text, self.text_vector) if side == "text" else (self.image, self.image_vector)

    def to_item(self, side: Modality) -> Item:
        """One side for the preparation."""
        raw, vector = self._side(side)
        return Item(raw or "" if vector is None else vector, side)

    @property
    def stored_payload(self) -> dict[str, Any]:
        """The payload with the caption, to show a retrieved pair, and the marks of its source."""
        marks = {key: mark for key, mark in ((SOURCE, self.source), (ROW, self.row)) if mark is not None}
        return ({} if self.text is None else {"caption": self.text}) | self.payload | marks


class AddPairs(Strict):
    """Pairs to add."""

    pairs: Items[PairIn] = Field(min_length=1)


class Added(BaseModel):
    """What was stored."""

    stored: int
    pairs: int
    """In the memory now."""
    version: int


class StoredPair(BaseModel):
    """A pair of the memory, as it can be sent again."""

    id: str
    payload: dict[str, Any]
    source: str | None = None
    row: str | None = None
    text_vector: list[float] | str | None = None
    image_vector: list[float] | str | None = None


class Found(BaseModel):
    """Pairs by id, or in the order of their ids."""

    data: list[StoredPair]
    last: str | None = None
    """Where to read on: the last id, where no ids were given; null at the end."""


class Removed(BaseModel):
    """How many of the ids existed, and how many pairs are left."""

    removed: int
    pairs: int
    version: int


class Hit(BaseModel):
    """A pair that a search found."""

    id: str
    similarity: float
    payload: dict[str, Any]
    words: str | None = None
    """The part of its caption by which it was found, where it stands in for the query."""


class Hits(BaseModel):
    """Pairs that a search found, nearest first."""

    data: list[Hit]


class SearchRequest(QueryBody):
    """One query: a text, an image or a vector."""

    by: Modality | None = Field(None, description="side of the memory to compare with; the query's own when left out")
    k: int = Field(RESULTS, ge=1)
    where: dict[str, Any] | None = None
    exclude: list[str] = Field([], max_length=EXCLUSIONS, description="ids that are not found")


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = memory_routes()
    embedder, memory, most = edge.embedder, edge.embedder.reco.memory, edge.settings.max_items

    @routes.get("", response_model=MemoryInfo)
    async def memory_info(request: Request, *, calibration: bool = False) -> Response:
        """Count the pairs, and describe the memory."""
        return await life_of(request).reply(lambda: with_nulls(describe(embedder, calibration=calibration)))

    @routes.post("/pairs", response_model=Added)
    async def add_pairs(request: Request, body: AddPairs) -> Response:
        """Add pairs, or replace those with the same id; searchable when this answers."""
        return await life_of(request).write(lambda: with_nulls(add(embedder, body)))

    @routes.get("/pairs", response_model=Found)
    async def look_up_pairs(
        request: Request,
        ids: Annotated[list[str], Query(alias="id", description="id of a pair; repeat it for more; none: all")] = [],  # noqa: B006
        after: str | None = None,
        limit: Annotated[int, Query(ge=1)] = min(_PAGE, most),
        vectors: Literal["none", "float", "base64"] = "none",
    ) -> Response:
        """Look pairs up by id, or list all in parts: those after an id; unknown ids are left out."""
        _check_number(len(ids) or limit, most, "id" if ids else "limit")
        return await life_of(request).reply(lambda: look_up(embedder, ids, after, limit, vectors))

    @routes.delete("/pairs", response_model=Removed)
    async def remove_pairs(request: Request, ids: Ids) -> Response:
        """Delete pairs by id; unknown ids are no error."""
        _check_number(len(ids), most, "id")

        def remove() -> Removed:
            return Removed(removed=memory.remove(ids), pairs=len(memory), version=memory.version)

        return await life_of(request).write(remove)

    @routes.post("/search", response_model=Hits)
    async def search_memory(request: Request, body: SearchRequest) -> Response:
        """Find the pairs nearest to a text, an image or a vector."""
        check_k(body.k)
        return await life_of(request).reply(lambda: Hits(data=search(embedder, body)))

    return routes


def describe(embedder: Embedder, *, calibration: bool) -> MemoryInfo:
    """The memory, on request with what it has learned.

    Raises:
        MemoryStoreError: the memory does not answer.
    """
    memory = embedder.reco.memory
    pairs = len(memory)
    header = memory.store.look()  # and with it what other services learned
    made_by = header.fingerprint
    return MemoryInfo(
        pairs=pairs,
        missing=memory.missing,
        kind=memory.kind,
        location=memory.location,
        encoder=made_by.name,
        fingerprint=made_by.digest,
        dimension=made_by.dimension,
        calibration=header.calibration if calibration else None,
        **describe_calibration(embedder.reco, pairs),
        version=memory.version,
    )


def add(embedder: Embedder, asked: AddPairs) -> Added:
    """Encode and store pairs, searchable at once.

    Raises:
        Refused: a pair cannot be read; nothing is stored.
        InputError: a repeated id, or a payload that is not JSON.
        MemoryStoreError: the memory cannot be written.
    """
    embedder.check_images(one.image is not None for one in asked.pairs)
    ready = [_ready(embedder, f"pairs[{index}]", one) for index, one in enumerate(asked.pairs)]
    images, texts = (embedder.encode([sides[side] for sides in ready], side) for side in MODALITIES)
    memory = embedder.reco.memory
    payloads = [one.stored_payload for one in asked.pairs]
    stored = memory.add_records([Records([one.id for one in asked.pairs], images, texts, payloads)])
    return Added(stored=stored, pairs=len(memory), version=memory.version)


def look_up(embedder: Embedder, ids: list[str], after: str | None, limit: int, vectors: str) -> Found:
    """The stored pairs of these ids, without unknown ones; without ids, the next ones after an id."""
    memory = embedder.reco.memory
    names = ids or memory.store.ids_after(after, limit)
    last = names[-1] if names and not ids else None
    if vectors == "none":
        payloads = dict(memory.store.payloads(names)) if names else {}
        known = [name for name in dict.fromkeys(names) if name in payloads]
        return Found(data=[_stored(name, payloads[name]) for name in known], last=last)
    found = memory.get(names)
    write: Callable[[Any], Any] = pack if vectors == "base64" else np.asarray
    data = [
        _stored(name, found.payloads[row], text_vector=write(found.text[row]), image_vector=write(found.image[row]))
        for row, name in enumerate(found.ids)
    ]
    return Found(data=data, last=last)


def _stored(name: str, payload: Mapping[str, Any], **vectors: Any) -> StoredPair:
    marks = {"source": payload.get(SOURCE), "row": payload.get(ROW)}
    return StoredPair.model_construct(id=name, payload=strip_marks(payload), **marks, **vectors)


def search(embedder: Embedder, asked: SearchRequest) -> list[Hit]:
    """The pairs nearest to one query.

    Raises:
        Refused: the query cannot be read.
        InputError: an invalid condition.
        MemoryStoreError: the memory does not answer.
    """
    vector = embedder.vector(asked.to_item(), "the query")
    by_words = asked.by in (None, "text") and embedder.reco.defaults.get("words") is not False
    wanted = Search(
        vector[None],
        asked.by or asked.kind,
        asked.kind,
        asked.k,
        where=asked.where,
        exclude=[asked.exclude] if asked.exclude else None,
        payloads=True,
        words=[QueryWords.of(asked.text)] if by_words and asked.text is not None else None,
    )
    found = embedder.reco.memory.store.search(wanted)
    payloads = found.payloads[0] if found.payloads else [{}] * len(found.ids[0])
    return [
        Hit(
            id=id_,
            similarity=float(found.similarity[0, column]),
            payload=strip_marks(payload),
            words=found.words[0] if found.word_ids and id_ in found.word_ids[0] else None,
        )
        for column, (id_, payload) in enumerate(zip(found.ids[0], payloads, strict=True))
    ]


def _ready(embedder: Embedder, name: str, one: PairIn) -> dict[Modality, EncoderInput]:
    """Both sides of a pair for the encoder: id, payload and vectors checked, its image decoded."""
    try:
        check_pair(one.id, one.text, one.payload)
    except InputError as error:
        raise Refused(failure_of(error).at(name)) from None
    return {side: embedder.prepare(one.to_item(side), name, empty=True) for side in MODALITIES}


def _check_number(number: int, limit: int, name: str) -> None:
    if number > limit:
        raise Refused(too_many_items(number, limit, name))
