"""``POST /v1/match``: how sure the first answers of the caller's own index are, by what the memory's pairs asked."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from ..errors import RecoError
from ..extras.chances import ABSENT, BY, Cutoffs, PassesBy, QueryWay
from ..match import PRECISION, Matches
from ..reco import Reco
from ..types import Coverage, Modality, Refinement
from .edge import Caller, Edge
from .embedder import AnswerRow, Embedded, EmbedRequest
from .items import QueryBody
from .routes import answering_in, openai_shape
from .schemas import ERRORS, ErrorBody, HowToRefine, Items, Numbers, error_body


class MatchQuery(QueryBody):
    """One query as it was searched with, and the scores that the index gave its first ten answers, the best first."""

    scores: Numbers = Field(description="cosines of the query, refined unless `refine` is false, the best first")


class MatchRequest(HowToRefine):
    """Queries and what they found."""

    queries: Items[MatchQuery] = Field(min_length=1)
    refine: bool = Field(True, description="whether the index was searched by refined vectors; false: by plain ones")
    precision: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        PRECISION, description="share of right ones that is promised of the first answers that pass"
    )
    absent: Annotated[float, Field(ge=0, lt=1)] = Field(
        ABSENT, description="up to which share of the queries may have no right answer in the index"
    )

    def to_embed(self, caller: Caller) -> EmbedRequest:
        """The same for the embedder, which refines them once more."""
        return EmbedRequest(
            [one.to_item(caller.settings.max_image_bytes) for one in self.queries],
            side="query",
            refine=self.refine,
            options=self.options(),
            indexed=False,
        )


class MatchItem(BaseModel):
    """How sure one answer is; either ``first`` or ``error`` is there."""

    index: int
    first: float | None = None
    """Chance that the first answer is right."""
    none: float | None = None
    """Chance that none of the first ten is."""
    passes: dict[PassesBy, bool | None] = {}
    """Whether the first answer passes each cut-off; null where none can be promised."""
    way: QueryWay | None = None
    """Whether this is known of plain queries, or of refined ones."""
    error: ErrorBody | None = None


class MatchList(BaseModel):
    """All answers, and what is promised of them."""

    data: list[MatchItem]
    cutoffs: dict[Modality, dict[QueryWay, dict[str, Any]]]
    """Of the sides and ways of these queries: by score, lead and match, what passes is at least ``cut``, with the share
    that passes and the share of those that is right, each with its 95 % interval; or why nothing is promised."""


def router(edge: Edge) -> APIRouter:
    """The route."""
    routes = APIRouter(prefix="/v1", route_class=answering_in(openai_shape), tags=["match"], responses=ERRORS)

    @routes.post("/match", response_model=MatchList)
    async def match(request: Request, body: MatchRequest) -> Response:
        """Say how sure the first answers of an index are, and which cut-off holds: learned without labels."""
        caller = edge(request)
        asked = await caller.make(lambda: body.to_embed(caller))
        return await caller.answer(asked, lambda found: judge(edge.embedder.reco, body, found))

    return routes


def judge(reco: Reco, asked: MatchRequest, found: Embedded) -> MatchList:
    """Judge each ranking.

    Raises:
        InputError: scores that are no cosines, or a memory of too few things.
        Refused: every item failed.
    """
    if all(row.failure for row in found.rows):
        found.whole("queries")
    items = list[MatchItem]()
    cutoffs = dict[Modality, dict[QueryWay, dict[str, Any]]]()
    for number, (query, row) in enumerate(zip(asked.queries, found.rows, strict=True)):
        if row.failure is not None:
            items.append(MatchItem(index=number, error=error_body(row.failure)))
            continue
        try:
            sure = reco.match(
                _refinement(row, found), [query.scores], modality=query.kind, precision=asked.precision,
                absent=asked.absent,
            )  # fmt: skip
        except RecoError as error:
            error.args = (str(error).replace("scores[0]", f"queries[{number}].scores"),)
            raise
        items.append(_item(number, sure))
        cutoffs.setdefault(query.kind, {})[sure.way] = _shown(sure.cutoffs)
    return MatchList(data=items, cutoffs=cutoffs)


def _item(number: int, sure: Matches) -> MatchItem:
    passes = {by: None if verdict is None else bool(verdict[0]) for by, verdict in sure.verdicts.items()}
    return MatchItem(index=number, first=sure.first[0], none=sure.none[0], passes=passes, way=sure.way)


def _refinement(row: AnswerRow, found: Embedded) -> Refinement:
    """One row as the library has it."""
    refined = row.refined or row.scale is not None
    return Refinement(
        row.vector[None],
        row.frozen[None],
        degraded=found.degraded,
        coverage=Coverage(1, 1) if refined else None,
        scale=None if row.scale is None else np.asarray([row.scale], np.float32),
    )


def _shown(cutoffs: Cutoffs) -> dict[str, Any]:
    by: dict[str, Any] = {one: None if (promise := cutoffs.of[one]) is None else asdict(promise) for one in BY}
    return {"precision": cutoffs.precision, "absent": cutoffs.absent, **by, "why": cutoffs.why or None}
