"""``POST /api/embed`` and ``/api/embeddings``, and what Ollama's clients ask before: which models there are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from ... import __version__
from ..edge import Edge
from ..embedder import Embedded, manner_of, split_target
from ..pool import as_written
from ..schemas import Items, Strict
from .shared import Wanted, answer, cut_to, dialect_router, numbered, truncates

_LATEST = ":latest"  # the tag that Ollama adds to a name without one


class OllamaRequest(Strict):
    """What both routes take."""

    model: str = Field(description="alias: of GET /api/tags")
    options: dict[str, Any] | None = Field(None, description="ignored: of language models")
    keep_alive: float | str | None = Field(None, description="ignored: the model stays loaded")


class OllamaTexts(OllamaRequest):
    """A text or several."""

    input: str | Items[str]
    truncate: bool | None = Field(None, description="false: refuse long texts")
    dimensions: int | None = Field(None, description="the model's own, or one that it was trained to be cut to")


class OllamaPrompt(OllamaRequest):
    """A text, as older clients send it."""

    prompt: str


class OllamaName(BaseModel):
    """Which model; ``verbose`` is ignored."""

    model: str


class OllamaEmbeddings(BaseModel):
    """Ollama's answer; durations are in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int = 0
    prompt_eval_count: int


class OllamaEmbedding(BaseModel):
    """Ollama's older answer."""

    embedding: list[float]


class OllamaDetails(BaseModel):
    """What the model is."""

    format: str = "onnx"
    family: str = "clip"
    families: list[str] = ["clip"]
    parameter_size: str = ""
    quantization_level: str


class OllamaModel(BaseModel):
    """One alias."""

    name: str
    model: str
    size: int = 0
    digest: str
    details: OllamaDetails


class OllamaModels(BaseModel):
    """All aliases."""

    models: list[OllamaModel]


class OllamaShown(BaseModel):
    """The model behind an alias."""

    details: OllamaDetails
    model_info: dict[str, str | int]
    capabilities: list[str] = ["embedding"]


class OllamaError(BaseModel):
    """Ollama's error."""

    error: str


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = dialect_router(OllamaError)
    _add_embedding(routes, edge)
    _add_models(routes, edge)
    return routes


def _add_embedding(routes: APIRouter, edge: Edge) -> None:
    @routes.post("/api/embed", response_model=OllamaEmbeddings)
    async def ollama_embed(request: Request, body: OllamaTexts) -> Response:
        """Embed texts; Ollama's API, where the alias says what is refined."""
        texts = [body.input] if isinstance(body.input, str) else body.input
        wanted = Wanted(
            inputs=numbered("input", ([text] for text in texts)),
            model=_alias(body.model, edge),
            truncate=truncates(truncate=body.truncate),
            cut=cut_to(edge.embedder, dimensions=body.dimensions),
        )

        def write(found: Embedded) -> OllamaEmbeddings:
            return OllamaEmbeddings.model_construct(
                model=body.model,
                embeddings=as_written(found.whole().vectors),
                total_duration=int(sum(found.seconds.values()) * 1e9),
                prompt_eval_count=found.tokens,
            )

        return await answer(edge(request), wanted, write)

    @routes.post("/api/embeddings", response_model=OllamaEmbedding)
    async def ollama_embeddings(request: Request, body: OllamaPrompt) -> Response:
        """Embed a text; Ollama's API before 0.2.6."""
        wanted = Wanted(inputs={"prompt": [body.prompt]}, model=_alias(body.model, edge))

        def write(found: Embedded) -> OllamaEmbedding:
            return OllamaEmbedding.model_construct(embedding=as_written(found.whole().vectors[0]))

        return await answer(edge(request), wanted, write)


def _add_models(routes: APIRouter, edge: Edge) -> None:
    manifest = edge.embedder.reco.manifest
    details = OllamaDetails(quantization_level=manifest.precision)

    @routes.get("/api/tags")
    async def ollama_models() -> OllamaModels:
        """All aliases of the model, as Ollama lists them."""
        names = edge.embedder.aliases
        return OllamaModels(
            models=[OllamaModel(name=name, model=name, digest=manifest.digest, details=details) for name in names]
        )

    @routes.post("/api/show")
    async def ollama_show(body: OllamaName) -> OllamaShown:
        """Context length and dimension of an alias, as Ollama shows them."""
        manner_of(split_target(_alias(body.model, edge))[0], edge.embedder.aliases)
        about: dict[str, str | int] = {
            "general.architecture": "clip",
            "general.basename": manifest.name,
            "clip.context_length": manifest.text.context_length,
            "clip.embedding_length": manifest.dimension,
        }
        return OllamaShown(details=details, model_info=about)

    @routes.get("/api/version")
    async def ollama_version() -> dict[str, str]:
        """The version of this service."""
        return {"version": __version__}


def _alias(model: str, edge: Edge) -> str:
    """The alias that is meant."""
    return model if model in edge.embedder.aliases else model.removesuffix(_LATEST)
