"""``POST /v1/refine``: vectors in, refined vectors out. ``POST /v1/explain``: texts and images, with the reasons."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field, model_validator

from ..types import InputType, Modality
from .edge import Caller, Edge
from .embedding import EmbedRequest, Item
from .failures import Failure, Refused
from .routes import answering_in, openai_shape
from .schemas import ERRORS, HowToRefine, Items, Numbers, RefinedList, Strict, image_item, refined_list


class RefineRequest(HowToRefine):
    """CLIP vectors of this model's encoder, made anywhere."""

    vectors: Items[Numbers] = Field(min_length=1, description="B vectors of D numbers and of norm 1")
    modality: Modality = Field(description="what the vectors embed")
    input_type: InputType = Field("query", description="document: the vectors are refined as one set of candidates")
    explain: bool = Field(False, description="also return the pairs that were used")

    def to_embed(self) -> EmbedRequest:
        """The same for the embedder."""
        return EmbedRequest(
            [Item.vector(vector, self.modality) for vector in self.vectors],
            side=self.input_type,
            refine=True,
            options=self.options(),
            explain=self.explain,
        )


class ExplainInput(Strict):
    """A text or an image."""

    text: str | None = None
    image: str | None = Field(None, description="data URI or base64")

    @model_validator(mode="after")
    def _one_of_both(self) -> ExplainInput:
        if (self.text is None) == (self.image is None):
            raise ValueError("give text or image, and not both")
        return self

    def to_item(self, caller: Caller) -> Item | Failure:
        """The same for the embedder."""
        if self.text is not None:
            return Item.text(self.text)
        try:
            return image_item(self.image or "", caller.max_image_bytes)
        except Refused as refused:
            return refused.failure


class ExplainRequest(HowToRefine):
    """Texts and images, to be refined."""

    input: Items[ExplainInput] = Field(min_length=1)
    input_type: InputType = Field(
        "query", description="document: those of a modality are refined as one set of candidates"
    )

    def to_embed(self, caller: Caller) -> EmbedRequest:
        """The same for the embedder."""
        return EmbedRequest(
            [one.to_item(caller) for one in self.input],
            side=self.input_type,
            refine=True,
            options=self.options(),
            explain=True,
        )


def router(edge: Edge) -> APIRouter:
    """The two routes."""
    routes = APIRouter(prefix="/v1", route_class=answering_in(openai_shape), tags=["refine"], responses=ERRORS)

    @routes.post("/refine", response_model_exclude_none=True)
    async def refine_vectors(request: Request, body: RefineRequest) -> RefinedList:
        """Refine CLIP vectors that were made elsewhere, without encoding anything."""
        return refined_list(await edge(request).embed(body.to_embed()), "vectors")

    @routes.post("/explain", response_model_exclude_none=True)
    async def explain(request: Request, body: ExplainRequest) -> RefinedList:
        """Refine texts and images, and explain: the pairs used, their weights, and how far each vector moved."""
        caller = edge(request)
        return refined_list(await caller.embed(body.to_embed(caller)), "input")

    return routes
