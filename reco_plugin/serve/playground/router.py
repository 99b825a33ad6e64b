"""Routes of the playground; those that compute need an API key if the service has any.

The files of the page have a policy that lets a browser load nothing from other hosts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from ...memory import Memory
from ...sources.images import allowed_folders
from ...types import Search
from ..app_state import Edge
from ..logs import LOGGER
from ..routing import answering_in, life_of, openai_shape
from ..wire import with_nulls
from .comparison import Compared, Comparer, CompareRequest, PairPictures, Shown, describe_pair

_EXAMPLES = 6
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-cache",  # requested each time, and answered by 304
}
log = logging.getLogger(LOGGER)


class Examples(BaseModel):
    """A few pairs of the memory to begin with."""

    data: list[Shown]


def router(edge: Edge) -> APIRouter:
    """The page, its files and its two API routes; not part of the documented interface."""
    reco = edge.embedder.reco
    pictures = PairPictures(_folders(edge), reco.manifest.image, reco.settings.max_pixels)
    comparer = Comparer(reco, pictures)
    routes = APIRouter(include_in_schema=False)
    files = StaticFiles(packages=[(__package__, "static")])

    @routes.get("/")  # without a key, since a browser sends none before it has the page
    @routes.get("/page/files/{name}")
    async def page_file(request: Request, name: str = "index.html") -> Response:
        answer = await files.get_response(name, request.scope)
        answer.headers.update(_HEADERS)
        return answer

    asked = APIRouter(prefix="/page", route_class=answering_in(openai_shape), include_in_schema=False)

    @asked.post("/compare", response_model=Compared)
    async def compare(request: Request, body: CompareRequest) -> Response:
        return await life_of(request).answer(body.to_embed(), lambda found: with_nulls(comparer.compare(body, found)))

    @asked.get("/examples", response_model=Examples)
    async def examples(request: Request) -> Response:
        life = life_of(request)
        life.see_pairs()
        return await life.reply(lambda: with_nulls(Examples(data=_examples(reco.memory.store, pictures))))

    routes.include_router(asked)
    return routes


def _folders(edge: Edge) -> Sequence[Path]:
    """Folders of image files: that of the setting, else those that the memory was filled from here."""
    if edge.settings.page_pictures is not None:
        return [edge.settings.page_pictures]
    folders = allowed_folders(edge.embedder.reco.memory.location)
    for folder in folders:
        log.info("the playground shows pictures below %s, which the memory was filled from", folder)
    return folders


def _examples(store: Memory, pictures: PairPictures) -> list[Shown]:
    """Diverse pairs of the memory: the nearest ones to a few random directions."""
    directions = np.random.default_rng(0).standard_normal((_EXAMPLES, store.header.fingerprint.dimension))
    queries = np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True), np.float32)
    found = store.search(Search(queries, by="image", read="image", k=_EXAMPLES, payloads=True))
    chosen: dict[str, Shown] = {}
    for ids, payloads in zip(found.ids, found.payloads or [], strict=True):
        for id_, payload in zip(ids, payloads, strict=True):
            if id_ not in chosen:
                chosen[id_] = describe_pair(id_, payload, pictures)
                break
    return list(chosen.values())
