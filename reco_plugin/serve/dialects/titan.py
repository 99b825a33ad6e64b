"""``POST /titan``, and Bedrock's own path: Titan multimodal embeddings, for OpenSearch's ``text_image_embedding``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from ..app_state import AppState
from ..embedder import Embedded, Embedder, EmbedRequest
from ..failures import Failure, Refused
from ..routing import context_of
from ..schemas import Strict
from ..wire import Item
from .fields import dialect_router, dimension_of, input_type_of

_ERRORS = {
    400: "ValidationException",
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    413: "ValidationException",
    415: "ValidationException",
    429: "ThrottlingException",
    503: "ThrottlingException",  # also for a memory that is down: OpenSearch retries at no other name
    504: "ModelTimeoutException",
}
_NULL = "null"
"""What OpenSearch's processor writes for a missing field, beside the other one."""


class TitanConfig(Strict):
    """Options of the vector."""

    outputEmbeddingLength: int | None = Field(None, description="one that the model offers")  # noqa: N815 - Titan's


class TitanRequest(Strict):
    """A text, an image, or both, which become one vector: the direction of their mean."""

    inputText: str | None = None  # noqa: N815 - Titan's spelling
    inputImage: str | None = Field(None, description="bare base64")  # noqa: N815
    embeddingConfig: TitanConfig | None = None  # noqa: N815
    dimensions: int | None = Field(None, description="likewise, of Titan text v2")
    normalize: bool | None = Field(None, description="ignored: all vectors have norm 1")
    input_type: str | None = Field(None, description="query or document; not Titan's")

    def to_embed(self, embedder: Embedder, model: str | None) -> EmbedRequest:
        """Convert for the embedder. Refuse a request without text and image."""
        parts: dict[str, Item] = {}
        text, image = (self.inputText or "").strip(), (self.inputImage or "").strip()
        if text and (text != _NULL or "inputImage" not in self.model_fields_set):  # a title may be "null"
            parts["inputText"] = Item(self.inputText or "", "text")
        if image not in ("", _NULL):
            parts["inputImage"] = Item(image, "image")
        if not parts:
            raise Refused(Failure(400, "empty_input", "there is nothing to embed: give inputText, inputImage or both"))
        length = self.embeddingConfig.outputEmbeddingLength if self.embeddingConfig else None
        return EmbedRequest(
            {" and ".join(parts): [*parts.values()]},
            model=model,
            input_type=input_type_of(input_type=self.input_type),
            dimension=dimension_of(embedder, outputEmbeddingLength=length, dimensions=self.dimensions),
        )


def error_type(failure: Failure) -> dict[str, str]:
    """Return the header by which AWS clients choose their exception."""
    return {"x-amzn-errortype": _ERRORS.get(failure.status, "InternalServerException")}


def router(state: AppState) -> APIRouter:
    """Make the routes."""
    routes = dialect_router(lambda failure: {"message": failure.message}, error_type)

    @routes.post("/titan")
    async def titan(request: Request, body: TitanRequest) -> Response:
        """Embed a text, an image, or both as one vector; Titan's request and answer."""
        return await titan_invoke(request, "", body)

    @routes.post("/model/{model:path}/invoke")
    async def titan_invoke(request: Request, model: str, body: TitanRequest) -> Response:
        """Embed under Bedrock's path. The model is an alias, or an ARN that ends in one."""

        def to_answer(answer: Embedded) -> dict[str, Any]:
            [row] = answer.rows
            return {"embedding": row.embedding, "inputTextTokenCount": row.tokens, "message": None}

        alias = model.rpartition("/")[2] if model.startswith("arn:") else model
        return await context_of(request).embed(body.to_embed(state.embedder, alias or None), to_answer)

    return routes
