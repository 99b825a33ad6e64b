"""``POST /v2/embed`` and ``/v1/embed``: Cohere's; Weaviate's multi2vec-cohere and vLLM's users call it."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from ..app_state import Edge
from ..embedder import Embedded, Embedder
from ..items import Item
from ..routing import life_of
from ..schemas import Items, Strict
from .shared import (
    Cut,
    Wanted,
    answer,
    check_offered,
    cut_to,
    dialect_router,
    numbered,
    side_of,
    truncates,
    write_vector,
)


class CohereRequest(Strict):
    """Cohere's request; texts or images."""

    model: str | None = Field(None, description="alias: of GET /v1/models")
    input_type: str | None = Field(None, description="search_query, search_document, image (a document), ...")
    texts: Items[str] | None = Field(None, min_length=1)
    images: Items[str] | None = Field(None, min_length=1, description="data URIs")
    embedding_types: Items[str] | None = Field(None, min_length=1, description="float, base64 or both")
    output_dimension: int | None = Field(None, description="the model's own, or one that it was trained to be cut to")
    truncate: Cut | None = Field(None, description="NONE or START: refuse long texts")
    max_tokens: int | None = Field(None, description="not offered: texts are cut at the context length")
    priority: int | None = Field(None, description="ignored")

    @model_validator(mode="after")
    def _one_of_both(self) -> CohereRequest:
        if (self.texts is None) == (self.images is None):
            raise ValueError("give texts or images, and not both")
        return self

    def to_wanted(self, embedder: Embedder) -> Wanted:
        """The same for the embedder.

        Raises:
            Refused: a field that needs another model.
        """
        check_offered("max_tokens", self.max_tokens, ())
        for one in self.embedding_types or ():
            check_offered("embedding_types", one, ("float", "base64"))
        if self.images is None:
            inputs = numbered("texts", ([Item(text, "text")] for text in self.texts or []))
        else:
            inputs = numbered("images", ([Item(image, "image")] for image in self.images))
        return Wanted(
            inputs=inputs,
            model=self.model,
            side=side_of(input_type=self.input_type),
            truncate=truncates(truncate=self.truncate),
            cut=cut_to(embedder, output_dimension=self.output_dimension),
        )


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = dialect_router(lambda failure: {"message": failure.message})

    async def embed(request: Request, body: CohereRequest, version: str) -> Response:
        wanted = body.to_wanted(edge.embedder)
        return await answer(life_of(request), wanted, lambda found: _written(found, body, version))

    @routes.post("/v2/embed")
    async def cohere_embed(request: Request, body: CohereRequest) -> Response:
        """Embed texts or images; Cohere's API."""
        return await embed(request, body, "2")

    @routes.post("/v1/embed")
    async def cohere_embed_v1(request: Request, body: CohereRequest) -> Response:
        """The same as version 1, which `cohere.Client` and LangChain call: floats without `embedding_types`."""
        return await embed(request, body, "1")

    return routes


def _written(found: Embedded, body: CohereRequest, version: str) -> dict[str, Any]:
    vectors = found.vectors
    made = {one: [write_vector(row, one) for row in vectors] for one in body.embedding_types or ["float"]}
    tokens = {"input_tokens": found.tokens}
    as_v1 = version == "1" and not body.embedding_types
    return {
        "id": uuid.uuid4().hex,
        "response_type": "embeddings_floats" if as_v1 else "embeddings_by_type",
        "embeddings": made["float"] if as_v1 else made,
        "texts": body.texts or [],
        "meta": {"api_version": {"version": version}, "billed_units": tokens, "tokens": tokens},
    }
