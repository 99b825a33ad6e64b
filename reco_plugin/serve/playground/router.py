"""The routes of the playground. Those that compute need a key, if the service has keys.

A content security policy keeps the browser from loading anything from other hosts.
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
from ..app_state import AppState
from ..logs import LOGGER
from ..routing import context_of, openai_shape, route_class
from ..wire import with_nulls
from .comparison import Compared, Comparer, CompareRequest, PairPictures, Shown

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
    "cache-control": "no-cache",  # the browser asks each time, and gets 304
}
log = logging.getLogger(LOGGER)


class Examples(BaseModel):
    """A few pairs of the memory to start with."""

    data: list[Shown]


def router(state: AppState) -> APIRouter:
    """Make the routes of the page, its files, and the two that it calls. None of them is documented."""
    reco = state.embedder.reco
    pictures = PairPictures(_folders(state), reco.manifest.image, reco.settings.max_pixels)
    comparer = Comparer(reco, pictures)
    routes = APIRouter(include_in_schema=False)
    files = StaticFiles(packages=[(__package__, "static")])

    @routes.get("/")  # without a key, since a browser has no key before it has the page
    @routes.get("/page/files/{name}")
    async def page_file(request: Request, name: str = "index.html") -> Response:
        answer = await files.get_response(name, request.scope)
        answer.headers.update(_HEADERS)
        return answer

    computing = APIRouter(prefix="/page", route_class=route_class(openai_shape), include_in_schema=False)

    @computing.post("/compare", response_model=Compared)
    async def compare(request: Request, body: CompareRequest) -> Response:
        return await context_of(request).embed(
            body.to_embed(), lambda answer: with_nulls(comparer.compare(body, answer))
        )

    @computing.get("/examples", response_model=Examples)
    async def examples(request: Request) -> Response:
        context = context_of(request)
        context.check_read()
        return await context.read(lambda: with_nulls(Examples(data=_examples(reco.memory.store, pictures))))

    routes.include_router(computing)
    return routes


def _folders(state: AppState) -> Sequence[Path]:
    """Return the folders of image files: that of the setting, else those from which the memory was filled here."""
    if state.settings.page_pictures is not None:
        return [state.settings.page_pictures]
    folders = allowed_folders(state.embedder.reco.memory.location)
    for folder in folders:
        log.info("the playground shows pictures below %s, from which the memory was filled", folder)
    return folders


def _examples(store: Memory, pictures: PairPictures) -> list[Shown]:
    """Return diverse pairs of the memory: those nearest to a few random directions."""
    directions = np.random.default_rng(0).standard_normal((_EXAMPLES, store.header.fingerprint.dimension))
    queries = np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True), np.float32)
    neighbours = store.search(Search(queries, by="image", read="image", k=_EXAMPLES, payloads=True))
    chosen: dict[str, Shown] = {}
    for ids, payloads in zip(neighbours.ids, neighbours.payloads or [], strict=True):
        for id_, payload in zip(ids, payloads, strict=True):
            if id_ not in chosen:
                chosen[id_] = pictures.show(id_, payload)
                break
    return list(chosen.values())
