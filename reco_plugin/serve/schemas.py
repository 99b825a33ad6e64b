"""JSON models that our own routes share; the dialects have their own."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    model_validator,
)

from ..fusion.explain import Why, explain_decision
from ..options import Option, RefineOptions, check_option, check_options, options_of
from ..types import Coverage, Degraded, Modality, Used
from ..values import EXCLUSIONS, unpack
from .embedder import AnswerRow, Embedded, FoundBy
from .failures import Failure, Refused, too_many_items
from .items import Item
from .service_settings import ServeSettings

T = TypeVar("T")
most_items: ContextVar[int] = ContextVar("most_items", default=ServeSettings.model_fields["max_items"].default)
"""The setting ``max_items`` while a request is read; FastAPI cannot pass pydantic a context."""
_MOST_FIELDS = 100


def check_length(given: Any, info: ValidationInfo) -> Any:
    """Check the length of a list before its items are parsed.

    Raises:
        Refused: 413, more than ``max_items``.
    """
    if isinstance(given, list) and len(given) > most_items.get():
        raise Refused(too_many_items(len(given), most_items.get(), info.field_name))
    return given


Items = Annotated[list[T], Field(fail_fast=True), BeforeValidator(check_length)]
"""A list that may be long: parsing stops at the first bad item, since each costs more than a good one."""


def _of_base64(given: Any) -> Any:
    return unpack(given, (-1,), "a vector").tolist() if isinstance(given, str) else given


JsonVector = Annotated[
    list[float],
    Field(min_length=1, fail_fast=True),
    BeforeValidator(_of_base64, json_schema_input_type=list[float] | str),
]
"""A vector as numbers, or as base64 of little-endian float32, which is a fifth as long."""


Numbers = Annotated[Any, WithJsonSchema({"type": "array", "items": {"type": "number"}})]
"""A vector (D,) of an answer, which is written from its array."""


class Strict(BaseModel):
    """An unknown field is an error."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: Any) -> Any:
        """One error instead of one for each of many unknown fields."""
        if isinstance(given, dict) and len(given) > _MOST_FIELDS:
            raise ValueError(f"there are {len(given):,} fields, known are only: {', '.join(cls.model_fields)}")
        return given


class TextOrImage(Strict):
    """A text or an image."""

    text: str | None = None
    image: str | None = Field(None, description="data URI or base64")

    @model_validator(mode="after")
    def _one_of_both(self) -> TextOrImage:
        if (self.text is None) == (self.image is None):
            raise ValueError("give text or image, and not both")
        return self

    def to_item(self) -> Item:
        """The same for the embedder."""
        return Item(self.text or self.image or "", "image" if self.text is None else "text")


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

    def to_item(self) -> Item:
        """The same for the embedder."""
        return Item(next(one for one in (self.text, self.image, self.vector) if one is not None), self.kind)


_WIRE: dict[str, Any] = {  # where JSON says it in another way than Python
    "where": dict[str, Any] | None,
    "exclude": Annotated[list[str] | None, Field(fail_fast=True, max_length=EXCLUSIONS)],
}
if TYPE_CHECKING:

    class _Options(Strict):
        """A field for each option."""

else:

    def _field(name: str, kind: Any, option: Option) -> Any:
        """The option as a field; its own check comes first, since it has one error, and pydantic one per type."""
        kind = _WIRE.get(name, kind)
        if option.check is not None and option.min is None:
            kind = Annotated[kind, BeforeValidator(partial(check_option, name))]
        return (kind, Field(None, ge=option.min, description=option.description))

    _Options = create_model(
        "_Options",
        __base__=Strict,
        **{name: _field(name, *one) for name, one in options_of(RefineOptions).items() if one[1].sent},
    )


class HowToRefine(_Options):
    """Options of a refinement; the model and the settings decide what is left out."""

    def options(self) -> RefineOptions:
        """As options for the embedder."""
        return check_options({name: getattr(self, name) for name in HowToRefine.model_fields})


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """The shape of an error, OpenAI's."""

    error: ErrorBody


_REFUSALS: dict[int | str, str] = {
    400: "bad input; fields that are missing, unknown or of a wrong type",
    401: "no key, or a wrong one",
    403: "not for this caller, or sent to an unknown host",
    404: "no such model, or pair",
    413: "body, image, text or batch too large",
    415: "not an image",
    429: "queue full, or too much is sent at once; see Retry-After",
    503: "the memory or the model server is down",
    504: "deadline passed",
    "4XX": "refused for another reason",
}


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "model": ErrorAnswer} for status, text in _REFUSALS.items()
}
"""Documented failures of our own routes."""


class Threshold(BaseModel):
    """The threshold of one query, on the scales of engines."""

    cosine: float
    distance: float
    """1 - cosine, as of pgvector's ``<=>`` and of Weaviate."""
    score: float
    """(1 + cosine) / 2, as OpenSearch, Elasticsearch and Solr have it."""

    @classmethod
    def of(cls, cosine: float) -> Threshold:
        """Of a cosine."""
        return cls(cosine=cosine, distance=1.0 - cosine, score=(1.0 + cosine) / 2.0)


class RefinedItem(BaseModel):
    """One answer, in the order of the request."""

    index: int
    embedding: Numbers
    refined: bool = False
    """Whether it differs from the frozen vector."""
    plain: str | None = None
    """Why it was to be refined and stays plain."""
    moved: float = 0.0
    """Cosine distance from the frozen vector."""
    scale: tuple[float, float] | None = None
    """Of a refined query: a score of it times the first, plus the second, is on the scale of plain scores."""
    presence: float | None = None
    """Of a query, from 0 to 1: whether the memory holds it. A rank among like queries, no probability in general."""
    found_by: FoundBy | None = None
    """Whether captions with the query's words stood in for it, or its vector found pairs; none where it found none."""
    word_ids: list[str] | None = None
    """Of the pairs that were found by words: an application may put them first."""
    threshold: Threshold | None = None
    """From which a first result is right, where the settings say how many documents the index has."""
    truncated: bool = False
    reason: str | None = None
    """Why it moved as far as it did, in words; only with an explanation, and with a gate."""
    why: Why | None = None
    """The same in figures."""
    used: list[Used] | None = None
    """Nearest first; only with an explanation."""
    frozen: Numbers = None
    """The vector before refinement; only with an explanation."""


class RefinedList(BaseModel):
    """All answers."""

    data: list[RefinedItem]
    dimension: int
    degraded: Degraded | None = None
    """Why vectors are frozen although refinement was on."""
    coverage: dict[Modality, Coverage] = {}
    """What the memory knows of the vectors of each modality that was to be refined."""
    decided: dict[Modality, str] = {}
    """What was decided about them and why, in words."""


def refined_list(answer: Embedded) -> RefinedList:
    """An answer of the embedder as JSON."""
    return RefinedList.model_construct(
        data=[_item(number, row) for number, row in enumerate(answer.rows)],
        dimension=len(answer.rows[0].vector),
        degraded=answer.degraded,
        coverage=dict(answer.coverage),
        decided={modality: explain_decision(one) for modality, one in answer.coverage.items()},
    )


def _item(number: int, row: AnswerRow) -> RefinedItem:
    return RefinedItem.model_construct(
        index=number,
        embedding=row.vector,
        refined=row.refined,
        plain=row.plain or None,
        moved=row.moved,
        scale=row.scale,
        presence=row.presence,
        found_by=row.found_by,
        word_ids=list(row.word_ids) or None,
        threshold=None if row.least is None else Threshold.of(row.least),
        truncated=row.truncated,
        reason=None if row.why is None else str(row.why),
        why=row.why,
        used=None if row.used is None else list(row.used),
        frozen=row.frozen if row.used is not None else None,
    )


def error_body(failure: Failure) -> ErrorBody:
    """A failure as JSON."""
    return ErrorBody(message=failure.message, type=failure.kind, param=failure.param, code=failure.code)
