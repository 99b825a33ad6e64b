"""``POST /v1/multimodalembeddings``: Voyage's API, by which Weaviate's multi2vec-voyageai says query or document."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from ..app_state import Edge
from ..embedder import Embedded, Embedder
from ..items import Item
from ..routing import life_of
from ..schemas import Items, Strict
from .shared import (
    Wanted,
    answer,
    check_offered,
    cut_to,
    dialect_router,
    numbered,
    side_of,
    write_vector,
)


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


def part_of(one: AnyPart) -> Item:
    """The same for the embedder."""
    match one:
        case TextPart():
            return Item(one.text or "", "text")
        case ImagePart():
            return Item(one.image_base64, "image")
        case ImageUrlPart():
            return Item(one.image_url, "image")


class VoyageInput(Strict):
    """Parts that become one vector, the direction of their mean."""

    content: Items[Annotated[AnyPart, Field(discriminator="type")]] = Field(min_length=1)

    def parts(self) -> list[Item]:
        """The same for the embedder; none where a text is missing, which asks for no vector of its own."""
        says_nothing = all(isinstance(one, TextPart) and one.text is None for one in self.content)
        return [] if says_nothing else [*map(part_of, self.content)]


class VoyageRequest(Strict):
    """Voyage's request."""

    inputs: Items[VoyageInput] = Field(min_length=1)
    model: str | None = Field(None, description="alias: of GET /v1/models")
    input_type: str | None = Field(None, description="query or document")
    truncation: bool = True
    output_dtype: str | None = Field(None, description="only float")
    output_dimension: int | None = Field(None, description="the model's own, or one that it was trained to be cut to")
    encoding_format: Literal["base64"] | None = None
    output_encoding: Literal["base64"] | None = Field(None, description="as encoding_format")

    @model_validator(mode="before")
    @classmethod
    def _not_of_texts(cls, given: Any) -> Any:
        if isinstance(given, dict) and "inputs" not in given and "input" in given:
            raise ValueError("this is a request of Voyage's API for texts (input), which is at /v1/embeddings")
        return given

    def to_wanted(self, embedder: Embedder) -> Wanted:
        """The same for the embedder.

        Raises:
            Refused: a field that needs another model.
        """
        check_offered("output_dtype", self.output_dtype, ("float",))
        return Wanted(
            inputs=numbered("inputs", (one.parts() for one in self.inputs)),
            model=self.model,
            side=side_of(input_type=self.input_type),
            truncate=self.truncation,
            cut=cut_to(embedder, output_dimension=self.output_dimension),
        )


def router(edge: Edge) -> APIRouter:
    """The route; the text of a failure is a string, since Weaviate reads it as one."""
    routes = dialect_router(lambda failure: {"detail": failure.message})

    @routes.post("/multimodalembeddings", include_in_schema=False)  # a base URL without /v1
    @routes.post("/v1/multimodalembeddings")
    async def voyage_multimodal_embeddings(request: Request, body: VoyageRequest) -> Response:
        """Embed inputs of interleaved texts and images, one vector each; Voyage's API."""
        form = body.encoding_format or body.output_encoding

        def write(found: Embedded) -> dict[str, Any]:
            return {
                "object": "list",
                "data": [
                    {"object": "embedding", "embedding": write_vector(row.vector, form), "index": index}
                    for index, row in enumerate(found.rows)
                ],
                "model": body.model or next(iter(edge.embedder.aliases)),
                "usage": {  # pixels are Voyage's price unit
                    "text_tokens": found.tokens,
                    "image_pixels": 0,
                    "video_pixels": 0,
                    "total_tokens": found.tokens,
                },
            }

        return await answer(life_of(request), body.to_wanted(edge.embedder), write)

    return routes
