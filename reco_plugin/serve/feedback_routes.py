"""``/v1/memory/feedback``: say what is not what was asked for, look at it and take it back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from ..signals.opinions import Judgment, Opinion
from ..types import other
from .app_state import Edge
from .embedder import Embedder
from .failures import Refused, too_many_items
from .items import Item
from .routing import life_of, memory_routes
from .schemas import Items, JsonVector, QueryBody, Strict
from .wire import with_nulls

OpinionIds = Annotated[list[str], Query(alias="id", min_length=1, description="id of an opinion; repeat it for more")]


class JudgmentBody(QueryBody):
    """One answer to one query, and whether it is right."""

    pair: str | None = Field(None, description="id of the pair that was the answer")
    answer_vector: JsonVector | None = Field(None, description="in place of a pair: of the other modality")
    right: bool = Field(False, description="it is right: takes back what was said before")
    by: str = Field("", description="who says so")

    @model_validator(mode="after")
    def _one_answer(self) -> JudgmentBody:
        if (self.pair is None) == (self.answer_vector is None):
            raise ValueError("give pair or answer_vector, and not both")
        return self

    @property
    def answer(self) -> Item | None:
        """The answer for the preparation; None where a pair is named."""
        return None if self.answer_vector is None else Item(self.answer_vector, other(self.kind))


class JudgmentsBody(Strict):
    """What is said; all of it is stored, or nothing."""

    judgments: Items[JudgmentBody] = Field(min_length=1)


class OpinionList(BaseModel):
    """Opinions, oldest first."""

    data: list[Opinion]
    opinions: int
    """That the memory keeps now."""
    version: int


class Withdrawn(BaseModel):
    """How many of the ids were there."""

    withdrawn: int
    opinions: int
    version: int


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = memory_routes()
    embedder, memory = edge.embedder, edge.embedder.reco.memory

    @routes.post("/feedback", response_model=OpinionList)
    async def give_feedback(request: Request, body: JudgmentsBody) -> Response:
        """Say what is not what was asked for; stored when this answers."""
        return await life_of(request).write(lambda: with_nulls(judge(embedder, body)))

    @routes.get("/feedback", response_model=OpinionList)
    async def show_feedback(request: Request) -> Response:
        """All that was said."""

        def show() -> dict[str, Any]:
            said = list(memory.opinions)
            return with_nulls(OpinionList(data=said, opinions=len(said), version=memory.version))

        return await life_of(request).reply(show)

    @routes.delete("/feedback", response_model=Withdrawn)
    async def withdraw_feedback(request: Request, ids: OpinionIds) -> Response:
        """Forget opinions by id; unknown ids are no error."""
        if len(ids) > (most := edge.settings.max_items):
            raise Refused(too_many_items(len(ids), most, "id"))

        def withdraw() -> Withdrawn:
            return Withdrawn(withdrawn=memory.withdraw(ids), opinions=memory.opinions_known, version=memory.version)

        return await life_of(request).write(withdraw)

    return routes


def judge(embedder: Embedder, asked: JudgmentsBody) -> OpinionList:
    """Encode queries and answers, and store what is said of them.

    Raises:
        Refused: an item cannot be read; nothing is stored.
        InputError: a pair that is gone, a name that is too long, or the memory is full of opinions.
        MemoryStoreError: the memory cannot be written.
    """
    embedder.check_images(one.image is not None for one in asked.judgments)
    memory = embedder.reco.memory

    def said(one: JudgmentBody, name: str) -> Judgment:
        answer = None if one.answer is None else embedder.vector(one.answer, name)
        return Judgment(embedder.vector(one.to_item(), name), one.kind, one.pair, answer, one.right, one.by)

    stored = memory.judge([said(one, f"judgments[{number}]") for number, one in enumerate(asked.judgments)])
    return OpinionList(data=list(stored), opinions=memory.opinions_known, version=memory.version)
