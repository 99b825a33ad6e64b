"""``POST /vectorize`` and the other routes of Weaviate's multi2vec-clip container, as its replacement.

The request does not say query or document, so the prefix of the URL decides: ``/refined/vectorize`` treats all items as
queries.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, model_validator

from ...types import Caution
from ..edge import Edge
from ..embedder import Embedded
from ..failures import Failure, Refused
from ..models import describe_calibration
from ..routes import answering_in
from ..schemas import Items
from ..wire import as_written
from .shared import Picture, Wanted, answer, errors_as, numbered


class VectorizeRequest(BaseModel):
    """Texts and images; Weaviate leaves out what is empty."""

    texts: Items[str] | None = None
    images: Items[str] | None = Field(None, description="bare base64")

    @model_validator(mode="after")
    def _something(self) -> VectorizeRequest:
        if not self.texts and not self.images:
            raise ValueError("give texts or images")
        return self

    def to_wanted(self) -> Wanted:
        """The same for the embedder: texts, then images."""
        # an empty title is no part of an object that has a picture; alone it is embedded, as the container does
        texts = numbered("texts", ([text] if text.strip() or not self.images else [] for text in self.texts or []))
        images = numbered("images", ([Picture(image)] for image in self.images or []))
        return Wanted(inputs=texts | images, empty_texts=True)


class VectorizeAnswer(BaseModel):
    """One vector per text and per image."""

    textVectors: list[list[float]]  # noqa: N815 - Weaviate's spelling
    imageVectors: list[list[float]]  # noqa: N815


class ClipError(BaseModel):
    """The container's error."""

    error: str


class Meta(BaseModel):
    """Information for people; Weaviate needs an object but ignores its fields."""

    model: str
    dimension: int
    aliases: dict[str, str]
    calibrated: bool
    plain: str
    check: str | None
    caution: Caution | float
    target: str
    fusers: list[str]


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=answering_in(lambda failure: {"error": failure.message}), tags=["dialects"])

    @routes.post("/vectorize", response_model=VectorizeAnswer, responses=errors_as(ClipError))
    async def clip_vectorize(request: Request, body: VectorizeRequest) -> Response:
        """Embed texts and images; the API of Weaviate's multi2vec-clip container."""
        texts = len(body.texts or [])

        def write(found: Embedded) -> VectorizeAnswer:
            vectors = as_written(found.whole().vectors)
            return VectorizeAnswer.model_construct(textVectors=vectors[:texts], imageVectors=vectors[texts:])

        return await answer(edge(request), body.to_wanted(), write)

    @routes.get("/meta")
    async def clip_meta() -> Meta:
        """The model, and what the memory has learned about its pairs."""
        embedder, reco = edge.embedder, edge.embedder.reco
        return Meta(
            model=next(iter(embedder.aliases)),
            dimension=embedder.dimension,
            aliases=dict(embedder.aliases),
            **describe_calibration(reco),
            caution=reco.defaults["caution"],
            target=embedder.target,
            fusers=list(reco.manifest.fusers),
        )

    @routes.get("/.well-known/live", status_code=204)
    async def clip_live() -> None:
        """Whether the process answers."""

    @routes.get("/.well-known/ready", status_code=204, responses={503: {"model": ClipError, "description": "not yet"}})
    async def clip_ready(request: Request) -> None:
        """Whether requests should be sent here, as ``/readyz``."""
        state = request.app.state.health.ready()
        if state.reasons:
            raise Refused(Failure(503, "not_ready", "; ".join(state.reasons), retry_after_s=1.0))

    return routes
