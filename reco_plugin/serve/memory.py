"""``/v1/memory``: read and change the pairs while serving, under the admin key."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from ..defaults import RESULTS
from ..errors import InputError
from ..extras.chances import QueryWay
from ..memory import Header
from ..memory.checks import check_pair
from ..preparation import EncoderInput
from ..types import MODALITIES, Modality, Pair
from ..values import SOURCE, strip_marks
from .dialects.shared import image_item
from .edge import Edge
from .embedder import Embedder, Item
from .failures import Failure, Refused, failure_of, too_many_items
from .match import CutoffsBody, shown
from .models import MemoryState, describe_calibration
from .query import QueryBody
from .routes import memory_routes
from .schemas import ErrorBody, Items, JsonVector, Strict, error_body
from .wire import with_nulls

Ids = Annotated[list[str], Query(alias="id", min_length=1, description="id of a pair; repeat it for more")]


class MemoryInfo(MemoryState):
    """The memory as a whole."""

    pairs: int
    location: str
    encoder: str
    fingerprint: str
    dimension: int
    state: str
    """Changes when another version of the memory is put to use, and when the service begins anew."""
    calibration: dict[str, Any] | None = None
    """What was learned about the pairs, as it is stored; where it is asked for."""
    feedback: list[dict[str, Any]] | None = None
    """What people said was wrong, as it is stored; likewise."""
    cutoffs: dict[Modality, dict[QueryWay, CutoffsBody]] | None = None
    """From which score on answers are right as often as promised (.9), see `POST /v1/match`; null where none asked."""
    unjudged: int
    """Pairs that are not judged yet, and count as average until they are; 0 while it is not calibrated."""


class PairIn(Strict):
    """A pair to add; each side is raw or a CLIP vector of this model's encoder."""

    id: str = Field(min_length=1, description="the same id replaces the pair")
    text: str | None = Field(None, description="the caption; kept in the payload as `caption`")
    text_vector: JsonVector | None = None
    image: str | None = Field(None, description="data URI or base64")
    image_vector: JsonVector | None = None
    payload: dict[str, Any] = Field({}, description="JSON values to filter by and to show")

    @model_validator(mode="after")
    def _one_of_each(self) -> PairIn:
        for side in MODALITIES:
            raw, vector = self._side(side)
            if (raw is None) == (vector is None):
                raise ValueError(f"give {side} or {side}_vector, and not both")
        return self

    def _side(self, side: Modality) -> tuple[str | None, list[float] | None]:
        return (self.text, self.text_vector) if side == "text" else (self.image, self.image_vector)

    def to_item(self, side: Modality, max_image_bytes: int) -> Item:
        """One side for the preparation.

        Raises:
            Refused: it cannot be read.
        """
        raw, vector = self._side(side)
        if vector is not None:
            return Item.vector(vector, side)
        return Item.text(raw or "") if side == "text" else image_item(raw or "", max_image_bytes)

    @property
    def stored_payload(self) -> dict[str, Any]:
        """The payload with the caption, to show a retrieved pair."""
        return self.payload if self.text is None else {"caption": self.text} | self.payload


class AddPairs(Strict):
    """Pairs to add."""

    pairs: Items[PairIn] = Field(min_length=1)
    skip_failed: bool = Field(False, description="store what can be stored; otherwise one bad pair refuses all")


class FailedPair(BaseModel):
    """A pair that was not stored."""

    index: int
    id: str
    error: ErrorBody


class Added(BaseModel):
    """What was stored."""

    stored: int
    failed: list[FailedPair]
    pairs: int
    """In the memory now."""
    version: int


class StoredPair(BaseModel):
    """A pair of the memory."""

    id: str
    payload: dict[str, Any]
    """As it can be sent again; without the marks of rows and sources."""
    source: str | None = None
    """Which `build` or `sync` brought it."""
    text_vector: list[float] | None = None
    image_vector: list[float] | None = None


class Found(BaseModel):
    """Pairs by id."""

    data: list[StoredPair]


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


class Hits(BaseModel):
    """Pairs that a search found, nearest first."""

    data: list[Hit]


class SearchRequest(QueryBody):
    """One query: a text, an image or a vector."""

    by: Modality | None = Field(None, description="side of the memory to compare with; the query's own when left out")
    k: int = Field(RESULTS, ge=1)
    where: dict[str, Any] | None = None


def router(edge: Edge) -> APIRouter:
    """The routes; the key check decides who may use them."""
    routes = memory_routes()
    embedder, memory = edge.embedder, edge.embedder.reco.memory

    @routes.get("", response_model=MemoryInfo)
    async def memory_info(request: Request, *, calibration: bool = False) -> Response:
        """Count the pairs, and describe the memory."""
        return await edge(request).reply(lambda: with_nulls(describe(edge, calibration=calibration)))

    @routes.post("/pairs", response_model=Added)
    async def add_pairs(request: Request, body: AddPairs) -> Response:
        """Add pairs, or replace those with the same id; searchable when this answers."""
        return await edge(request).write(lambda: with_nulls(add(embedder, body)))

    @routes.get("/pairs", response_model=Found)
    async def look_up_pairs(request: Request, ids: Ids, *, vectors: bool = False) -> Response:
        """Look pairs up by id; unknown ids are left out."""
        _check_number(len(ids), edge.settings.max_items, "id")
        return await edge(request).reply(lambda: Found(data=look_up(embedder, ids, vectors=vectors)))

    @routes.delete("/pairs", response_model=Removed)
    async def remove_pairs(request: Request, ids: Ids) -> Response:
        """Delete pairs by id; unknown ids are no error."""
        _check_number(len(ids), edge.settings.max_items, "id")

        def remove() -> Removed:
            return Removed(removed=memory.remove(ids), pairs=len(memory), version=memory.version)

        return await edge(request).write(remove)

    @routes.post("/search", response_model=Hits)
    async def search_memory(request: Request, body: SearchRequest) -> Response:
        """Find the pairs nearest to a text, an image or a vector."""
        embedder.check_k(body.k)
        return await edge(request).reply(lambda: Hits(data=search(embedder, body)))

    return routes


def describe(edge: Edge, *, calibration: bool) -> MemoryInfo:
    """The memory, with what it has learned if that is asked for.

    Raises:
        MemoryStoreError: the memory does not answer.
    """
    memory = edge.embedder.reco.memory
    made_by = memory.store.look().fingerprint  # and with it what other services learned
    return MemoryInfo(
        pairs=len(memory),
        unjudged=memory.learner.count_unjudged(),
        kind=memory.kind,
        location=memory.location,
        encoder=made_by.name,
        fingerprint=made_by.digest,
        dimension=made_by.dimension,
        state=edge.in_use.state,
        **(_as_stored(memory.searches.header) if calibration else {}),
        cutoffs=shown(memory),
        **describe_calibration(edge.embedder.reco),
        version=memory.version,
    )


def add(embedder: Embedder, asked: AddPairs) -> Added:
    """Encode and store pairs, searchable at once.

    Raises:
        Refused: a pair cannot be read, and ``skip_failed`` is off; nothing is stored.
        InputError: a repeated id, or a payload that is not JSON.
        MemoryStoreError: the memory cannot be written.
    """
    embedder.check_images(one.image is not None for one in asked.pairs)
    good: list[tuple[PairIn, dict[Modality, EncoderInput]]] = []
    failed: list[FailedPair] = []
    for index, one in enumerate(asked.pairs):
        ready = _ready(embedder, one)
        if not isinstance(ready, Failure):
            good.append((one, ready))
        elif asked.skip_failed:
            failed.append(FailedPair(index=index, id=one.id, error=error_body(ready)))
        else:
            place = f"pairs[{index}]"
            message = f"{place} ({one.id!r:.80}): {ready.message}; nothing was stored"
            raise Refused(Failure(ready.status, ready.code, message, place))
    images, texts = (embedder.encode([sides[side] for _, sides in good], side) for side in MODALITIES)
    memory = embedder.reco.memory
    pairs = [
        Pair(one.id, image, text, one.stored_payload) for (one, _), image, text in zip(good, images, texts, strict=True)
    ]
    stored = memory.add(pairs) if pairs else 0
    return Added(stored=stored, failed=failed, pairs=len(memory), version=memory.version)


def look_up(embedder: Embedder, ids: list[str], *, vectors: bool) -> list[StoredPair]:
    """The stored pairs of these ids, without unknown ones."""
    found = embedder.reco.memory.get(ids)
    return [
        StoredPair(
            id=id_,
            payload=strip_marks(found.payloads[row]),
            source=found.payloads[row].get(SOURCE),
            text_vector=found.text[row].tolist() if vectors else None,
            image_vector=found.image[row].tolist() if vectors else None,
        )
        for row, id_ in enumerate(found.ids)
    ]


def search(embedder: Embedder, asked: SearchRequest) -> list[Hit]:
    """The pairs nearest to one query.

    Raises:
        Refused: the query cannot be read.
        InputError: an invalid condition.
        MemoryStoreError: the memory does not answer.
    """
    item = asked.to_item(embedder.settings.max_image_bytes)
    ready = item if isinstance(item, Failure) else embedder.prepare([item], truncate=True)[0]
    if isinstance(ready, Failure):
        raise Refused(ready)
    query = embedder.encode([ready], asked.kind)[0] if asked.text is None else asked.text
    reco, words = embedder.reco, embedder.reco.defaults.get("words") is not False
    found = reco.memory.search(query, modality=asked.kind, by=asked.by, k=asked.k, where=asked.where, words=words)
    payloads = found.payloads[0] if found.payloads else [{}] * len(found.ids[0])
    return [
        Hit(id=id_, similarity=float(found.similarity[0, column]), payload=strip_marks(payload))
        for column, (id_, payload) in enumerate(zip(found.ids[0], payloads, strict=True))
    ]


def _ready(embedder: Embedder, one: PairIn) -> dict[Modality, EncoderInput] | Failure:
    """Both sides of a pair for the encoder: id, payload and vectors checked, its image decoded."""
    sides: dict[Modality, EncoderInput] = {}
    for side in MODALITIES:
        try:
            check_pair(one.id, one.text, one.payload)
            item = one.to_item(side, embedder.settings.max_image_bytes)
        except (Refused, InputError) as error:
            return failure_of(error)
        ready = embedder.prepare([item], truncate=True)[0]
        if isinstance(ready, Failure):
            return ready
        sides[side] = ready
    return sides


def _as_stored(header: Header) -> dict[str, Any]:
    return {"calibration": header.calibration, "feedback": list(header.said.values())}


def _check_number(number: int, limit: int, name: str) -> None:
    if number > limit:
        raise Refused(too_many_items(number, limit, name))
