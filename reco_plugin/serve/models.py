"""``GET /v1/models``: the aliases, and the properties of their vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ..calibration.closed_form import NOT_CALIBRATED
from ..errors import MemoryStoreError
from ..reco import Reco
from ..types import Caution, FuserName, Target
from .edge import Edge
from .failures import Failure, Refused
from .routes import answering_in, openai_shape
from .schemas import ERRORS
from .settings import Manner
from .wire import with_nulls


class Sides(BaseModel):
    """Which sides an alias refines, if a request says which side it is."""

    query_text: bool
    query_image: bool


class MemoryState(BaseModel):
    """The pairs that are retrieved from."""

    pairs: int | None
    """None while the memory is down."""
    kind: str
    version: int
    """Another number after each change through this service."""
    calibrated: bool
    """Whether it has learned how far its pairs can be trusted."""
    plain: str
    """Why nothing, or one side, is refined; empty where all is."""
    check: str | None
    """What refinement does to its own pairs, each hidden from itself: right in sign only; None: too few pairs."""


class Model(BaseModel):
    """One alias."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "reco-plugin"
    type: Literal["base"] = "base"
    """Mistral's clients need this and ``capabilities``, which are about chats."""
    capabilities: dict[str, bool] = {}
    refinement: Manner
    refines: Sides
    name: str
    dimension: int
    matryoshka: list[int] = []
    """Dimensions that may be asked for besides, since the encoder was trained to be cut."""
    normalized: bool = True
    """All vectors have an L2 norm of 1."""
    context_length: int
    max_context_length: int
    """The same by Mistral's name."""
    image_size: tuple[int, int]
    """(height, width) in pixels, after resizing."""
    fingerprint: str
    """sha256 of the encoder: vectors of the same fingerprint may be compared, whatever their alias."""
    k: int
    caution: Caution | float
    """Unless a request says otherwise."""
    fuser: FuserName
    """Likewise."""
    target: Target
    """What refined vectors are compared with: images, texts or both, unless a request says otherwise."""
    fusers: list[FuserName]
    """Which a request may name."""
    memory: MemoryState


class CohereModel(BaseModel):
    """One alias as Cohere's clients read it."""

    name: str
    """The alias."""
    endpoints: list[str] = ["embed"]
    context_length: int


class ModelList(BaseModel):
    """All aliases."""

    object: Literal["list"] = "list"
    data: list[Model]
    models: list[CohereModel]
    """The same for Cohere's clients, whose list is at this path, too."""


def router(edge: Edge) -> APIRouter:
    """``GET /v1/models`` and ``GET /v1/models/{model}``."""
    routes = APIRouter(route_class=answering_in(openai_shape), tags=["models"], responses=ERRORS)

    def models() -> dict[str, Model]:
        state = _memory(edge.embedder.reco)
        return {name: _model(name, manner, edge, state) for name, manner in edge.embedder.aliases.items()}

    @routes.get("/models", response_model=ModelList, include_in_schema=False)  # for a base URL without /v1
    @routes.get("/openai/models", response_model=ModelList, include_in_schema=False)  # of Azure
    @routes.get("/openai/v1/models", response_model=ModelList, include_in_schema=False)
    @routes.get("/v1/models", response_model=ModelList)
    async def list_models(request: Request) -> Response:
        """All aliases of the model, with dimension, normalisation, fingerprint and the size of the memory."""
        return await edge(request).reply(lambda: with_nulls(_list(models().values())))

    @routes.get("/models/{model}", response_model=Model, include_in_schema=False)
    @routes.get("/openai/models/{model}", response_model=Model, include_in_schema=False)
    @routes.get("/openai/v1/models/{model}", response_model=Model, include_in_schema=False)
    @routes.get("/v1/models/{model}", response_model=Model)
    async def one_model(request: Request, model: str) -> Response:
        """One alias."""
        if model not in (known := edge.embedder.aliases):
            message = f"there is no model {model!r:.80} here, only: {', '.join(known)}"
            raise Refused(Failure(404, "model_not_found", message, "model"))
        return await edge(request).reply(lambda: with_nulls(models()[model]))

    return routes


def _list(models: Iterable[Model]) -> ModelList:
    every = list(models)
    named = [CohereModel(name=one.id, context_length=one.context_length) for one in every]
    return ModelList(data=every, models=named)


def _memory(reco: Reco) -> MemoryState:
    memory = reco.memory
    try:
        pairs = len(memory)
    except MemoryStoreError:
        pairs = None
    return MemoryState(pairs=pairs, kind=memory.kind, version=memory.version, **describe_calibration(reco))


def describe_calibration(reco: Reco) -> dict[str, Any]:
    """Whether the memory is ``calibrated``, why something stays ``plain``, and its self-``check`` in a line."""
    calibration = reco.memory.calibration
    if calibration is None:
        return {"calibrated": False, "plain": reco.memory.learner.unfinished or NOT_CALIBRATED, "check": None}
    return {
        "calibrated": True,
        "plain": calibration.reason,
        "check": None if calibration.check is None else str(calibration.check),
    }


def _model(name: str, manner: Manner, edge: Edge, state: MemoryState) -> Model:
    embedder = edge.embedder
    manifest, chosen = embedder.reco.manifest, embedder.reco.defaults
    sides = {f"query_{side}": manner != "plain" and refined for side, refined in embedder.policy.items()}
    return Model(
        id=name,
        refinement=manner,
        refines=Sides(**sides),
        name=manifest.name,
        dimension=manifest.dimension,
        matryoshka=list(manifest.matryoshka),
        context_length=manifest.text.context_length,
        max_context_length=manifest.text.context_length,
        image_size=manifest.image.size,
        fingerprint=manifest.digest,
        k=chosen["k"],
        caution=chosen["caution"],
        target=embedder.target,
        fuser=chosen["fuser"],
        fusers=list(manifest.fusers),
        memory=state,
    )
