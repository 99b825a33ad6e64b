"""``POST /v1/multimodalembeddings`` of Voyage, by which Weaviate's multi2vec-voyageai names the role."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from ..app_state import AppState
from ..embedder import Embedded, Embedder, EmbedRequest
from ..routing import context_of
from ..schemas import Items, Strict
from ..wire import Item, numbered, write_vector
from .fields import DIMENSION, check_supported, dialect_router, dimension_of, input_type_of


class TextPart(Strict):
    """A text."""

    type: Literal["text"]
    text: str | None = Field(None, description="missing: nothing, as Weaviate sends an empty title")


class ImagePart(Strict):
    """An image as a data URI."""

    type: Literal["image_base64"]
    image_base64: str


class ImageUrlPart(Strict):
    """An image as a data URI, in Voyage's field for URLs."""

    type: Literal["image_url"]
    image_url: str


AnyPart: TypeAlias = TextPart | ImagePart | ImageUrlPart


def item_of(part: AnyPart) -> Item:
    """Convert a part for the embedder."""
    match part:
        case TextPart():
            return Item(part.text or "", "text")
        case ImagePart():
            return Item(part.image_base64, "image")
        case ImageUrlPart():
            return Item(part.image_url, "image")


class VoyageInput(Strict):
    """Parts that become one vector, the direction of their mean."""

    content: Items[Annotated[AnyPart, Field(discriminator="type")]] = Field(min_length=1)

    def items(self) -> list[Item]:
        """Convert the parts for the embedder. There are none if every text is missing."""
        is_empty = all(isinstance(part, TextPart) and part.text is None for part in self.content)
        return [] if is_empty else [*map(item_of, self.content)]


class VoyageRequest(Strict):
    """Voyage's request."""

    inputs: Items[VoyageInput] = Field(min_length=1)
    model: str | None = Field(None, description="alias: of GET /v1/models")
    input_type: str | None = Field(None, description="query or document")
    truncation: bool = True
    output_dtype: str | None = Field(None, description="only float")
    output_dimension: int | None = Field(None, description=DIMENSION)
    encoding_format: Literal["base64"] | None = None
    output_encoding: Literal["base64"] | None = Field(None, description="as encoding_format")

    @model_validator(mode="before")
    @classmethod
    def _redirect_texts(cls, value: Any) -> Any:
        if isinstance(value, dict) and "inputs" not in value and "input" in value:
            raise ValueError("this is a request of Voyage's API for texts (input), which is at /v1/embeddings")
        return value

    def to_embed(self, embedder: Embedder) -> EmbedRequest:
        """Convert for the embedder. Refuse what this model cannot follow."""
        check_supported("output_dtype", self.output_dtype, ("float",))
        return EmbedRequest(
            numbered("inputs", (one.items() for one in self.inputs)),
            model=self.model,
            input_type=input_type_of(input_type=self.input_type),
            truncate=self.truncation,
            dimension=dimension_of(embedder, output_dimension=self.output_dimension),
        )


def router(state: AppState) -> APIRouter:
    """Make the routes. The ``detail`` of a failure is a string, since Weaviate reads it as one."""
    routes = dialect_router(lambda failure: {"detail": failure.message})

    @routes.post("/multimodalembeddings", include_in_schema=False)  # for a base URL without /v1
    @routes.post("/v1/multimodalembeddings")
    async def voyage_multimodal_embeddings(request: Request, body: VoyageRequest) -> Response:
        """Embed inputs of interleaved texts and images, one vector each; Voyage's API."""
        encoding = body.encoding_format or body.output_encoding

        def to_answer(answer: Embedded) -> dict[str, Any]:
            return {
                "object": "list",
                "data": [
                    {"object": "embedding", "embedding": write_vector(row.embedding, encoding), "index": row.index}
                    for row in answer.rows
                ],
                "model": body.model or next(iter(state.embedder.aliases)),
                "usage": {  # Voyage charges by pixels
                    "text_tokens": answer.tokens,
                    "image_pixels": 0,
                    "video_pixels": 0,
                    "total_tokens": answer.tokens,
                },
            }

        return await context_of(request).embed(body.to_embed(state.embedder), to_answer)

    return routes
