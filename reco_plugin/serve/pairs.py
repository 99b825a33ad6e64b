"""Pairs in JSON, and what the routes under ``/v1/memory`` do; synchronous, over the embedder."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, model_validator

from ..defaults import RESULTS
from ..errors import InputError
from ..memory.checks import check_ids, check_payload
from ..preparation import EncoderInput
from ..types import MODALITIES, Modality, Pair
from .embedder import Embedder
from .embedding import Item
from .failures import Failure, Refused, failure_of
from .schemas import ErrorBody, Items, JsonVector, Strict, error_body, image_item


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
            raw, vector = (self.text, self.text_vector) if side == "text" else (self.image, self.image_vector)
            if (raw is None) == (vector is None):
                raise ValueError(f"give {side} or {side}_vector, and not both")
        return self

    def to_item(self, side: Modality, max_image_bytes: int) -> Item:
        """One side for the preparation.

        Raises:
            Refused: it cannot be read.
        """
        vector = self.text_vector if side == "text" else self.image_vector
        if vector is not None:
            return Item.vector(vector, side)
        return Item.text(self.text or "") if side == "text" else image_item(self.image or "", max_image_bytes)

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
    text_vector: list[float] | None = None
    image_vector: list[float] | None = None


class Hit(BaseModel):
    """A pair that a search found."""

    id: str
    similarity: float
    payload: dict[str, Any]


class SearchRequest(Strict):
    """One query: a text, an image or a vector."""

    text: str | None = None
    image: str | None = Field(None, description="data URI or base64")
    vector: JsonVector | None = None
    modality: Modality = Field("text", description="what the vector embeds")
    by: Modality | None = Field(None, description="side of the memory to compare with; the query's own when left out")
    k: int = Field(RESULTS, ge=1)
    where: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one(self) -> SearchRequest:
        if [self.text, self.image, self.vector].count(None) != 2:
            raise ValueError("give one of text, image and vector")
        return self

    def to_item(self, max_image_bytes: int) -> Item:
        """The query for the preparation.

        Raises:
            Refused: it cannot be read.
        """
        if self.vector is not None:
            return Item.vector(self.vector, self.modality)
        return Item.text(self.text) if self.text is not None else image_item(self.image or "", max_image_bytes)


def add(embedder: Embedder, asked: AddPairs, max_image_bytes: int) -> Added:
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
        ready = _ready(embedder, one, max_image_bytes)
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
            payload=dict(found.payloads[row]),
            text_vector=found.text[row].tolist() if vectors else None,
            image_vector=found.image[row].tolist() if vectors else None,
        )
        for row, id_ in enumerate(found.ids)
    ]


def search(embedder: Embedder, asked: SearchRequest, max_image_bytes: int) -> list[Hit]:
    """The pairs nearest to one query.

    Raises:
        Refused: the query cannot be read.
        InputError: an invalid condition.
        MemoryStoreError: the memory does not answer.
    """
    item = asked.to_item(max_image_bytes)
    ready = embedder.prepare([item], truncate=True)[0]
    if isinstance(ready, Failure):
        raise Refused(ready)
    query = embedder.encode([ready], item.modality)[0]
    found = embedder.reco.memory.search(query, modality=item.modality, by=asked.by, k=asked.k, where=asked.where)
    payloads = found.payloads[0] if found.payloads else [{}] * len(found.ids[0])
    return [
        Hit(id=id_, similarity=float(found.similarity[0, column]), payload=dict(payload))
        for column, (id_, payload) in enumerate(zip(found.ids[0], payloads, strict=True))
    ]


def _ready(embedder: Embedder, one: PairIn, max_image_bytes: int) -> dict[Modality, EncoderInput] | Failure:
    """Both sides of a pair for the encoder: id, payload and vectors checked, its image decoded."""
    sides: dict[Modality, EncoderInput] = {}
    for side in MODALITIES:
        try:
            check_ids([one.id], "id")
            check_payload(one.id, one.stored_payload)
            item = one.to_item(side, max_image_bytes)
        except (Refused, InputError) as error:
            return failure_of(error)
        ready = embedder.prepare([item], truncate=True)[0]
        if isinstance(ready, Failure):
            return ready
        sides[side] = ready
    return sides
