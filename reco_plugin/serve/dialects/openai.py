"""``POST /v1/embeddings`` of OpenAI, with Jina's objects, NIM's ``data:image/…`` strings and Voyage's text fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator

from ...options import RefineOptions
from ..app_state import AppState
from ..embedder import Embedded, Embedder, EmbedRequest
from ..failures import Failure, Refused
from ..request_context import RequestContext
from ..routing import context_of, shape_for_all
from ..schemas import HowToRefine, Items, RefinedItem, Strict, check_length
from ..wire import Item, is_data_uri, numbered, write_vector
from .fields import DIMENSION, Truncate, check_supported, dialect_router, dimension_of, input_type_of, truncates

FORMS = 'a text, a data:image/… string, {"text": …}, {"image": …}, or a list of these'
"""The forms of an item, for messages and the OpenAPI document."""
_REFUSED_IDS = (
    "token ids are not read, since the tokenizer here is CLIP's: send texts"
    " (in LangChain's OpenAIEmbeddings, set check_embedding_ctx_length=False)"
)
_DETAILS = ("moved", "scale", "presence", "matched_by", "word_ids", "threshold")
_KINDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "a list in a list"}


def read_input(value: Any, info: ValidationInfo) -> list[list[Item]]:
    """Return the parts of each input. One sentence reports a bad one; token ids and too many items are refused."""
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError(f"the list is empty; give {FORMS}")
    if _are_token_ids(items) or (all(isinstance(one, list) for one in items) and all(map(_are_token_ids, items))):
        raise Refused(Failure(400, "token_ids_refused", _REFUSED_IDS, "input"))
    check_length(value, info)
    inputs = [_parts(one) for one in items]
    has_images = any(part.is_image for parts in inputs for part in parts or ())
    for index, (one, parts) in enumerate(zip(items, inputs, strict=True)):
        if parts is None or not (parts or has_images):
            raise ValueError(f"item {index} is {_KINDS.get(type(one), 'another object')}; give {FORMS}")
    return [parts or [] for parts in inputs]


def _parts(one: Any) -> list[Item] | None:
    """Return an item as parts; None for another form. Weaviate's module for Jina sends {} for an empty title."""
    match one:
        case str():
            return [Item(one, "image" if is_data_uri(one) else "text")]
        case {"text": str(text)} if len(one) == 1:
            return [Item(text, "text")]
        case {"image": str(image)} if len(one) == 1:
            return [Item(image, "image")]
    return [] if one == {} else None


def _are_token_ids(items: list[Any]) -> bool:
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
    """The request: OpenAI's fields, then Jina's, NIM's and Voyage's, then ours."""

    input: Input = Field(description=FORMS)
    model: str | None = Field(None, description="alias: of GET /v1/models")
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, description=DIMENSION)
    user: str | None = Field(None, description="ignored")
    metadata: dict[str, Any] | None = Field(None, description="Mistral's; ignored")

    input_type: str | None = Field(None, description="query or document (also passage, search_query, search_document)")
    task: str | None = Field(None, description="retrieval.query or retrieval.passage")
    embedding_type: str | None = Field(None, description="float or base64")
    normalized: bool | None = Field(None, description="ignored: all vectors have norm 1")
    truncate: Truncate | bool | None = Field(None, description="false, NONE or START: refuse long texts")
    truncation: bool | None = Field(None, description="as truncate")
    modality: Literal["text", "image"] | Items[Literal["text", "image"]] | None = Field(
        None, description="image: strings are images; a list has a word for each item"
    )
    output_dimension: int | None = Field(None, description="as dimensions")
    output_dtype: str | None = Field(None, description="only float")
    encoding_type: str | None = Field(None, description="as embedding_type; LlamaIndex's name")

    refine: bool | None = Field(None, description="overrules alias, prefix, role and settings")
    reco: HowToRefine | None = Field(None, description="how to refine, for this request")

    @model_validator(mode="before")
    @classmethod
    def _redirect_multimodal(cls, value: Any) -> Any:
        if isinstance(value, dict) and "input" not in value and "inputs" in value:
            raise ValueError("this is a request of Voyage's multimodal API (inputs): it is at /v1/multimodalembeddings")
        return value

    def to_embed(self, embedder: Embedder) -> EmbedRequest:
        """Convert for the embedder. Refuse what this model cannot follow."""
        check_supported("embedding_type", self.embedding_type, ("float", "base64"))
        check_supported("encoding_type", self.encoding_type, ("float", "base64"))
        check_supported("output_dtype", self.output_dtype, ("float",))
        inputs = self.input
        if self.modality is not None:
            modalities = self.modality if isinstance(self.modality, list) else [self.modality] * len(inputs)
            if len(modalities) != len(inputs):
                message = "modality must have as many words as input has items"
                raise Refused(Failure(400, "invalid_request", message, "modality"))
            inputs = [
                [Item(part.content, "image") for part in parts] if modality == "image" else parts
                for parts, modality in zip(inputs, modalities, strict=True)
            ]
        return EmbedRequest(
            numbered("input", inputs),
            model=self.model,
            input_type=input_type_of(input_type=self.input_type, task=self.task),
            refine=self.refine,
            truncate=truncates(truncate=self.truncate, truncation=self.truncation),
            options=self.reco.options() if self.reco else RefineOptions(),
            dimension=dimension_of(embedder, dimensions=self.dimensions, output_dimension=self.output_dimension),
        )

    def to_answer(self, answer: Embedded, context: RequestContext) -> dict[str, Any]:
        """Write OpenAI's answer. Mistral's clients need the ``id``, which is that of the header ``x-request-id``."""
        return {
            "id": context.id,
            "object": "list",
            "data": [self._row(row) for row in answer.rows],
            "model": self.model or next(iter(context.state.embedder.aliases)),
            "usage": {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens},
        }

    def _row(self, row: RefinedItem) -> dict[str, Any]:
        """Write one vector, and how it was refined if the request has ``reco``."""
        formats = (self.encoding_format, self.embedding_type, self.encoding_type)
        vector = write_vector(row.embedding, "base64" if "base64" in formats else "float")
        one = {"object": "embedding", "index": row.index, "embedding": vector}
        if row.truncated:
            one["truncated"] = True
        if self.reco is not None:
            details = {name: getattr(row, name) for name in _DETAILS}
            one |= {name: value for name, value in details.items() if value is not None}
        return one


def router(state: AppState) -> APIRouter:
    """Make the routes."""
    routes = dialect_router(shape_for_all)

    @routes.post("/embeddings", include_in_schema=False)  # for a base URL without /v1
    @routes.post("/openai/v1/embeddings", include_in_schema=False)  # Azure's
    @routes.post("/v1/embeddings")
    async def openai_embeddings(request: Request, body: EmbeddingsRequest) -> Response:
        """Embed texts and images; OpenAI's API, with Jina's objects and NIM's data URIs as further inputs."""
        context = context_of(request)
        return await context.embed(body.to_embed(state.embedder), lambda answer: body.to_answer(answer, context))

    @routes.post("/openai/deployments/{deployment:path}/embeddings", include_in_schema=False)
    async def azure_embeddings(request: Request, deployment: str, body: EmbeddingsRequest) -> Response:
        """Embed under Azure's path, where the deployment is the model."""
        return await openai_embeddings(request, body.model_copy(update={"model": deployment}))

    return routes
