"""``GET /v1/models``: the aliases, and the properties of their vectors."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ..errors import MemoryStoreError
from ..fusion.explain import why_plain
from ..reco import Reco
from .app_state import AppState
from .embedder import Embedder, alias_mode
from .routing import context_of, own_routes
from .service_settings import RefineMode
from .wire import with_nulls


class MemoryState(BaseModel):
    """The memory of the service."""

    pairs: int | None
    """Number of pairs; null while the memory is down."""
    kind: str
    version: int
    """A number that changes with each write of this service."""
    calibrated: bool
    """Whether the memory has learned how far its pairs can be trusted."""
    plain: str
    """Why queries stay plain, and what to do; empty if they are refined."""


def router(state: AppState) -> APIRouter:
    """Make ``GET /v1/models`` and ``GET /v1/models/{model}``."""
    routes = own_routes("models")
    embedder = state.embedder

    def models() -> list[dict[str, Any]]:
        memory = with_nulls(_memory(embedder.reco))
        return [_model(name, mode, embedder, memory) for name, mode in embedder.aliases.items()]

    @routes.get("/models", include_in_schema=False)  # for a base URL without /v1
    @routes.get("/v1/models")
    async def list_models(request: Request) -> Response:
        """List the aliases of the model, with dimension, normalization, fingerprint and the size of the memory."""

        def listed() -> dict[str, Any]:
            data = models()
            for_cohere = [
                {"name": one["id"], "endpoints": ["embed"], "context_length": one["context_length"]} for one in data
            ]
            return {"object": "list", "data": data, "models": for_cohere}  # whose list has the same path

        return await context_of(request).read(listed)

    @routes.get("/models/{model:path}", include_in_schema=False)
    @routes.get("/v1/models/{model:path}")
    async def one_model(request: Request, model: str) -> Response:
        """Describe one alias."""
        alias_mode(model, embedder.aliases)
        return await context_of(request).read(lambda: next(one for one in models() if one["id"] == model))

    return routes


def _memory(reco: Reco) -> MemoryState:
    memory = reco.memory
    try:
        pairs = len(memory)
    except MemoryStoreError:
        pairs = None
    return MemoryState(pairs=pairs, kind=memory.kind, version=memory.version, **describe_calibration(reco, pairs))


def describe_calibration(reco: Reco, pairs: int | None = None) -> dict[str, Any]:
    """Return whether the memory is ``calibrated``, and why queries stay ``plain``, given the number of its pairs."""
    calibration = reco.memory.calibration
    refines = calibration is not None and not calibration.reason
    return {
        "calibrated": calibration is not None,
        "plain": "" if refines else why_plain(reco.memory.store.header, pairs),
    }


def _model(name: str, mode: RefineMode, embedder: Embedder, memory: dict[str, Any]) -> dict[str, Any]:
    """Describe one alias. ``type`` and ``capabilities`` are for Mistral's clients."""
    manifest, defaults = embedder.reco.manifest, embedder.reco.defaults
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "reco-plugin",
        "type": "base",
        "capabilities": {},
        "refinement": mode,
        "refines": {f"query_{modality}": mode != "plain" and refines for modality, refines in embedder.policy.items()},
        "name": manifest.name,
        "dimension": manifest.dimension,
        "matryoshka": list(manifest.matryoshka),
        "normalized": True,
        "context_length": manifest.text.context_length,
        "max_context_length": manifest.text.context_length,
        "image_size": manifest.image.size,
        "fingerprint": manifest.digest,
        "k": defaults["k"],
        "coverage": defaults["coverage"],
        "fuser": defaults["fuser"],
        "target": defaults["target"],
        "fusers": list(manifest.fusers),
        "memory": memory,
    }
