"""``POST /titan``, and Bedrock's own path: Titan multimodal embeddings, for OpenSearch's ``text_image_embedding``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from ..app_state import Edge
from ..embedder import Embedded, Embedder
from ..failures import Failure, Refused
from ..items import Item
from ..routing import life_of
from ..schemas import Strict
from .shared import Wanted, answer, cut_to, dialect_router, side_of

_ERRORS = {
    400: "ValidationException",
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    413: "ValidationException",
    415: "ValidationException",
    429: "ThrottlingException",
    503: "ThrottlingException",  # also a memory that is down: OpenSearch tries again at no other word
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

    def to_wanted(self, embedder: Embedder, model: str | None) -> Wanted:
        """The same for the embedder.

        Raises:
            Refused: neither text nor image, or a length that the model does not have.
        """
        parts: dict[str, Item] = {}
        text, image = (self.inputText or "").strip(), (self.inputImage or "").strip()
        if text and (text != _NULL or "inputImage" not in self.model_fields_set):  # else somebody's title is null
            parts["inputText"] = Item(self.inputText or "", "text")
        if image not in ("", _NULL):
            parts["inputImage"] = Item(image, "image")
        if not parts:
            raise Refused(Failure(400, "empty_input", "there is nothing to embed: give inputText, inputImage or both"))
        length = self.embeddingConfig.outputEmbeddingLength if self.embeddingConfig else None
        return Wanted(
            inputs={" and ".join(parts): [*parts.values()]},
            names=[*parts],
            model=model,
            side=side_of(input_type=self.input_type),
            cut=cut_to(embedder, outputEmbeddingLength=length, dimensions=self.dimensions),
        )


def error_type(failure: Failure) -> dict[str, str]:
    """The header by which AWS' clients choose their exception."""
    return {"x-amzn-errortype": _ERRORS.get(failure.status, "InternalServerException")}


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = dialect_router(lambda failure: {"message": failure.message}, error_type)

    async def embed(request: Request, body: TitanRequest, model: str | None) -> Response:
        def write(found: Embedded) -> dict[str, Any]:
            [row] = found.rows
            return {"embedding": row.vector, "inputTextTokenCount": row.tokens, "message": None}

        return await answer(life_of(request), body.to_wanted(edge.embedder, model), write)

    @routes.post("/titan")
    async def titan(request: Request, body: TitanRequest) -> Response:
        """Embed a text, an image, or both as one vector; Titan's request and answer."""
        return await embed(request, body, None)

    @routes.post("/model/{model:path}/invoke")
    async def titan_invoke(request: Request, model: str, body: TitanRequest) -> Response:
        """The same under Bedrock's path, where the model is an alias, or an ARN that ends in one."""
        return await embed(request, body, model.rpartition("/")[2] if model.startswith("arn:") else model)

    return routes
