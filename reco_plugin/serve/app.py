"""Puts the service together. One process serves one :class:`~reco_plugin.Reco`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from .. import __version__
from ..reco import Reco
from . import dialects, feedback, health, match, memory, metrics, models, records, refine, versions
from .edge import TOLD, Edge
from .embedder import Embedder
from .hosts import KnownHosts, known_hosts
from .life import Requests
from .routes import KeyCheck, Shapes, no_route, to_failure, to_response
from .settings import ServeSettings, load_serve_settings

_ABOUT = """CLIP embeddings, refined through a memory of image-text pairs.

Put `/plain` or `/refined` before any path to say whether vectors are refined; or name the model by its alias; or say
`input_type`. Header `x-reco-degraded` says why vectors that were to be refined are frozen."""


def create_app(
    settings: ServeSettings | None = None, reco: Reco | None = None, hosts: Sequence[str] | None = None
) -> FastAPI:
    """Make the application.

    Args:
        settings: read from the environment and ``reco.toml`` when None.
        reco: what it serves, which stays open; opened now and closed at the end when None.
        hosts: names besides localhost that callers may use; None: any.

    Raises:
        ConfigError: an unusable setting.
        ArtifactError: no usable model.
        MemoryStoreError: no usable memory.
    """
    settings = settings or load_serve_settings()
    opened = reco or Reco.open()
    opened.memory.learner.behind = True  # no request waits for a fit
    edge = Edge(Embedder(opened, settings), settings)
    state, measured = health.Health(edge), metrics.Metrics(edge)

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
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lose the prefix
        generate_unique_id_function=lambda route: route.name,
        exception_handlers={HTTPException: _no_route, RequestValidationError: _no_route},
    )
    app.state.guard, app.state.edge, app.state.health, app.state.local = KeyCheck(settings), edge, state, None
    bearer = [Depends(HTTPBearer(auto_error=False, description="an API key, or the admin key for /v1/memory"))]
    ours = (models, refine, match, memory, feedback, records, versions)
    documented = [*dialects.routers(edge), *(part.router(edge) for part in ours)]  # the busiest first
    for routes in documented:
        app.include_router(routes, dependencies=bearer)
    for routes in (health.router(state), metrics.router(measured)):
        app.include_router(routes)
    if settings.page:
        from .page import router as page

        app.include_router(page(edge))
    app.state.shapes = Shapes(documented)
    _wrap(app, edge, state, measured, hosts)
    return app


def _wrap(
    app: FastAPI, edge: Edge, state: health.Health, measured: metrics.Metrics, hosts: Sequence[str] | None
) -> None:
    """Wrap the application, the innermost first."""
    settings = edge.settings
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),  # keys, and what SDKs add; no cookies: they would be keys that the browser sends
            expose_headers=TOLD,
        )
    if hosts is not None:
        app.add_middleware(KnownHosts, knows=known_hosts(hosts))
    app.add_middleware(
        Requests, settings=settings, budget=edge.budget, metrics=measured, stopping=lambda: state.stopping
    )


@asynccontextmanager
async def _running(edge: Edge, state: health.Health) -> AsyncIterator[None]:
    """Watch the service and its memory while the block runs; then wait for running calls."""
    watching = threading.Thread(target=state.watch, name="reco-health", daemon=True)
    watching.start()  # liveness answers while it warms up
    edge.embedder.reco.memory.learner.resume()
    async with versions.followed(edge):
        yield
    state.stop()
    await asyncio.to_thread(watching.join, edge.settings.shutdown_s)
    await edge.close()


async def _no_route(request: Request, error: Exception) -> Response:
    """What no dialect's route answers: unknown paths and methods."""
    headers = dict(getattr(error, "headers", None) or {})  # which methods there are
    if getattr(error, "status_code", None) in (404, 405):
        sent = request.scope.get("raw_path", b"").decode("latin-1")  # with the prefix
        known = request.app.state.shapes.paths
        failure = no_route(request.method, sent or request.scope["path"], headers.get("Allow"), known)
    else:
        failure = to_failure(error)
    response = to_response(failure, request.app.state.shapes.of(request.scope))
    response.headers.update(headers)
    return response
