"""``POST /embed`` (or ``/``) of Hugging Face's text-embeddings-inference, for texts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from ..app_state import Edge
from ..failures import Failure
from ..items import Item
from ..routing import life_of
from ..schemas import Items, Strict
from .shared import Wanted, answer, check_offered, cut_to, dialect_router, numbered, side_of, truncates


class TeiRequest(Strict):
    """A text or several."""

    inputs: str | Items[str]
    prompt_name: str | None = Field(None, description="query or document; TEI's name of a prompt")
    normalize: bool | None = Field(None, description="ignored: all vectors have norm 1")
    truncate: bool | None = Field(None, description="false: refuse long texts")
    truncation_direction: str | None = Field(None, description="only right")
    dimensions: int | None = Field(None, description="the model's own, or one that it was trained to be cut to")
    options: dict[str, Any] | None = Field(None, description="ignored: how the Inference API waits and caches")

    @model_validator(mode="before")
    @classmethod
    def _not_coheres(cls, given: Any) -> Any:
        if isinstance(given, dict) and "texts" in given:
            raise ValueError("this is a request of Cohere's API, which is at /v1/embed and /v2/embed: add /v1")
        return given


def shape(failure: Failure) -> dict[str, Any]:
    """A failure in TEI's shape."""
    kind = {429: "Overloaded", 503: "Unhealthy"}.get(
        failure.status, "Validation" if failure.status < 500 else "Backend"
    )
    return {"error": failure.message, "error_type": kind}


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = dialect_router(shape)

    @routes.post("/", include_in_schema=False)  # where Hugging Face's client asks, given a base URL
    @routes.post("/embed")
    async def tei_embed(request: Request, body: TeiRequest) -> Response:
        """Embed texts; TEI's API. Without a model in the request, the prefix of the URL says what is refined."""
        check_offered(
            "truncation_direction", body.truncation_direction and body.truncation_direction.lower(), ("right",)
        )
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        wanted = Wanted(
            inputs=numbered("inputs", ([Item(text, "text")] for text in texts)),
            cut=cut_to(edge.embedder, dimensions=body.dimensions),
            side=side_of(prompt_name=body.prompt_name),
            truncate=truncates(truncate=body.truncate),
        )
        return await answer(life_of(request), wanted, lambda found: found.vectors)

    return routes
