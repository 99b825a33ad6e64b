"""``/v1/memory/feedback``: reject a wrong answer to a query, list rejections, and withdraw them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from ..signals.opinions import Judgment, Opinion
from ..types import other
from .app_state import AppState
from .auth import MEMORY_PATH
from .embedder import Embedder
from .routing import context_of, own_routes
from .schemas import Items, JsonVector, QueryBody, Strict
from .wire import Item, with_nulls

OpinionIds = Annotated[list[str], Query(alias="id", min_length=1, description="id of an opinion; repeat it for more")]


class JudgmentBody(QueryBody):
    """One answer to one query, and whether it is right."""

    pair: str | None = Field(None, description="id of the pair that was the answer")
    answer_vector: JsonVector | None = Field(None, description="in place of a pair: of the other modality")
    right: bool = Field(False, description="the answer is right: withdraws an earlier rejection")
    by: str = Field("", description="who judges")

    @model_validator(mode="after")
    def _check_answer(self) -> JudgmentBody:
        if (self.pair is None) == (self.answer_vector is None):
            raise ValueError("give pair or answer_vector, and not both")
        return self

    def to_judgment(self, embedder: Embedder, name: str) -> Judgment:
        """Encode the query and the answer; ``name`` is the field, for messages."""
        answer = None
        if self.answer_vector is not None:
            answer = embedder.embed_one(Item(self.answer_vector, other(self.kind)), name)
        query = embedder.embed_one(self.to_item(), name)
        return Judgment(query, self.kind, self.pair, answer, self.right, self.by)


class JudgmentsBody(Strict):
    """Judgments. All of them are stored, or none."""

    judgments: Items[JudgmentBody] = Field(min_length=1)


class OpinionList(BaseModel):
    """Opinions, oldest first."""

    data: list[Opinion]
    opinions: int
    """Number of opinions in the memory now."""
    version: int


class Withdrawn(BaseModel):
    """How many of the ids existed, and how many opinions are left."""

    withdrawn: int
    opinions: int
    version: int


def router(state: AppState) -> APIRouter:
    """Make the routes."""
    routes = own_routes("memory", MEMORY_PATH)
    embedder, memory = state.embedder, state.embedder.reco.memory

    @routes.post("/feedback", response_model=OpinionList)
    async def give_feedback(request: Request, body: JudgmentsBody) -> Response:
        """Judge answers to queries. The feedback is stored when this answers."""
        return await context_of(request).write(lambda: with_nulls(judge(embedder, body)))

    @routes.get("/feedback", response_model=OpinionList)
    async def show_feedback(request: Request) -> Response:
        """List all feedback."""

        def listed() -> dict[str, Any]:
            opinions = list(memory.opinions)
            return with_nulls(OpinionList(data=opinions, opinions=len(opinions), version=memory.version))

        return await context_of(request).read(listed)

    @routes.delete("/feedback", response_model=Withdrawn)
    async def withdraw_feedback(request: Request, ids: OpinionIds) -> Response:
        """Delete feedback by id; unknown ids are no error."""
        embedder.check_number(len(ids), "id")

        def withdraw() -> Withdrawn:
            return Withdrawn(withdrawn=memory.withdraw(ids), opinions=memory.opinions_known, version=memory.version)

        return await context_of(request).write(withdraw)

    return routes


def judge(embedder: Embedder, body: JudgmentsBody) -> OpinionList:
    """Encode queries and answers, and store the judgments. If one of them cannot be read, nothing is stored."""
    embedder.check_images(sum(one.image is not None for one in body.judgments))
    memory = embedder.reco.memory
    judgments = [one.to_judgment(embedder, f"judgments[{index}]") for index, one in enumerate(body.judgments)]
    stored = memory.judge(judgments)
    return OpinionList(data=list(stored), opinions=memory.opinions_known, version=memory.version)
