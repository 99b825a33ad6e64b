"""``POST /vectorize`` and the other routes of Weaviate's multi2vec-clip container, which this service replaces.

The request names no role, so the prefix of the path decides: ``/refined/vectorize`` treats all items as queries.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, model_validator

from ..app_state import AppState
from ..embedder import Embedded, EmbedRequest
from ..failures import Failure, Refused
from ..model_routes import describe_calibration
from ..routing import context_of
from ..schemas import Items
from ..wire import Item, numbered
from .fields import dialect_router


class VectorizeRequest(BaseModel):
    """Texts and images. Weaviate leaves out an empty list."""

    texts: Items[str] | None = None
    images: Items[str] | None = Field(None, description="bare base64")

    @model_validator(mode="after")
    def _check_any(self) -> VectorizeRequest:
        if not self.texts and not self.images:
            raise ValueError("give texts or images")
        return self

    def to_embed(self) -> EmbedRequest:
        """Convert for the embedder: texts, then images."""
        # beside an image, an empty title stands for no text; alone it is embedded, as the container does
        texts = ([Item(text, "text")] if text.strip() or not self.images else [] for text in self.texts or [])
        images = numbered("images", ([Item(image, "image")] for image in self.images or []))
        return EmbedRequest(numbered("texts", texts) | images, empty_texts=True)


def router(state: AppState) -> APIRouter:
    """Make the routes."""
    routes = dialect_router(lambda failure: {"error": failure.message})

    @routes.post("/vectorize")
    async def clip_vectorize(request: Request, body: VectorizeRequest) -> Response:
        """Embed texts and images; the API of Weaviate's multi2vec-clip container."""
        texts = len(body.texts or [])

        def to_answer(answer: Embedded) -> dict[str, Any]:
            vectors = answer.vectors
            return {"textVectors": vectors[:texts], "imageVectors": vectors[texts:]}

        return await context_of(request).embed(body.to_embed(), to_answer)

    @routes.get("/meta")
    async def clip_meta() -> dict[str, Any]:
        """Describe the model, and what the memory has learned. Weaviate needs an object and ignores its fields."""
        embedder, reco = state.embedder, state.embedder.reco
        return {
            "model": next(iter(embedder.aliases)),
            "dimension": embedder.dimension,
            "aliases": embedder.aliases,
            **describe_calibration(reco),
            "coverage": reco.defaults["coverage"],
            "target": reco.defaults["target"],
            "fusers": list(reco.manifest.fusers),
        }

    @routes.get("/.well-known/live", status_code=204)
    async def clip_live() -> None:
        """Report that the process answers."""

    @routes.get("/.well-known/ready", status_code=204)
    async def clip_ready(request: Request) -> None:
        """Report whether requests should be sent here, as ``/readyz`` does."""
        ready = request.app.state.health.ready()
        if ready.reasons:
            raise Refused(Failure(503, "not_ready", "; ".join(ready.reasons)))

    return routes
