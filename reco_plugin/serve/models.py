"""``GET /v1/models``: the aliases, and the properties of their vectors."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ..calibration.closed_form import NOT_CALIBRATED
from ..errors import MemoryStoreError
from ..reco import Reco
from .edge import Edge
from .embedder import Embedder, manner_of
from .routes import answering_in, life_of, openai_shape
from .schemas import ERRORS
from .settings import Manner
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
    """Why nothing, or one side, is refined; empty where all is."""


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

    @routes.get("/models/{model}", include_in_schema=False)
    @routes.get("/v1/models/{model}")
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
    return MemoryState(pairs=pairs, kind=memory.kind, version=memory.version, **describe_calibration(reco))


def describe_calibration(reco: Reco) -> dict[str, Any]:
    """Whether the memory is ``calibrated``, and why something stays ``plain``."""
    calibration = reco.memory.calibration
    if calibration is None:
        return {"calibrated": False, "plain": reco.memory.learner.unfinished or NOT_CALIBRATED}
    return {"calibrated": True, "plain": calibration.reason}


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
        "caution": chosen["caution"],
        "fuser": chosen["fuser"],
        "target": chosen["target"],
        "fusers": list(manifest.fusers),
        "memory": memory,
    }
