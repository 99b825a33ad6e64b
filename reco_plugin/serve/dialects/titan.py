"""``POST /titan``, and Bedrock's own path: Titan multimodal embeddings, for OpenSearch's ``text_image_embedding``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from ..edge import Edge
from ..failures import Failure, Refused
from ..routes import answering_in
from ..schemas import Strict
from .inputs import InputPart, Picture, Wanted, answers
from .words import check_dimensions, errors_as, side_of

_ABSENT = (None, "", "null")  # OpenSearch's processor writes the word where a field is missing


class TitanConfig(Strict):
    """Of the vector."""

    outputEmbeddingLength: int | None = Field(None, description="only the model's own")  # noqa: N815 - Titan's


class TitanRequest(Strict):
    """A text, an image, or both, which become one vector: the direction of their mean."""

    inputText: str | None = None  # noqa: N815 - Titan's spelling
    inputImage: str | None = Field(None, description="bare base64")  # noqa: N815
    embeddingConfig: TitanConfig | None = None  # noqa: N815
    input_type: str | None = Field(None, description="query or document; not Titan's")

    def to_wanted(self, model: str | None) -> Wanted:
        """The same for the embedder.

        Raises:
            Refused: neither text nor image.
        """
        parts: list[InputPart] = []
        if self.inputText not in _ABSENT:
            parts.append(self.inputText or "")
        if self.inputImage not in _ABSENT:
            parts.append(Picture(self.inputImage or ""))
        if not parts:
            raise Refused(Failure(400, "empty_input", "there is nothing to embed: give inputText, inputImage or both"))
        name = (
            "inputText and inputImage"
            if len(parts) == 2
            else ("inputText" if isinstance(parts[0], str) else "inputImage")
        )
        return Wanted([parts], [name], model=model, side=side_of(input_type=self.input_type))


class TitanAnswer(BaseModel):
    """Titan's answer."""

    embedding: list[float]
    inputTextTokenCount: int  # noqa: N815 - Titan's spelling
    message: str | None = None


class TitanError(BaseModel):
    """Bedrock's error."""

    message: str


def shape(failure: Failure) -> dict[str, Any]:
    """A failure in Bedrock's words."""
    return {"message": failure.message}


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=answering_in(shape), tags=["dialects"], responses=errors_as(TitanError))

    async def embed(request: Request, body: TitanRequest, model: str | None) -> TitanAnswer:
        caller = edge(request)
        if body.embeddingConfig:
            asked = body.embeddingConfig.outputEmbeddingLength
            check_dimensions(caller.dimension, outputEmbeddingLength=asked)
        found = (await answers(caller, body.to_wanted(model))).whole()
        return TitanAnswer(embedding=found.vectors[0].tolist(), inputTextTokenCount=found.tokens[0])

    @routes.post("/titan")
    async def titan(request: Request, body: TitanRequest) -> TitanAnswer:
        """Embed a text, an image, or both as one vector; Titan's request and answer."""
        return await embed(request, body, None)

    @routes.post("/model/{model}/invoke")
    async def titan_invoke(request: Request, model: str, body: TitanRequest) -> TitanAnswer:
        """The same under Bedrock's path, where the model is an alias."""
        return await embed(request, body, model)

    return routes
