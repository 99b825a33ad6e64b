"""Routes of the playground; those that compute need an API key if the service has any."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel

from ...memory import Memory
from ...memory.picture_folders import noted_folders
from ...request import Search
from ..edge import Edge
from ..logs import LOGGER
from ..routes import answering_in, openai_shape
from . import files
from .compare import Compared, Comparer, CompareRequest, describe_pair
from .pictures import PairPictures
from .ranked import open_ranked

_EXAMPLES = 6
log = logging.getLogger(LOGGER)


class Example(BaseModel):
    """A pair of the memory to begin with."""

    id: str
    caption: str | None
    picture: str | None


class Examples(BaseModel):
    """A few of them."""

    data: list[Example]


def router(edge: Edge) -> APIRouter:
    """The page, its files and its two API routes; not part of the documented interface.

    Raises:
        FingerprintMismatch: another encoder made the index.
        MemoryStoreError: there is no such index.
    """
    reco, settings = edge.embedder.reco, edge.settings
    ranked = open_ranked(reco, settings.page_index)
    pictures = PairPictures(_folders(edge, ranked.location), reco.manifest.image, reco.settings.max_pixels)
    comparer = Comparer(reco, ranked, pictures)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if ranked.own:
            ranked.opened().close()

    routes = APIRouter(include_in_schema=False, lifespan=lifespan)
    routes.include_router(files.router())
    asked = APIRouter(prefix="/page", route_class=answering_in(openai_shape), include_in_schema=False)

    @asked.post("/compare")
    async def compare(request: Request, body: CompareRequest) -> Compared:
        caller = edge(request)
        answer = await caller.embed(body.to_embed(caller))
        return await caller.ask(lambda: comparer.compare(body, answer))

    @asked.get("/examples")
    async def examples(request: Request) -> Examples:
        caller = edge(request)
        caller.see_pairs()
        return Examples(data=await caller.ask(lambda: _examples(ranked.opened(), pictures)))

    routes.include_router(asked)
    return routes


def _folders(edge: Edge, ranked: str) -> Sequence[Path]:
    """Folders of image files: as set, else those that the memory and the index were filled from here."""
    if edge.settings.page_pictures is not None:
        return [edge.settings.page_pictures]
    places = (edge.embedder.reco.memory.location, ranked)
    folders = dict.fromkeys(folder for place in places for folder in noted_folders(place))
    for folder in folders:
        log.info("the playground shows pictures below %s, which the memory was filled from", folder)
    return list(folders)


def _examples(store: Memory, pictures: PairPictures) -> list[Example]:
    """Diverse pairs of the memory: the nearest ones to a few random directions."""
    directions = np.random.default_rng(0).standard_normal((_EXAMPLES, store.header.fingerprint.dimension))
    queries = np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True), np.float32)
    found = store.search(Search(queries, by="image", read="image", k=_EXAMPLES, payloads=True))
    chosen: dict[str, Example] = {}
    for ids, payloads in zip(found.ids, found.payloads or [], strict=True):
        for id_, payload in zip(ids, payloads, strict=True):
            if id_ not in chosen:
                chosen[id_] = Example(**describe_pair(id_, payload, pictures))
                break
    return list(chosen.values())
