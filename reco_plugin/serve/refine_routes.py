"""Our own routes: vectors in, refined vectors out; and texts and images, with the reasons.

::

    POST /v1/refine   CLIP vectors -> refined vectors
    POST /v1/explain  texts and images -> refined vectors, and why
    POST /v1/match    queries and their results -> which are right
"""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from ..errors import InputError
from ..reco import Reco
from ..signals.confidence import PRECISION
from ..types import InputType, Modality, check_rankings, other
from .app_state import Edge
from .embedder import Embedded, EmbedRequest, FoundBy
from .items import Item
from .routing import answering_in, life_of, openai_shape
from .schemas import (
    ERRORS,
    HowToRefine,
    Items,
    JsonVector,
    QueryBody,
    RefinedList,
    Strict,
    TextOrImage,
    Threshold,
    refined_list,
)
from .wire import with_nulls


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


class Result(Strict):
    """A result of an index."""

    id: str | None = None
    score: float | None = Field(None, description="the cosine; left out, that of the memory's pair of this id")


class MatchRequest(HowToRefine):
    """Queries, and what an index answered to each, the best first."""

    input: Items[QueryBody] = Field(min_length=1)
    results: Items[list[Result]] | None = Field(None, description="of each query; left out: only thresholds are told")
    precision: float = Field(PRECISION, ge=0.5, lt=1.0, description="share of right ones among the first that pass")
    documents: int | None = Field(None, ge=1, description="of the index; left out: as many as the memory has pairs")
    refine: bool = Field(True, description="whether the index was searched with refined vectors")

    def to_embed(self) -> EmbedRequest:
        """The queries for the embedder."""
        items = [one.to_item() for one in self.input]
        return EmbedRequest(items, side="query", refine=self.refine, options=self.options())

    def matched(self, reco: Reco, answer: Embedded) -> MatchedList:
        """What is known of each query.

        Raises:
            InputError: not one list of results a query, or scores that are no cosines, are not the best first, or are
                missing of what is no pair of the memory.
        """
        check_rankings(self.input if self.results is None else self.results, len(self.input))
        return MatchedList.model_construct(data=[self._match(reco, answer, row) for row in range(len(self.input))])

    def _match(self, reco: Reco, answer: Embedded, row: int) -> Matched:
        one, modality, results = answer.rows[row], self.input[row].kind, self.results[row] if self.results else []
        lacking = [each.id for each in results if each.score is None and each.id is not None]
        held = reco.memory.get(lacking) if lacking else None
        cosines = {} if held is None else dict(zip(held.ids, held.side(other(modality)) @ one.vector, strict=True))
        scores = [float(cosines.get(each.id or "", np.nan)) if each.score is None else each.score for each in results]
        if np.isnan(scores).any():
            at = int(np.isnan(scores).argmax())
            raise InputError(f"results[{row}][{at}] needs a score: the memory holds no pair {results[at].id!r:.80}")
        query, how = answer.refinement(row, modality), {"precision": self.precision, "documents": self.documents}
        found = reco.match(query, [scores], modality=modality, **how)  # type: ignore[arg-type]
        least = None if found.least is None else float(found.least[0])
        return Matched(
            index=row,
            chance=None if np.isnan(found.chance[0]) else float(found.chance[0]),
            right=[at for at, score in enumerate(scores) if least is not None and score >= least],
            by_words=[at for at, each in enumerate(results) if each.id in one.word_ids],
            threshold=None if least is None else Threshold.of(least),
            reason=found.why or None,
            presence=one.presence,
            found_by=one.found_by,
            word_ids=list(one.word_ids),
        )


class Matched(BaseModel):
    """What is known of the results of one query."""

    index: int
    chance: float | None
    """That the first result is right; null where it is not known."""
    right: list[int]
    """The places of the results to show: those from the threshold on."""
    by_words: list[int]
    """The places of the results whose pairs were found by words."""
    threshold: Threshold | None
    """From which a result is right, as an engine may be told; null: no cosine holds the precision."""
    reason: str | None
    """Why there is none."""
    presence: float | None
    """Whether the memory holds what is asked for."""
    found_by: FoundBy | None
    """As in ``/v1/refine``."""
    word_ids: list[str]
    """Likewise."""


class MatchedList(BaseModel):
    """All queries."""

    data: list[Matched]


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1", route_class=answering_in(openai_shape), tags=["refine"], responses=ERRORS)

    @routes.post("/refine", response_model=RefinedList)
    async def refine_vectors(request: Request, body: RefineRequest) -> Response:
        """Refine CLIP vectors that were made elsewhere, without encoding anything."""
        return await life_of(request).answer(body.to_embed(), refined_list)

    @routes.post("/explain", response_model=RefinedList)
    async def explain(request: Request, body: ExplainRequest) -> Response:
        """Refine texts and images, and explain: the pairs used, their weights, and how far each vector moved."""
        return await life_of(request).answer(body.to_embed(), refined_list)

    @routes.post("/match", response_model=MatchedList)
    async def match(request: Request, body: MatchRequest) -> Response:
        """Say which results of an index are right, with a precision, and below which score the engine may drop them."""
        reco = edge.embedder.reco
        return await life_of(request).answer(body.to_embed(), lambda found: with_nulls(body.matched(reco, found)))

    return routes
