"""Our own routes: vectors in, refined vectors out; and texts and images, with the reasons.

::

    POST /v1/refine   CLIP vectors -> refined vectors
    POST /v1/explain  texts and images -> refined vectors, and why
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import Field

from ..types import InputType, Modality
from .edge import Edge
from .embedder import EmbedRequest
from .items import Item
from .routes import answering_in, life_of, openai_shape
from .schemas import ERRORS, HowToRefine, Items, JsonVector, RefinedList, TextOrImage, refined_list


class RefineRequest(HowToRefine):
    """CLIP vectors of this model's encoder, made anywhere."""

    vectors: Items[JsonVector] = Field(min_length=1, description="B vectors of D numbers and of norm 1")
    modality: Modality = Field(description="what the vectors embed")
    input_type: InputType = Field("query", description="document: the vectors are refined as one set of candidates")
    explain: bool = Field(False, description="also return the pairs that were used")

    def to_embed(self) -> EmbedRequest:
        """The same for the embedder."""
        return EmbedRequest(
            [Item(vector, self.modality) for vector in self.vectors],
            side=self.input_type,
            refine=True,
            names=[f"vectors[{number}]" for number in range(len(self.vectors))],
            options=self.options(),
            explain=self.explain,
        )


class ExplainRequest(HowToRefine):
    """Texts and images, to be refined."""

    input: Items[TextOrImage] = Field(min_length=1)
    input_type: InputType = Field(
        "query", description="document: those of a modality are refined as one set of candidates"
    )

    def to_embed(self) -> EmbedRequest:
        """The same for the embedder."""
        return EmbedRequest(
            [one.to_item() for one in self.input],
            side=self.input_type,
            refine=True,
            options=self.options(),
            explain=True,
        )


def router(_: Edge) -> APIRouter:
    """The two routes."""
    routes = APIRouter(prefix="/v1", route_class=answering_in(openai_shape), tags=["refine"], responses=ERRORS)

    @routes.post("/refine", response_model=RefinedList)
    async def refine_vectors(request: Request, body: RefineRequest) -> Response:
        """Refine CLIP vectors that were made elsewhere, without encoding anything."""
        return await life_of(request).answer(body.to_embed(), refined_list)

    @routes.post("/explain", response_model=RefinedList)
    async def explain(request: Request, body: ExplainRequest) -> Response:
        """Refine texts and images, and explain: the pairs used, their weights, and how far each vector moved."""
        return await life_of(request).answer(body.to_embed(), refined_list)

    return routes
