"""``/livez`` and ``/readyz``: alive at once, ready when the first request would be quick and right."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Response
from PIL import Image
from pydantic import BaseModel

from ..data.nearest import did_you_mean
from ..errors import RecoError
from ..memory.header import HEADER_NAME
from ..reco import Reco
from ..types import MODALITIES
from .edge import Edge
from .logs import LOGGER
from .routes import answering_in, openai_shape

log = logging.getLogger(LOGGER)


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """Whether requests should be sent here."""

    status: Literal["ready", "not ready"]
    reasons: list[str]
    """Why not; empty when ready."""
    degraded: list[str]
    """What is down while requests are answered all the same, with frozen vectors."""


@dataclass
class Health:
    """State of one service.

    Attributes:
        edge: pools and Reco.
        warm: whether the graphs are loaded and have run.
        warm_error: why that failed.
        stopping: whether the service is about to end.
    """

    edge: Edge
    warm: bool = False
    warm_error: str | None = None
    stopping: bool = False
    fails: bool = field(init=False)

    def __post_init__(self) -> None:
        self.fails = self.edge.embedder.reco.settings.on_memory_failure == "fail"

    def warm_up(self) -> None:
        """Run every graph once; blocks. A memory that is down does not keep the service from starting."""
        try:
            warm_up(self.edge.embedder.reco)
        except Exception as error:  # whatever it is, liveness must go on answering and readiness must name it
            self.warm_error = f"the models do not run: {error}"
            log.exception("warm-up failed")
        else:
            self.warm = True
            self._warn_of_empty_memory()
            log.info("ready")

    def _warn_of_empty_memory(self) -> None:
        memory = self.edge.embedder.reco.memory
        try:
            if len(memory) == 0:
                where = memory.store.location
                log.warning(
                    "the memory at %s is empty: answers are plain until pairs are added%s", where, _beside(where)
                )
        except RecoError as error:  # it is away, which degraded answers say
            log.info("the pairs cannot be counted: %s", error)

    def ready(self) -> Ready:
        """Look at everything that readiness depends on."""
        reasons = []
        if self.stopping:
            reasons.append("the service is stopping")
        if not self.warm:
            reasons.append(self.warm_error or "the models are being loaded")
        if self.edge.pool.hangs:
            reasons.append("every worker has been busy with one request for twice the deadline")
        down = [
            f"{part}: {circuit.state}, latest failure: {circuit.last_error}"
            for part, circuit in self.edge.embedder.reco.circuits.items()
            if circuit.state != "closed"
        ]
        if self.fails:
            reasons += down
        return Ready(status="not ready" if reasons else "ready", reasons=reasons, degraded=[] if self.fails else down)


def warm_up(reco: Reco) -> None:
    """Encode and refine one text and one image, in the way that requests do."""
    size = reco.manifest.image.size
    samples: dict[str, Any] = {"text": ["warm-up"], "image": [Image.fromarray(np.zeros((*size, 3), np.uint8))]}
    for modality in MODALITIES:
        reco.embed(samples[modality], modality=modality, refine=True)


def _beside(location: str) -> str:
    """Memories in the same folder as an empty one, whose name may have been mistyped; nothing where there are none."""
    folder = Path(location)
    if not folder.is_dir():  # in RAM, or a server's
        return ""
    others = [header.parent.name for header in folder.parent.glob(f"*/{HEADER_NAME}") if header.parent != folder]
    return f" (of the memories beside it, {did_you_mean(folder.name, sorted(others))})" if others else ""


def router(health: Health) -> APIRouter:
    """``GET /livez`` and ``GET /readyz``."""
    routes = APIRouter(route_class=answering_in(openai_shape), tags=["operations"])

    @routes.get("/livez")
    async def live() -> Live:
        """Whether the process answers at all."""
        return Live()

    @routes.get("/readyz", responses={503: {"model": Ready, "description": "send no requests here now"}})
    async def ready(response: Response) -> Ready:
        """Whether requests should be sent here."""
        state = health.ready()
        response.status_code = 200 if state.status == "ready" else 503
        return state

    return routes
