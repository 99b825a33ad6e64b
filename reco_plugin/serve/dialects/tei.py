"""``POST /embed`` (or ``/``) of Hugging Face's text-embeddings-inference, for texts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from ..app_state import AppState
from ..embedder import EmbedRequest
from ..failures import Failure
from ..routing import context_of
from ..schemas import Items, Strict
from ..wire import Item, numbered
from .fields import DIMENSION, check_supported, dialect_router, dimension_of, input_type_of, truncates


class TeiRequest(Strict):
    """One text or several."""

    inputs: str | Items[str]
    prompt_name: str | None = Field(None, description="query or document; TEI's name of a prompt")
    normalize: bool | None = Field(None, description="ignored: all vectors have norm 1")
    truncate: bool | None = Field(None, description="false: refuse long texts")
    truncation_direction: str | None = Field(None, description="only right")
    dimensions: int | None = Field(None, description=DIMENSION)
    options: dict[str, Any] | None = Field(None, description="ignored: how the Inference API waits and caches")

    @model_validator(mode="before")
    @classmethod
    def _redirect_cohere(cls, value: Any) -> Any:
        if isinstance(value, dict) and "texts" in value:
            raise ValueError("this is a request of Cohere's API, which is at /v1/embed and /v2/embed: add /v1")
        return value


def shape(failure: Failure) -> dict[str, Any]:
    """Write a failure in TEI's format."""
    kind = {429: "Overloaded", 503: "Unhealthy"}.get(
        failure.status, "Validation" if failure.status < 500 else "Backend"
    )
    return {"error": failure.message, "error_type": kind}


def router(state: AppState) -> APIRouter:
    """Make the routes."""
    routes = dialect_router(shape)

    @routes.post("/", include_in_schema=False)  # where Hugging Face's client sends, given a base URL
    @routes.post("/embed")
    async def tei_embed(request: Request, body: TeiRequest) -> Response:
        """Embed texts; TEI's API. The request has no model, so the prefix of the path says what is refined."""
        direction = body.truncation_direction and body.truncation_direction.lower()
        check_supported("truncation_direction", direction, ("right",))
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        embed = EmbedRequest(
            numbered("inputs", ([Item(text, "text")] for text in texts)),
            input_type=input_type_of(prompt_name=body.prompt_name),
            truncate=truncates(truncate=body.truncate),
            dimension=dimension_of(state.embedder, dimensions=body.dimensions),
        )
        return await context_of(request).embed(embed, lambda answer: answer.vectors)

    return routes
