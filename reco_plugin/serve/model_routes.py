"""``GET /v1/models``: the aliases, and the properties of their vectors."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ..errors import MemoryStoreError
from ..fusion.explain import why_plain
from ..reco import Reco
from .app_state import Edge
from .embedder import Embedder, manner_of
from .routing import answering_in, life_of, openai_shape
from .schemas import ERRORS
from .service_settings import Manner
from .wire import with_nulls


class MemoryState(BaseModel):
    """The pairs that are retrieved from."""

    pairs: int | None
    """None while the memory is down."""
    kind: str
    version: int
    """Another number after each change through this service."""
    calibrated: bool
    """Whether it has learned how far its pairs can be trusted."""
    plain: str
    """Why queries stay plain, and what to do; empty where they are refined."""


def router(edge: Edge) -> APIRouter:
    """``GET /v1/models`` and ``GET /v1/models/{model}``."""
    routes = APIRouter(route_class=answering_in(openai_shape), tags=["models"], responses=ERRORS)

    def models() -> list[dict[str, Any]]:
        state = with_nulls(_memory(edge.embedder.reco))
        return [_model(name, manner, edge.embedder, state) for name, manner in edge.embedder.aliases.items()]

    @routes.get("/models", include_in_schema=False)  # for a base URL without /v1
    @routes.get("/v1/models")
    async def list_models(request: Request) -> Response:
        """All aliases of the model, with dimension, normalisation, fingerprint and the size of the memory."""

        def answer() -> dict[str, Any]:
            data = models()  # `models`: for Cohere's clients, whose list is at this path, too
            named = [
                {"name": one["id"], "endpoints": ["embed"], "context_length": one["context_length"]} for one in data
            ]
            return {"object": "list", "data": data, "models": named}

        return await life_of(request).reply(answer)

    @routes.get("/models/{model:path}", include_in_schema=False)
    @routes.get("/v1/models/{model:path}")
    async def one_model(request: Request, model: str) -> Response:
        """One alias."""
        manner_of(model, edge.embedder.aliases)
        return await life_of(request).reply(lambda: next(one for one in models() if one["id"] == model))

    return routes


def _memory(reco: Reco) -> MemoryState:
    memory = reco.memory
    try:
        pairs = len(memory)
    except MemoryStoreError:
        pairs = None
    return MemoryState(pairs=pairs, kind=memory.kind, version=memory.version, **describe_calibration(reco, pairs))


def describe_calibration(reco: Reco, pairs: int | None = None) -> dict[str, Any]:
    """Whether the memory is ``calibrated``, and why queries stay ``plain``, with its pairs where they are known."""
    calibration = reco.memory.calibration
    refines = calibration is not None and not calibration.reason
    return {
        "calibrated": calibration is not None,
        "plain": "" if refines else why_plain(reco.memory.store.header, pairs),
    }


def _model(name: str, manner: Manner, embedder: Embedder, memory: dict[str, Any]) -> dict[str, Any]:
    """One alias; ``type`` and ``capabilities`` are for Mistral's clients."""
    manifest, chosen = embedder.reco.manifest, embedder.reco.defaults
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "reco-plugin",
        "type": "base",
        "capabilities": {},
        "refinement": manner,
        "refines": {f"query_{side}": manner != "plain" and refined for side, refined in embedder.policy.items()},
        "name": manifest.name,
        "dimension": manifest.dimension,
        "matryoshka": list(manifest.matryoshka),
        "normalized": True,
        "context_length": manifest.text.context_length,
        "max_context_length": manifest.text.context_length,
        "image_size": manifest.image.size,
        "fingerprint": manifest.digest,
        "k": chosen["k"],
        "coverage": chosen["coverage"],
        "fuser": chosen["fuser"],
        "target": chosen["target"],
        "fusers": list(manifest.fusers),
        "memory": memory,
    }
