"""Our own routes: vectors in, refined vectors out; and texts and images, with the reasons.

::

    POST /v1/refine   CLIP vectors -> refined vectors
    POST /v1/explain  texts and images -> refined vectors, and why
    POST /v1/match    queries and their results -> which results are right
"""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from ..errors import InputError
from ..fusion.explain import explain_decision
from ..reco import Reco
from ..signals.confidence import PRECISION
from ..types import Coverage, Degraded, InputType, Modality, check_rankings, other
from .app_state import AppState
from .embedder import Embedded, EmbedRequest
from .routing import context_of, own_routes
from .schemas import (
    HowToRefine,
    Items,
    JsonVector,
    MatchedBy,
    QueryBody,
    RefinedItem,
    Strict,
    TextOrImage,
    Threshold,
)
from .wire import Item, numbered, with_nulls


class RefinedList(BaseModel):
    """The vectors of all inputs."""

    data: list[RefinedItem]
    dimension: int
    degraded: Degraded | None = None
    """Why vectors are plain although they should be refined."""
    coverage: dict[Modality, Coverage] = {}
    """What the memory knows of the vectors of each modality that was to be refined."""
    decided: dict[Modality, str] = {}
    """What was decided about them and why, in words."""

    @classmethod
    def of(cls, answer: Embedded) -> RefinedList:
        """Convert an answer of the embedder."""
        for row in answer.rows:
            row.frozen = None if row.used is None else row.frozen
        return cls.model_construct(
            data=answer.rows,
            dimension=len(answer.rows[0].embedding),
            degraded=answer.degraded,
            coverage=dict(answer.coverage),
            decided={modality: explain_decision(one) for modality, one in answer.coverage.items()},
        )


class RefineRequest(HowToRefine):
    """CLIP vectors of this model's encoder, computed anywhere."""

    vectors: Items[JsonVector] = Field(min_length=1, description="B vectors of D numbers and of norm 1")
    modality: Modality = Field(description="what the vectors embed")
    input_type: InputType = Field("query", description="document: the vectors are refined as one set of candidates")
    explain: bool = Field(False, description="also return the pairs that were used")

    def to_embed(self) -> EmbedRequest:
        """Convert for the embedder."""
        return EmbedRequest(
            numbered("vectors", ([Item(vector, self.modality)] for vector in self.vectors)),
            input_type=self.input_type,
            refine=True,
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
        """Convert for the embedder."""
        return EmbedRequest(
            numbered("input", ([one.to_item()] for one in self.input)),
            input_type=self.input_type,
            refine=True,
            options=self.options(),
            explain=True,
        )


class Result(Strict):
    """A result of an index."""

    id: str | None = None
    score: float | None = Field(None, description="the cosine; left out: computed from the memory's pair of this id")


class MatchRequest(HowToRefine):
    """Queries, and the results of an index for each, best first."""

    input: Items[QueryBody] = Field(min_length=1)
    results: Items[list[Result]] | None = Field(
        None, description="of each query; left out: only thresholds are computed"
    )
    precision: float = Field(PRECISION, ge=0.5, lt=1.0, description="share of right ones among the first that pass")
    documents: int | None = Field(None, ge=1, description="of the index; left out: as many as the memory has pairs")
    refine: bool = Field(True, description="whether the index was searched with refined vectors")

    def to_embed(self) -> EmbedRequest:
        """Convert the queries for the embedder."""
        inputs = numbered("input", ([one.to_item()] for one in self.input))
        return EmbedRequest(inputs, input_type="query", refine=self.refine, options=self.options())

    def match(self, reco: Reco, answer: Embedded) -> MatchedList:
        """Judge the results of each query."""
        check_rankings(self.input if self.results is None else self.results, len(self.input))
        return MatchedList.model_construct(data=[self._match(reco, answer, row) for row in range(len(self.input))])

    def _match(self, reco: Reco, answer: Embedded, row: int) -> Matched:
        one, modality, results = answer.rows[row], self.input[row].kind, self.results[row] if self.results else []
        unscored = [result.id for result in results if result.score is None and result.id is not None]
        pairs = reco.memory.get(unscored) if unscored else None
        cosines = (
            {} if pairs is None else dict(zip(pairs.ids, pairs.side(other(modality)) @ one.embedding, strict=True))
        )
        scores = [
            float(cosines.get(result.id or "", np.nan)) if result.score is None else result.score for result in results
        ]
        if np.isnan(scores).any():
            at = int(np.isnan(scores).argmax())
            raise InputError(f"results[{row}][{at}] needs a score: the memory holds no pair {results[at].id!r:.80}")
        query = answer.refinement(row, modality)
        match = reco.match(query, [scores], modality=modality, precision=self.precision, documents=self.documents)
        least = None if match.least is None else float(match.least[0])
        return Matched(
            index=row,
            chance=None if np.isnan(match.chance[0]) else float(match.chance[0]),
            right=[at for at, score in enumerate(scores) if least is not None and score >= least],
            by_words=[at for at, result in enumerate(results) if result.id in (one.word_ids or ())],
            threshold=None if least is None else Threshold.of(least),
            reason=match.why or None,
            presence=one.presence,
            matched_by=one.matched_by,
            word_ids=one.word_ids or [],
        )


class Matched(BaseModel):
    """Which results of one query are right."""

    index: int
    chance: float | None
    """Probability that the first result is right; null if unknown."""
    right: list[int]
    """Places of the results to show: those from the threshold on."""
    by_words: list[int]
    """Places of the results whose captions have the words of the query."""
    threshold: Threshold | None
    """From which score on a result is right; null: no cosine gives the precision."""
    reason: str | None
    """Why there is no threshold."""
    presence: float | None
    """Whether the memory holds the answer, from 0 to 1."""
    matched_by: MatchedBy | None
    """As in ``/v1/refine``."""
    word_ids: list[str]
    """As in ``/v1/refine``."""


class MatchedList(BaseModel):
    """All queries."""

    data: list[Matched]


def router(state: AppState) -> APIRouter:
    """Make the routes."""
    routes = own_routes("refine", "/v1")

    @routes.post("/refine", response_model=RefinedList)
    async def refine_vectors(request: Request, body: RefineRequest) -> Response:
        """Refine CLIP vectors that were computed elsewhere, without encoding anything."""
        return await context_of(request).embed(body.to_embed(), RefinedList.of)

    @routes.post("/explain", response_model=RefinedList)
    async def explain(request: Request, body: ExplainRequest) -> Response:
        """Refine texts and images, and explain: the pairs used, their weights, and how far each vector moved."""
        return await context_of(request).embed(body.to_embed(), RefinedList.of)

    @routes.post("/match", response_model=MatchedList)
    async def match(request: Request, body: MatchRequest) -> Response:
        """Return which results of an index are right, with a precision, and the score below which to drop results."""
        reco = state.embedder.reco
        return await context_of(request).embed(body.to_embed(), lambda answer: with_nulls(body.match(reco, answer)))

    return routes
