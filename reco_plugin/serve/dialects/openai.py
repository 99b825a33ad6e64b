"""``POST /v1/embeddings``: OpenAI's request, Jina's objects, NIM's ``data:image/…`` strings, Voyage's text fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator

from ...options import RefineOptions
from ..app_state import Edge
from ..embedder import AnswerRow, Embedded, Embedder
from ..failures import Failure, Refused
from ..items import Item, is_data_uri
from ..request_context import Life
from ..routing import life_of, shape_for_all
from ..schemas import HowToRefine, Items, Strict, Threshold, check_length
from .shared import (
    Cut,
    Wanted,
    answer,
    check_offered,
    cut_to,
    dialect_router,
    numbered,
    side_of,
    truncates,
    write_vector,
)

WORDS = 'a text, a data:image/… string, {"text": …}, {"image": …}, or a list of these'
"""The forms of an item, for messages and the OpenAPI document."""
_NO_IDS = (
    "token ids are not read, since the tokenizer here is CLIP's: send texts"
    " (in LangChain's OpenAIEmbeddings, set check_embedding_ctx_length=False)"
)
_KINDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "a list in a list"}
Form = Literal["float", "base64"]


def read_input(value: Any, info: ValidationInfo) -> list[list[Item]]:
    """The parts of each input; a bad one is reported in one sentence.

    Raises:
        ValueError: no input, or another form.
        Refused: token ids (400), or too many items (413).
    """
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError(f"the list is empty; give {WORDS}")
    if _are_ids(items) or (all(isinstance(one, list) for one in items) and all(map(_are_ids, items))):
        raise Refused(Failure(400, "token_ids_refused", _NO_IDS, "input"))
    check_length(value, info)
    parts = [_parts_of(one) for one in items]
    pictured = any(part.is_picture for some in parts for part in some or ())
    for index, (one, some) in enumerate(zip(items, parts, strict=True)):
        if some is None or not (some or pictured):
            raise ValueError(f"item {index} is {_KINDS.get(type(one), 'another object')}; give {WORDS}")
    return [some or [] for some in parts]


def _parts_of(one: Any) -> list[Item] | None:
    """An item as parts; None of another form. Weaviate's module for Jina sends {} for a title that is empty."""
    match one:
        case str():
            return [Item(one, "image" if is_data_uri(one) else "text")]
        case {"text": str(text)} if len(one) == 1:
            return [Item(text, "text")]
        case {"image": str(image)} if len(one) == 1:
            return [Item(image, "image")]
    return [] if one == {} else None


def _are_ids(items: list[Any]) -> bool:
    return bool(items) and all(type(one) is int for one in items)


_ONE: Any = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        {"type": "object", "properties": {"image": {"type": "string"}}, "required": ["image"]},
    ]
}
Input: TypeAlias = Annotated[
    Any, BeforeValidator(read_input), WithJsonSchema({"anyOf": [_ONE, {"type": "array", "items": _ONE, "minItems": 1}]})
]
"""The field ``input``."""


class EmbeddingsRequest(Strict):
    """OpenAI's fields first, then Jina's, NIM's and Voyage's, then ours."""

    input: Input = Field(description=WORDS)
    model: str | None = Field(None, description="alias: of GET /v1/models")
    encoding_format: Form | None = None
    dimensions: int | None = Field(None, description="the model's own, or one that it was trained to be cut to")
    user: str | None = Field(None, description="ignored")
    metadata: dict[str, Any] | None = Field(None, description="Mistral's; ignored")

    input_type: str | None = Field(None, description="query or document (also passage, search_query, search_document)")
    task: str | None = Field(None, description="retrieval.query or retrieval.passage")
    embedding_type: str | None = Field(None, description="float or base64")
    normalized: bool | None = Field(None, description="ignored: all vectors have norm 1")
    truncate: Cut | bool | None = Field(None, description="false, NONE or START: refuse long texts")
    truncation: bool | None = Field(None, description="as truncate")
    modality: Literal["text", "image"] | Items[Literal["text", "image"]] | None = Field(
        None, description="image: strings are images; a list has a word for each item"
    )
    output_dimension: int | None = Field(None, description="as dimensions")
    output_dtype: str | None = Field(None, description="only float")
    encoding_type: str | None = Field(None, description="as embedding_type; LlamaIndex's name")

    refine: bool | None = Field(None, description="final, whatever alias, prefix, role and settings say")
    reco: HowToRefine | None = Field(None, description="how to refine, for this request")

    @model_validator(mode="before")
    @classmethod
    def _not_multimodal(cls, given: Any) -> Any:
        if isinstance(given, dict) and "input" not in given and "inputs" in given:
            raise ValueError("this is a request of Voyage's multimodal API (inputs): it is at /v1/multimodalembeddings")
        return given

    @property
    def form(self) -> str:
        """How vectors are written."""
        return "base64" if "base64" in (self.encoding_format, self.embedding_type, self.encoding_type) else "float"

    def to_wanted(self, embedder: Embedder) -> Wanted:
        """The same for the embedder.

        Raises:
            Refused: a field that needs another model.
        """
        check_offered("embedding_type", self.embedding_type, ("float", "base64"))
        check_offered("encoding_type", self.encoding_type, ("float", "base64"))
        check_offered("output_dtype", self.output_dtype, ("float",))
        words = self.modality if isinstance(self.modality, list) else [self.modality] * len(self.input)
        if len(words) != len(self.input):
            message = "modality must have as many words as input has items"
            raise Refused(Failure(400, "invalid_request", message, "modality"))
        inputs = (
            [Item(part.content, "image") for part in parts] if word == "image" else parts
            for parts, word in zip(self.input, words, strict=True)
        )
        return Wanted(
            inputs=numbered("input", inputs),
            model=self.model,
            side=side_of(input_type=self.input_type, task=self.task),
            refine=self.refine,
            truncate=truncates(truncate=self.truncate, truncation=self.truncation),
            options=self.reco.options() if self.reco else RefineOptions(),
            cut=cut_to(embedder, dimensions=self.dimensions, output_dimension=self.output_dimension),
        )


def router(edge: Edge) -> APIRouter:
    """The route."""
    routes = dialect_router(shape_for_all)

    @routes.post("/embeddings", include_in_schema=False)  # a base URL without /v1
    @routes.post("/openai/v1/embeddings", include_in_schema=False)  # of Azure
    @routes.post("/v1/embeddings")
    async def openai_embeddings(request: Request, body: EmbeddingsRequest) -> Response:
        """Embed texts and images; OpenAI's API, with Jina's objects and NIM's data URIs as further inputs."""
        life = life_of(request)
        return await answer(life, body.to_wanted(edge.embedder), lambda found: _written(found, body, life))

    @routes.post("/openai/deployments/{deployment:path}/embeddings", include_in_schema=False)
    async def azure_embeddings(request: Request, deployment: str, body: EmbeddingsRequest) -> Response:
        """The same under Azure's path; the deployment is the model."""
        return await openai_embeddings(request, body.model_copy(update={"model": deployment}))

    return routes


def _written(found: Embedded, body: EmbeddingsRequest, life: Life) -> dict[str, Any]:
    """OpenAI's answer, with the ``id`` that Mistral's clients need: that of the request, as ``x-request-id``."""
    return {
        "id": life.id,
        "object": "list",
        "data": [_embedding(number, row, body) for number, row in enumerate(found.rows)],
        "model": body.model or next(iter(life.edge.embedder.aliases)),
        "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
    }


def _embedding(number: int, row: AnswerRow, body: EmbeddingsRequest) -> dict[str, Any]:
    """One vector; what was found, and how far it moved, where the request has ``reco``."""
    one = {"object": "embedding", "index": number, "embedding": write_vector(row.vector, body.form)}
    if row.truncated:
        one["truncated"] = True
    if body.reco is not None:
        told = {
            "scale": row.scale,
            "presence": row.presence,
            "found_by": row.found_by,
            "word_ids": row.word_ids or None,
            "threshold": None if row.least is None else Threshold.of(row.least),
        }
        one |= {"moved": row.moved, **{name: value for name, value in told.items() if value is not None}}
    return one
