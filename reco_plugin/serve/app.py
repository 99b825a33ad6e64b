"""Puts the service together. One process serves one :class:`~reco_plugin.Reco`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from .. import __version__
from ..reco import Reco
from . import feedback_routes, health, memory_routes, metrics, model_routes, refine_routes, version_routes
from .app_state import AppState
from .auth import host_filter
from .dialects import clip, cohere, immich, openai, tei, titan, voyage
from .embedder import Embedder
from .request_context import RequestMiddleware
from .routing import context_of, no_route, shape_for_all, to_failure, to_response
from .service_settings import ServeSettings, load_serve_settings

_DIALECTS = (openai, voyage, cohere, clip, titan, tei, immich)
_OWN_ROUTES = (model_routes, refine_routes, memory_routes, feedback_routes, version_routes)
_ABOUT = """CLIP embeddings, refined through a memory of image-text pairs.

`refine`, `input_type` or the name of the model decide whether vectors are refined, or the prefix `/plain` or `/refined`
before any path. The header `x-reco-degraded` says why vectors stay plain that should be refined."""


def create_app(
    settings: ServeSettings | None = None,
    reco: Reco | None = None,
    hosts: Sequence[str] | None = None,
    token: str | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        settings: None: read from the environment and ``reco.toml``.
        reco: what is served; the caller closes it. None: opened here and closed when the application ends.
        hosts: host names that clients may use besides localhost; None: any.
        token: a key with all rights, for commands on this machine.

    Raises:
        ConfigError: an unusable setting.
        ArtifactError: no usable model.
        MemoryStoreError: no usable memory.
    """
    settings, opened = settings or load_serve_settings(), reco or Reco.open()
    opened.memory.learner.behind = True  # no request waits for a fit
    state = AppState(Embedder(opened, settings), settings, token)
    measured = metrics.Metrics(state, watched := health.Health(state))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        thread = threading.Thread(target=watched.watch, name="reco-health", daemon=True)
        thread.start()  # liveness answers while the models warm up
        yield
        watched.stop()
        await asyncio.to_thread(thread.join, settings.shutdown_s)
        await state.close()
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
        exception_handlers={HTTPException: _answer_unrouted, RequestValidationError: _answer_unrouted},
    )
    app.state.shared, app.state.health, app.state.metrics = state, watched, measured
    documented = [module.router(state) for module in (*_DIALECTS, *_OWN_ROUTES)]  # the busiest first
    app.state.paths = [one.path_format for router in documented for one in router.routes if isinstance(one, APIRoute)]
    for router in (*documented, health.router(watched), metrics.router(measured)):
        app.include_router(router)
    if settings.page:
        from .playground import router as page

        app.include_router(page(state))
    _document_keys(app)
    app.add_middleware(RequestMiddleware, state=state, metrics=measured, is_known=host_filter(hosts))
    return app


def _document_keys(app: FastAPI) -> None:
    """Add keys to the OpenAPI document. As dependencies of the routes, they would be checked twice."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{}, {"key": []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


async def _answer_unrouted(request: Request, error: Exception) -> Response:
    """Answer what reaches no dialect's route: unknown paths and methods."""
    headers = dict(getattr(error, "headers", None) or {})  # the methods that exist
    if getattr(error, "status_code", None) in (404, 405):
        path = request.scope.get("raw_path", b"").decode("latin-1") or request.scope["path"]  # with the prefix
        failure = no_route(request.method, path, headers.get("Allow"), request.app.state.paths)
    else:
        failure = to_failure(error)
    context_of(request).code = failure.code
    return to_response(failure, shape_for_all, headers)
