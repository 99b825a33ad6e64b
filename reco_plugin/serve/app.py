"""Puts the service together. One process serves one :class:`~reco_plugin.Reco`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from .. import __version__
from ..reco import Reco
from . import (
    dialects,
    feedback_routes,
    health,
    memory_routes,
    metrics,
    model_routes,
    refine_routes,
    version_routes,
)
from .app_state import Edge
from .embedder import Embedder
from .hosts import known_hosts
from .request_context import Requests
from .routing import life_of, no_route, shape_for_all, to_failure, to_response
from .service_settings import ServeSettings, load_serve_settings

_ABOUT = """CLIP embeddings, refined through a memory of image-text pairs.

Whether vectors are refined, say by `refine` or `input_type`, or by the name of the model: in the request, or as
`/plain` or `/refined` before any path. Header `x-reco-degraded` says why vectors that were to be refined are frozen."""


def create_app(
    settings: ServeSettings | None = None,
    reco: Reco | None = None,
    hosts: Sequence[str] | None = None,
    token: str | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        settings: read from the environment and ``reco.toml`` when None.
        reco: what it serves, which stays open; opened now and closed at the end when None.
        hosts: names besides localhost that callers may use; None: any.
        token: a key with all rights, of the user who serves.

    Raises:
        ConfigError: an unusable setting.
        ArtifactError: no usable model.
        MemoryStoreError: no usable memory.
    """
    settings, opened = settings or load_serve_settings(), reco or Reco.open()
    opened.memory.learner.behind = True  # no request waits for a fit
    edge = Edge(Embedder(opened, settings), settings, token)
    measured = metrics.Metrics(edge, state := health.Health(edge))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _running(edge, state):
            yield
        if reco is None:
            opened.close()

    app = FastAPI(
        title="reco-plugin",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lose the prefix
        generate_unique_id_function=lambda route: route.name,
        exception_handlers={HTTPException: _no_route, RequestValidationError: _no_route},
    )
    app.state.edge, app.state.health, app.state.metrics = edge, state, measured
    app.state.paths = [route.path_format for route in _include(app, edge)]
    app.include_router(health.router(state))
    app.include_router(metrics.router(measured))
    if settings.page:
        from .playground import router as page

        app.include_router(page(edge))
    _document_keys(app)
    app.add_middleware(Requests, edge=edge, metrics=measured, knows=known_hosts(hosts))
    return app


def _include(app: FastAPI, edge: Edge) -> Iterator[APIRoute]:
    """Include all that is documented, the busiest first, and yield its routes."""
    for part in (
        *dialects.routers(edge),
        *(one.router(edge) for one in (model_routes, refine_routes, memory_routes, feedback_routes, version_routes)),
    ):
        app.include_router(part)
        yield from (route for route in part.routes if isinstance(route, APIRoute))


def _document_keys(app: FastAPI) -> None:
    """Add keys to the document; as a dependency of routes, FastAPI's way, they would be looked up twice."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{}, {"key": []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


@asynccontextmanager
async def _running(edge: Edge, state: health.Health) -> AsyncIterator[None]:
    """Watch the service and its memory while the block runs; then wait for running calls."""
    watching = threading.Thread(target=state.watch, name="reco-health", daemon=True)
    watching.start()  # liveness answers while it warms up
    yield
    state.stop()
    await asyncio.to_thread(watching.join, edge.settings.shutdown_s)
    await edge.close()


async def _no_route(request: Request, error: Exception) -> Response:
    """What no dialect's route answers: unknown paths and methods."""
    headers = dict(getattr(error, "headers", None) or {})  # which methods there are
    if getattr(error, "status_code", None) in (404, 405):
        sent = request.scope.get("raw_path", b"").decode("latin-1")  # with the prefix
        failure = no_route(request.method, sent or request.scope["path"], headers.get("Allow"), request.app.state.paths)
    else:
        failure = to_failure(error)
    life_of(request).code = failure.code
    return to_response(failure, shape_for_all, headers)
