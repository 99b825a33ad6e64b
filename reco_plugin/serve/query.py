"""One query in the body of a request: a text, an image or a vector."""

from __future__ import annotations

from pydantic import Field, model_validator

from ..types import Modality
from .dialects.shared import text_or_image_item
from .embedder import Item
from .failures import Failure
from .schemas import JsonVector, Strict


class QueryBody(Strict):
    """A text, an image or a vector."""

    text: str | None = None
    image: str | None = Field(None, description="data URI or base64")
    vector: JsonVector | None = Field(None, description="the plain CLIP vector of the query")
    modality: Modality = Field("text", description="what the vector embeds")

    @model_validator(mode="after")
    def _one(self) -> QueryBody:
        if [self.text, self.image, self.vector].count(None) != 2:
            raise ValueError("give one of text, image and vector")
        return self

    @property
    def kind(self) -> Modality:
        """What it is."""
        return "text" if self.text is not None else "image" if self.image is not None else self.modality

    def to_item(self, max_image_bytes: int) -> Item | Failure:
        """The same for the embedder, or why it cannot be read."""
        if self.vector is not None:
            return Item.vector(self.vector, self.modality)
        return text_or_image_item(self.text, self.image, max_image_bytes)
