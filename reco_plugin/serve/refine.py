"""Our own routes: vectors in, refined vectors out; texts and images, with the reasons; and exact scores of both.

::

    POST /v1/refine   CLIP vectors -> refined vectors
    POST /v1/explain  texts and images -> refined vectors, and why
    POST /v1/scores   images against texts, both refined
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, model_validator

from ..score import Scores
from ..types import Degraded, InputType, Modality
from .dialects.shared import Picture, read_all
from .edge import Caller, Edge
from .embedder import EmbedRequest, Item, ScoreRequest
from .items import TextOrImage, text_item
from .routes import answering_in, openai_shape
from .schemas import ERRORS, CoverageBody, HowToRefine, Items, JsonVector, RefinedList, refined_list
from .wire import as_written


class RefineRequest(HowToRefine):
    """CLIP vectors of this model's encoder, made anywhere."""

    vectors: Items[JsonVector] = Field(min_length=1, description="B vectors of D numbers and of norm 1")
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
            indexed=False,
        )


class ExplainRequest(HowToRefine):
    """Texts and images, to be refined."""

    input: Items[TextOrImage] = Field(min_length=1)
    input_type: InputType = Field(
        "query", description="document: those of a modality are refined as one set of candidates"
    )

    def to_embed(self, caller: Caller) -> EmbedRequest:
        """The same for the embedder."""
        return EmbedRequest(
            [one.to_item(caller.settings.max_image_bytes) for one in self.input],
            side=self.input_type,
            refine=True,
            options=self.options(),
            explain=True,
            indexed=False,
        )


class ScoresRequest(HowToRefine):
    """Images and texts, of which one side asks and the other competes; ``exclude`` is for those that ask."""

    images: Items[str] = Field([], description="data URIs, base64, or URLs if the service fetches them")
    image_vectors: Items[JsonVector] = Field([], description="of norm 1; their rows follow those of images")
    texts: Items[str] = Field([], description="those that compete are refined as one set: give all of them")
    text_vectors: Items[JsonVector] = Field([], description="of norm 1; their columns follow those of texts")
    queries: Modality = Field("image", description="which side asks; with text, scores of a column rank images")

    @model_validator(mode="after")
    def _both(self) -> ScoresRequest:
        for side, given in (("image", self.images or self.image_vectors), ("text", self.texts or self.text_vectors)):
            if not given:
                raise ValueError(f"give {side}s or {side}_vectors")
        return self

    async def to_score(self, caller: Caller) -> ScoreRequest:
        """The same for the embedder; images are fetched where they are URLs."""
        images = await read_all([*map(Picture, self.images)], caller)

        def score() -> ScoreRequest:
            return ScoreRequest(
                [*images, *(Item.vector(one, "image") for one in self.image_vectors)],
                [*map(text_item, self.texts), *(Item.vector(one, "text") for one in self.text_vectors)],
                self.options(),
                self.queries,
            )

        return await caller.make(score)


class ScoresAnswer(BaseModel):
    """B rows of C scores, in units of a cosine; compare those of one query: of a row, or of a column if texts ask."""

    scores: list[list[float]]
    frozen: list[list[float]]
    """Plain cosines."""
    covered: list[bool]
    """Whether the memory knows each text that competes; empty where that was not measured."""
    coverage: CoverageBody | None = None
    """Of those that compete; None where the memory was not searched."""
    degraded: Degraded | None = None
    """Why the scores are plain although refinement was on."""

    @classmethod
    def of(cls, scores: Scores) -> ScoresAnswer:
        """From the embedder's."""
        return cls.model_construct(
            scores=as_written(scores.scores),
            frozen=as_written(scores.frozen),
            covered=[] if scores.coverage is None else list(scores.coverage.covered),
            coverage=None if scores.coverage is None else CoverageBody.of(scores.coverage, exact=True),
            degraded=scores.degraded,
        )


def router(edge: Edge) -> APIRouter:
    """The three routes."""
    routes = APIRouter(prefix="/v1", route_class=answering_in(openai_shape), tags=["refine"], responses=ERRORS)

    @routes.post("/refine", response_model=RefinedList)
    async def refine_vectors(request: Request, body: RefineRequest) -> Response:
        """Refine CLIP vectors that were made elsewhere, without encoding anything."""
        caller = edge(request)
        return await caller.answer(await caller.make(body.to_embed), lambda found: refined_list(found, "vectors"))

    @routes.post("/explain", response_model=RefinedList)
    async def explain(request: Request, body: ExplainRequest) -> Response:
        """Refine texts and images, and explain: the pairs used, their weights, and how far each vector moved."""
        caller = edge(request)
        asked = await caller.make(lambda: body.to_embed(caller))
        return await caller.answer(asked, lambda found: refined_list(found, "input"))

    @routes.post("/scores", response_model=ScoresAnswer)
    async def scores(request: Request, body: ScoresRequest) -> Response:
        """Score images against texts, both refined: exact, where a cosine of two refined vectors is not."""
        caller = edge(request)
        return await caller.score(await body.to_score(caller), ScoresAnswer.of)

    return routes
