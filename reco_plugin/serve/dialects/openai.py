"""``POST /v1/embeddings``: OpenAI's request, Jina's objects, NIM's ``data:image/…`` strings, Voyage's text fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from ...options import RefineOptions
from ..edge import Edge
from ..embedder import AnswerRow, Embedded, Embedder
from ..failures import Failure, Refused
from ..items import Item, is_data_uri
from ..life import Life
from ..routes import life_of, shape_for_all
from ..schemas import HowToRefine, Items, Strict, check_length
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


class TextInput(Strict):
    """Jina's text."""

    text: str


class NoInput(Strict):
    """Nothing: what Weaviate's module for Jina sends for an empty title, beside a picture."""


class JinaImage(Strict):
    """Jina's image: data URI or base64."""

    image: str


def check_input(value: Any, info: ValidationInfo) -> Any:
    """Report a bad input in one sentence; pydantic would report every alternative for every item.

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
    pictured = any(isinstance(one, dict) and "image" in one for one in items)
    for index, one in enumerate(items):
        if not (isinstance(one, str) or _is_object(one) or (one == {} and pictured)):
            raise ValueError(f"item {index} is {_KINDS.get(type(one), 'another object')}; give {WORDS}")
    return value


def _are_ids(items: list[Any]) -> bool:
    return bool(items) and all(type(one) is int for one in items)


def _is_object(one: Any) -> bool:
    return isinstance(one, dict) and [*one] in (["text"], ["image"]) and isinstance(next(iter(one.values())), str)


One: TypeAlias = str | TextInput | JinaImage | NoInput
Input: TypeAlias = Annotated[One | Items[One], BeforeValidator(check_input)]
"""The field ``input``."""


def parts_of(one: One, word: str | None) -> list[Item]:
    """An item of a checked input as parts; a string is an image where ``word`` says so, or its header."""
    match one:
        case str():
            return [Item(one, "image" if word == "image" or is_data_uri(one) else "text")]
        case TextInput():
            return [Item(one.text, "text")]
        case JinaImage():
            return [Item(one.image, "image")]
        case NoInput():
            return []


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
        items = self.input if isinstance(self.input, list) else [self.input]
        words = self.modality if isinstance(self.modality, list) else [self.modality] * len(items)
        if len(words) != len(items):
            message = "modality must have as many words as input has items"
            raise Refused(Failure(400, "invalid_request", message, "modality"))
        return Wanted(
            inputs=numbered("input", map(parts_of, items, words)),
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

    @routes.post("/openai/deployments/{deployment}/embeddings", include_in_schema=False)
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
    """One vector; ``moved`` and ``scale`` where the request has ``reco``."""
    one = {"object": "embedding", "index": number, "embedding": write_vector(row.vector, body.form)}
    if row.truncated:
        one["truncated"] = True
    if body.reco is not None:
        one["moved"] = row.moved
        if row.scale is not None:
            one["scale"] = row.scale
    return one
