"""``/v1/memory``: read, search and change the pairs while the service runs."""

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
from .app_state import AppState
from .auth import MEMORY_PATH
from .embedder import Embedder, check_k
from .failures import Refused, failure_of
from .model_routes import MemoryState, describe_calibration
from .routing import context_of, own_routes
from .schemas import Items, JsonVector, QueryBody, Strict
from .wire import Item, with_nulls

Ids = Annotated[list[str], Query(alias="id", min_length=1, description="id of a pair; repeat it for more")]
_PAGE = 256
"""Pairs in a part of a listing, unless the request gives a limit."""


class MemoryInfo(MemoryState):
    """The memory as a whole."""

    pairs: int
    missing: int
    """Pairs that were lost because files of the folder are damaged."""
    location: str
    encoder: str
    fingerprint: str
    dimension: int
    calibration: dict[str, Any] | None = None
    """What the memory has learned, as it is stored; on request."""


class PairIn(Strict):
    """A pair to add. Each side is raw, or a CLIP vector of this model's encoder."""

    id: str = Field(min_length=1, description="the same id replaces the pair")
    text: str | None = Field(None, description="the caption; kept in the payload as `caption`")
    text_vector: JsonVector | None = None
    image: str | None = Field(None, description="data URI or base64")
    image_vector: JsonVector | None = None
    payload: dict[str, Any] = Field({}, description="JSON values to filter by and to show")
    source: str | None = Field(None, description="name of the source that brings the pair, for `reco memory sync`")
    row: str | None = Field(None, description="digest of its row in that source")

    @model_validator(mode="after")
    def _check_sides(self) -> PairIn:
        for modality in MODALITIES:
            raw, vector = self._side(modality)
            if (raw is None) == (vector is None):
                raise ValueError(f"give {modality} or {modality}_vector, and not both")
        return self

    def _side(self, modality: Modality) -> tuple[str | None, list[float] | None]:
        return (self.text, self.text_vector) if modality == "text" else (self.image, self.image_vector)

    def to_item(self, modality: Modality) -> Item:
        """Convert one side for the embedder."""
        raw, vector = self._side(modality)
        return Item(raw or "" if vector is None else vector, modality)

    @property
    def stored_payload(self) -> dict[str, Any]:
        """The payload with the caption and the marks of the source."""
        marks = {key: mark for key, mark in ((SOURCE, self.source), (ROW, self.row)) if mark is not None}
        return ({} if self.text is None else {"caption": self.text}) | self.payload | marks


class AddPairs(Strict):
    """Pairs to add."""

    pairs: Items[PairIn] = Field(min_length=1)


class Added(BaseModel):
    """How many pairs were stored, and how many there are now."""

    stored: int
    pairs: int
    version: int


class StoredPair(BaseModel):
    """A pair of the memory, in the form in which it can be sent again."""

    id: str
    payload: dict[str, Any]
    source: str | None = None
    row: str | None = None
    text_vector: list[float] | str | None = None
    image_vector: list[float] | str | None = None


class PairPage(BaseModel):
    """Pairs by id, or a part of all pairs in the order of their ids."""

    data: list[StoredPair]
    last: str | None = None
    """The last id of this part, for `after`; null at the end, and if ids were given."""


class Removed(BaseModel):
    """How many of the ids existed, and how many pairs are left."""

    removed: int
    pairs: int
    version: int


class Hit(BaseModel):
    """A pair in the result of a search."""

    id: str
    similarity: float
    payload: dict[str, Any]
    words: str | None = None
    """The part of its caption that has the words of the query, if the caption stands in for the query."""


class Hits(BaseModel):
    """The result of a search, nearest first."""

    data: list[Hit]


class SearchRequest(QueryBody):
    """One query: a text, an image or a vector."""

    by: Modality | None = Field(None, description="side of the pairs to compare with; left out: that of the query")
    k: int = Field(RESULTS, ge=1)
    where: dict[str, Any] | None = None
    exclude: list[str] = Field([], max_length=EXCLUSIONS, description="ids that are left out")


def router(state: AppState) -> APIRouter:
    """Make the routes."""
    routes = own_routes("memory", MEMORY_PATH)
    embedder, memory = state.embedder, state.embedder.reco.memory

    @routes.get("", response_model=MemoryInfo)
    async def memory_info(request: Request, *, calibration: bool = False) -> Response:
        """Count the pairs, and describe the memory."""
        if calibration:
            context_of(request).check_whole()
        return await context_of(request).read(lambda: with_nulls(describe(embedder, calibration=calibration)))

    @routes.post("/pairs", response_model=Added)
    async def add_pairs(request: Request, body: AddPairs) -> Response:
        """Add pairs, or replace those with the same id. They are searchable when this answers."""
        return await context_of(request).write(lambda: with_nulls(add(embedder, body)))

    @routes.get("/pairs", response_model=PairPage)
    async def look_up_pairs(
        request: Request,
        ids: Annotated[list[str], Query(alias="id", description="id of a pair; repeat it for more; none: all")] = [],  # noqa: B006
        after: str | None = None,
        limit: Annotated[int, Query(ge=1)] = min(_PAGE, state.settings.max_items),
        vectors: Literal["none", "float", "base64"] = "none",
    ) -> Response:
        """Get pairs by id, or list all in parts: those after an id. Unknown ids are left out."""
        embedder.check_number(len(ids) or limit, "id" if ids else "limit")
        return await context_of(request).read(lambda: read_pairs(embedder, ids, after, limit, vectors))

    @routes.delete("/pairs", response_model=Removed)
    async def remove_pairs(request: Request, ids: Ids) -> Response:
        """Delete pairs by id; unknown ids are no error."""
        embedder.check_number(len(ids), "id")

        def remove() -> Removed:
            return Removed(removed=memory.remove(ids), pairs=len(memory), version=memory.version)

        return await context_of(request).write(remove)

    @routes.post("/search", response_model=Hits)
    async def search_memory(request: Request, body: SearchRequest) -> Response:
        """Find the pairs nearest to a text, an image or a vector."""
        check_k(body.k)
        return await context_of(request).read(lambda: Hits(data=search(embedder, body)))

    return routes


def describe(embedder: Embedder, *, calibration: bool) -> MemoryInfo:
    """Describe the memory, on request with what it has learned."""
    memory = embedder.reco.memory
    pairs = len(memory)
    header = memory.store.look()  # read again, since other services learn, too
    fingerprint = header.fingerprint
    return MemoryInfo(
        pairs=pairs,
        missing=memory.missing,
        kind=memory.kind,
        location=memory.location,
        encoder=fingerprint.name,
        fingerprint=fingerprint.digest,
        dimension=fingerprint.dimension,
        calibration=header.calibration if calibration else None,
        **describe_calibration(embedder.reco, pairs),
        version=memory.version,
    )


def add(embedder: Embedder, body: AddPairs) -> Added:
    """Encode and store pairs. If one of them cannot be read, nothing is stored."""
    embedder.check_images(sum(one.image is not None for one in body.pairs))
    prepared = [_prepare(embedder, f"pairs[{index}]", one) for index, one in enumerate(body.pairs)]
    images, texts = (embedder.encode([sides[modality] for sides in prepared], modality) for modality in MODALITIES)
    memory = embedder.reco.memory
    payloads = [one.stored_payload for one in body.pairs]
    stored = memory.add_records([Records([one.id for one in body.pairs], images, texts, payloads)])
    return Added(stored=stored, pairs=len(memory), version=memory.version)


def read_pairs(embedder: Embedder, ids: list[str], after: str | None, limit: int, vectors: str) -> PairPage:
    """Return the pairs of these ids, without unknown ones. Without ids, return the next pairs after an id."""
    memory = embedder.reco.memory
    names = ids or memory.store.ids_after(after, limit)
    last = names[-1] if names and not ids else None
    if vectors == "none":
        payloads = dict(memory.store.payloads(names)) if names else {}
        known = [name for name in dict.fromkeys(names) if name in payloads]
        return PairPage(data=[_stored(name, payloads[name]) for name in known], last=last)
    records = memory.get(names)
    write: Callable[[Any], Any] = pack if vectors == "base64" else np.asarray
    rows = zip(records.ids, records.payloads, records.text, records.image, strict=True)
    data = [
        _stored(name, payload, text_vector=write(text), image_vector=write(image))
        for name, payload, text, image in rows
    ]
    return PairPage(data=data, last=last)


def _stored(name: str, payload: Mapping[str, Any], **vectors: Any) -> StoredPair:
    marks = {"source": payload.get(SOURCE), "row": payload.get(ROW)}
    return StoredPair.model_construct(id=name, payload=strip_marks(payload), **marks, **vectors)


def search(embedder: Embedder, body: SearchRequest) -> list[Hit]:
    """Return the pairs nearest to one query."""
    vector = embedder.embed_one(body.to_item(), "the query")
    by_words = body.by in (None, "text") and embedder.reco.defaults.get("words") is not False
    neighbours = embedder.reco.memory.store.search(
        Search(
            vector[None],
            body.by or body.kind,
            body.kind,
            body.k,
            where=body.where,
            exclude=[body.exclude] if body.exclude else None,
            payloads=True,
            words=[QueryWords.of(body.text)] if by_words and body.text is not None else None,
        )
    )
    payloads = neighbours.payloads[0] if neighbours.payloads else [{}] * len(neighbours.ids[0])
    word_ids = neighbours.word_ids[0] if neighbours.word_ids else ()
    return [
        Hit(
            id=id_,
            similarity=float(similarity),
            payload=strip_marks(payload),
            words=neighbours.words[0] if id_ in word_ids else None,
        )
        for id_, similarity, payload in zip(neighbours.ids[0], neighbours.similarity[0], payloads, strict=False)
    ]


def _prepare(embedder: Embedder, name: str, one: PairIn) -> dict[Modality, EncoderInput]:
    """Check a pair, and tokenize and decode its sides."""
    try:
        check_pair(one.id, one.text, one.payload)
    except InputError as error:
        raise Refused(failure_of(error).at(name)) from None
    return {modality: embedder.prepare(one.to_item(modality), name, empty=True) for modality in MODALITIES}
