"""``POST /vectorize`` and the other routes of Weaviate's multi2vec-clip container, as its replacement.

The request does not say query or document, so the prefix of the URL decides: ``/refined/vectorize`` treats all items as
queries.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, model_validator

from ..app_state import Edge
from ..embedder import Embedded
from ..failures import Failure, Refused
from ..items import Item
from ..model_routes import describe_calibration
from ..routing import life_of
from ..schemas import Items
from .shared import Wanted, answer, dialect_router, numbered


class VectorizeRequest(BaseModel):
    """Texts and images; Weaviate leaves out what is empty."""

    texts: Items[str] | None = None
    images: Items[str] | None = Field(None, description="bare base64")

    @model_validator(mode="after")
    def _something(self) -> VectorizeRequest:
        if not self.texts and not self.images:
            raise ValueError("give texts or images")
        return self

    def to_wanted(self) -> Wanted:
        """The same for the embedder: texts, then images."""
        # an empty title is no part of an object that has a picture; alone it is embedded, as the container does
        texts = self.texts or []
        parts = ([Item(text, "text")] if text.strip() or not self.images else [] for text in texts)
        images = numbered("images", ([Item(image, "image")] for image in self.images or []))
        return Wanted(inputs=numbered("texts", parts) | images, empty_texts=True)


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = dialect_router(lambda failure: {"error": failure.message})

    @routes.post("/vectorize")
    async def clip_vectorize(request: Request, body: VectorizeRequest) -> Response:
        """Embed texts and images; the API of Weaviate's multi2vec-clip container."""
        texts = len(body.texts or [])

        def write(found: Embedded) -> dict[str, Any]:
            vectors = found.vectors
            return {"textVectors": vectors[:texts], "imageVectors": vectors[texts:]}

        return await answer(life_of(request), body.to_wanted(), write)

    @routes.get("/meta")
    async def clip_meta() -> dict[str, Any]:
        """The model, and what the memory has learned; Weaviate needs an object and ignores its fields."""
        embedder, reco = edge.embedder, edge.embedder.reco
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
        """Whether the process answers."""

    @routes.get("/.well-known/ready", status_code=204)
    async def clip_ready(request: Request) -> None:
        """Whether requests should be sent here, as ``/readyz``."""
        state = request.app.state.health.ready()
        if state.reasons:
            raise Refused(Failure(503, "not_ready", "; ".join(state.reasons)))

    return routes
