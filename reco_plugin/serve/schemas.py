"""JSON models that our own routes share. The dialects have theirs."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, TypeVar

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

from ..fusion.explain import Why
from ..options import Option, RefineOptions, check_option, check_options, options_of
from ..types import Modality, Used
from ..values import EXCLUSIONS, unpack
from .failures import Refused, too_many_items
from .service_settings import ServeSettings
from .wire import Item

T = TypeVar("T")
MatchedBy: TypeAlias = Literal["words", "neighbours"]
max_items: ContextVar[int] = ContextVar("max_items", default=ServeSettings.model_fields["max_items"].default)
"""The setting ``max_items`` while a body is parsed. FastAPI cannot pass a context to pydantic."""
_MAX_FIELDS = 100


def check_length(value: Any, info: ValidationInfo) -> Any:
    """Refuse a list of more than ``max_items`` (413) before its items are parsed."""
    if isinstance(value, list) and len(value) > max_items.get():
        raise Refused(too_many_items(len(value), max_items.get(), info.field_name))
    return value


Items = Annotated[list[T], Field(fail_fast=True), BeforeValidator(check_length)]
"""A list that may be long. Parsing stops at the first bad item, since a bad item costs more than a good one."""


def _decode_vector(value: Any) -> Any:
    return unpack(value, (-1,), "a vector").tolist() if isinstance(value, str) else value


JsonVector = Annotated[
    list[float],
    Field(min_length=1, fail_fast=True),
    BeforeValidator(_decode_vector, json_schema_input_type=list[float] | str),
]
"""A vector as numbers, or as base64 of little-endian float32, which is a fifth as long."""
Numbers = Annotated[Any, WithJsonSchema({"type": "array", "items": {"type": "number"}})]
"""A vector (D,) of an answer, which is written from its array."""


class Strict(BaseModel):
    """A body in which an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _limit_fields(cls, value: Any) -> Any:
        """Report many unknown fields in one error."""
        if isinstance(value, dict) and len(value) > _MAX_FIELDS:
            raise ValueError(f"there are {len(value):,} fields, known are only: {', '.join(cls.model_fields)}")
        return value


class TextOrImage(Strict):
    """A text or an image."""

    forms: ClassVar = "text or image, and not both"
    text: str | None = None
    image: str | None = Field(None, description="data URI or base64")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if len(self._contents()) != 1:
            raise ValueError(f"give {self.forms}")
        return self

    def _contents(self) -> list[Any]:
        return [one for one in (self.text, self.image) if one is not None]

    @property
    def kind(self) -> Modality:
        """The modality of the content."""
        return "image" if self.text is None else "text"

    def to_item(self) -> Item:
        """Convert for the embedder."""
        [content] = self._contents()
        return Item(content, self.kind)


class QueryBody(TextOrImage):
    """A text, an image or a vector."""

    forms = "one of text, image and vector"
    vector: JsonVector | None = Field(None, description="the plain CLIP vector of the query")
    modality: Modality = Field("text", description="what the vector embeds")

    def _contents(self) -> list[Any]:
        return super()._contents() if self.vector is None else [*super()._contents(), self.vector]

    @property
    def kind(self) -> Modality:
        """The modality of the content."""
        return super().kind if self.vector is None else self.modality


_JSON_TYPES: dict[str, Any] = {  # of options whose JSON differs from Python
    "where": dict[str, Any] | None,
    "exclude": Annotated[list[str] | None, Field(fail_fast=True, max_length=EXCLUSIONS)],
}
if TYPE_CHECKING:

    class _Options(Strict):
        """A field for each option."""

else:

    def _field(name: str, kind: Any, option: Option) -> Any:
        """Make a field of an option. Its own check runs first: it reports one error, and pydantic one per type."""
        kind = _JSON_TYPES.get(name, kind)
        if option.check is not None and option.min is None:
            kind = Annotated[kind, BeforeValidator(partial(check_option, name))]
        return (kind, Field(None, ge=option.min, description=option.description))

    _Options = create_model(
        "_Options",
        __base__=Strict,
        **{name: _field(name, *one) for name, one in options_of(RefineOptions).items() if one[1].sent},
    )


class HowToRefine(_Options):
    """Options of a refinement. The settings and the model decide what is left out."""

    def options(self) -> RefineOptions:
        """Convert for the embedder."""
        return check_options({name: getattr(self, name) for name in HowToRefine.model_fields})


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """An error in OpenAI's format."""

    error: ErrorBody


_STATUSES: dict[int | str, str] = {
    400: "bad input; fields that are missing, unknown or of a wrong type",
    401: "no key, or a wrong one",
    403: "the key lacks the right, or the host is unknown",
    404: "no such model, or pair",
    413: "body, image, text or batch too large",
    415: "not an image",
    429: "the queue is full, or too many bytes wait; see Retry-After",
    503: "the memory or the model server is down",
    504: "deadline passed",
    "4XX": "refused for another reason",
}


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "model": ErrorAnswer} for status, text in _STATUSES.items()
}
"""Documented failures of our own routes."""


class Threshold(BaseModel):
    """The threshold of one query, on the scales of engines."""

    cosine: float
    distance: float
    """1 - cosine, as in Weaviate and in pgvector's ``<=>``."""
    score: float
    """(1 + cosine) / 2, as in OpenSearch, Elasticsearch and Solr."""

    @classmethod
    def of(cls, cosine: float) -> Threshold:
        """Convert a cosine."""
        return cls(cosine=cosine, distance=1.0 - cosine, score=(1.0 + cosine) / 2.0)


class RefinedItem(BaseModel):
    """The vector of one input, in the order of the request."""

    index: int
    embedding: Numbers
    """The vector (D,) of norm 1."""
    refined: bool = False
    """Whether it differs from the frozen vector."""
    plain: str | None = None
    """Why a vector that should be refined stays plain."""
    moved: float = 0.0
    """Cosine distance from the frozen vector."""
    scale: tuple[float, float] | None = None
    """Of a refined query: a score times the first number, plus the second, is on the scale of plain scores."""
    presence: float | None = None
    """Of a query, from 0 to 1: whether the memory holds the answer. A rank among similar queries, not a probability."""
    matched_by: MatchedBy | None = None
    """Of a query: `words` if captions with its words stood in for it, `neighbours` if its vector retrieved pairs."""
    word_ids: list[str] | None = None
    """Ids of the pairs whose captions have the words of the query. An application may rank them first."""
    threshold: Threshold | None = None
    """From which score on a first result is right. Needs the setting `documents`."""
    truncated: bool = False
    """Whether the text was cut."""
    tokens: int = Field(0, exclude=True)
    """Of the text, after truncation; 0 for images and vectors."""
    reason: str | None = None
    """Why it moved so far, in words. Only in an explanation, and with a gate."""
    why: Why | None = None
    """The figures behind `reason`."""
    used: list[Used] | None = None
    """The pairs that were used, nearest first. Only in an explanation."""
    frozen: Numbers = None
    """The vector before refinement. Only in an explanation."""
