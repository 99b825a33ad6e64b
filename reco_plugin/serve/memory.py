"""``/v1/memory``: read and change the pairs while serving, under the admin key."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from . import pairs
from .edge import Edge
from .failures import Refused, too_many_items
from .models import calibration
from .routes import answering_in, openai_shape
from .schemas import ERRORS

Ids = Annotated[list[str], Query(alias="id", min_length=1, description="id of a pair; repeat it for more")]


class MemoryInfo(BaseModel):
    """The memory as a whole."""

    pairs: int
    kind: str
    location: str
    encoder: str
    fingerprint: str
    calibrated: bool
    """Whether it has learned how far its pairs can be trusted, which adding pairs does."""
    plain: str
    """Why nothing, or one side, is refined; empty where all is."""
    check: str | None
    """What refinement does to its own held-out pairs: right in sign, not in size; None where there are too few."""
    version: int
    """Another number after each change through this service."""


class Found(BaseModel):
    """Pairs by id."""

    data: list[pairs.StoredPair]


class Removed(BaseModel):
    """How many of the ids existed, and how many pairs are left."""

    removed: int
    pairs: int
    version: int


class Hits(BaseModel):
    """Pairs that a search found, nearest first."""

    data: list[pairs.Hit]


def router(edge: Edge) -> APIRouter:
    """The routes; the key check decides who may use them."""
    routes = APIRouter(
        prefix="/v1/memory",
        route_class=answering_in(openai_shape),
        tags=["memory"],
        responses=ERRORS | {403: {**ERRORS[401], "description": "no admin key is set"}},
    )
    limit, embedder = edge.settings.max_image_bytes, edge.embedder
    memory = embedder.reco.memory

    @routes.get("")
    async def memory_info(request: Request) -> MemoryInfo:
        """Count the pairs, and describe the memory."""
        made_by = memory.searches.header.fingerprint
        calibrated, plain, check = calibration(embedder.reco)
        return MemoryInfo(
            pairs=await edge(request).ask(lambda: len(memory)),
            kind=memory.kind,
            location=memory.location,
            encoder=made_by.name,
            fingerprint=made_by.digest,
            calibrated=calibrated,
            plain=plain,
            check=check,
            version=memory.version,
        )

    @routes.post("/pairs")
    async def add_pairs(request: Request, body: pairs.AddPairs) -> pairs.Added:
        """Add pairs, or replace those with the same id; searchable when this answers."""
        return await edge(request).write(lambda: pairs.add(embedder, body, limit))

    @routes.get("/pairs", response_model_exclude_none=True)
    async def look_up_pairs(request: Request, ids: Ids, *, vectors: bool = False) -> Found:
        """Look pairs up by id; unknown ids are left out."""
        _check_number(len(ids), edge.settings.max_items, "id")
        return Found(data=await edge(request).ask(lambda: pairs.look_up(embedder, ids, vectors=vectors)))

    @routes.delete("/pairs")
    async def remove_pairs(request: Request, ids: Ids) -> Removed:
        """Delete pairs by id; unknown ids are no error."""
        _check_number(len(ids), edge.settings.max_items, "id")

        def remove() -> Removed:
            return Removed(removed=memory.remove(ids), pairs=len(memory), version=memory.version)

        return await edge(request).write(remove)

    @routes.post("/search")
    async def search_memory(request: Request, body: pairs.SearchRequest) -> Hits:
        """Find the pairs nearest to a text, an image or a vector."""
        _check_number(body.k, edge.settings.max_k, "k", "max_k")
        return Hits(data=await edge(request).ask(lambda: pairs.search(embedder, body, limit)))

    return routes


def _check_number(number: int, limit: int, name: str, setting: str = "max_items") -> None:
    if number > limit:
        raise Refused(too_many_items(number, limit, name, setting))
