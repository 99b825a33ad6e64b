"""``POST /v2/embed`` and ``/v1/embed`` of Cohere, which Weaviate's multi2vec-cohere and vLLM's users call, too."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from ..app_state import AppState
from ..embedder import Embedded, Embedder, EmbedRequest
from ..routing import context_of
from ..schemas import Items, Strict
from ..wire import Item, numbered, write_vector
from .fields import DIMENSION, Truncate, check_supported, dialect_router, dimension_of, input_type_of, truncates


class CohereRequest(Strict):
    """Cohere's request: texts or images."""

    model: str | None = Field(None, description="alias: of GET /v1/models")
    input_type: str | None = Field(None, description="search_query, search_document, image (a document), ...")
    texts: Items[str] | None = Field(None, min_length=1)
    images: Items[str] | None = Field(None, min_length=1, description="data URIs")
    embedding_types: Items[str] | None = Field(None, min_length=1, description="float, base64 or both")
    output_dimension: int | None = Field(None, description=DIMENSION)
    truncate: Truncate | None = Field(None, description="NONE or START: refuse long texts")
    max_tokens: int | None = Field(None, description="not supported: texts are cut at the context length")
    priority: int | None = Field(None, description="ignored")

    @model_validator(mode="after")
    def _check_one(self) -> CohereRequest:
        if (self.texts is None) == (self.images is None):
            raise ValueError("give texts or images, and not both")
        return self

    def to_embed(self, embedder: Embedder) -> EmbedRequest:
        """Convert for the embedder. Refuse what this model cannot follow."""
        check_supported("max_tokens", self.max_tokens, ())
        for one in self.embedding_types or ():
            check_supported("embedding_types", one, ("float", "base64"))
        if self.images is None:
            inputs = numbered("texts", ([Item(text, "text")] for text in self.texts or []))
        else:
            inputs = numbered("images", ([Item(image, "image")] for image in self.images))
        return EmbedRequest(
            inputs,
            model=self.model,
            input_type=input_type_of(input_type=self.input_type),
            truncate=truncates(truncate=self.truncate),
            dimension=dimension_of(embedder, output_dimension=self.output_dimension),
        )

    def to_answer(self, answer: Embedded, version: str) -> dict[str, Any]:
        """Write the answer of a version of the API."""
        vectors = answer.vectors
        by_type = {one: [write_vector(row, one) for row in vectors] for one in self.embedding_types or ["float"]}
        tokens = {"input_tokens": answer.tokens}
        as_floats = version == "1" and not self.embedding_types
        return {
            "id": uuid.uuid4().hex,
            "response_type": "embeddings_floats" if as_floats else "embeddings_by_type",
            "embeddings": by_type["float"] if as_floats else by_type,
            "texts": self.texts or [],
            "meta": {"api_version": {"version": version}, "billed_units": tokens, "tokens": tokens},
        }


def router(state: AppState) -> APIRouter:
    """Make the routes."""
    routes = dialect_router(lambda failure: {"message": failure.message})

    @routes.post("/v2/embed")
    async def cohere_embed(request: Request, body: CohereRequest) -> Response:
        """Embed texts or images; Cohere's API."""
        return await context_of(request).embed(
            body.to_embed(state.embedder), lambda answer: body.to_answer(answer, "2")
        )

    @routes.post("/v1/embed")
    async def cohere_embed_v1(request: Request, body: CohereRequest) -> Response:
        """Embed by version 1, which `cohere.Client` and LangChain call: floats without `embedding_types`."""
        return await context_of(request).embed(
            body.to_embed(state.embedder), lambda answer: body.to_answer(answer, "1")
        )

    return routes
