"""``/livez`` and ``/readyz``: live at once, ready once the models are warm and nothing that is needed is down."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel

from ..errors import MemoryStoreError, RecoError, SessionTimeout, SessionUnavailable
from ..fusion.closed_form import ClosedForm
from ..fusion.explain import why_plain
from ..memory.header import describe_loss
from ..reco import Reco
from .app_state import Edge
from .failures import failure_of
from .logs import LOGGER
from .routing import answering_in, openai_shape

log = logging.getLogger(LOGGER)
_EVERY_S = 1.0  # and a server has a second to answer: what is down is known within two
HOPELESS = 10
"""Deadlines after which a call that has not ended will not: a restart is the way out."""
_CHANGED = (
    "the encoder is an API and has another model than the memory: answers are plain and nothing is stored; the log has "
    "what differs"
)
_MAY_PASS = (SessionUnavailable, SessionTimeout, MemoryStoreError)


class Live(BaseModel):
    """The process answers, and does not only wait for calls that never end."""

    status: Literal["live", "hangs"]


class Ready(BaseModel):
    """Whether requests should be sent here."""

    status: Literal["ready", "not ready"]
    reasons: list[str]
    """Why not; empty when ready."""
    degraded: list[str]
    """What is down or damaged while requests are still answered, by less or with frozen vectors."""


@dataclass
class Health:
    """State of one service."""

    edge: Edge
    warm: bool = False  # the graphs are loaded and have run
    warm_error: str | None = None  # why warming up failed
    away: str | None = None  # why the model server runs no graph now; None if it does, or if there is none
    lost: str = ""  # why the memory is away: its server does not answer, or its folder is gone
    missing: int = 0  # pairs that the memory has lost
    _ended: threading.Event = field(init=False, default_factory=threading.Event)
    _out: dict[str, str] = field(init=False, default_factory=dict)  # part -> why it is down

    def watch(self) -> None:
        """Warm up, then check every second what is down, until :meth:`stop`; runs in its own thread."""
        again = self.warm_up()
        while not self._ended.wait(_EVERY_S):
            try:
                if again:
                    again = self.warm_up()
                self.look()
            except Exception:  # a library's own, or a defect: a watch that ended would never see what is down, or back
                log.exception("the check of models and memory failed, and is made again")

    def stop(self) -> None:
        """Mark the service as stopping."""
        self.edge.stopping = True
        self._ended.set()

    def warm_up(self) -> bool:
        """Run every graph once; blocks. A memory that is down does not keep the service from starting.

        Returns:
            Whether it failed and a retry may succeed.
        """
        try:
            warm_up(self.edge.embedder.reco)
        except Exception as error:  # any error: liveness keeps answering, readiness names it
            failed = f"the models do not run: {failure_of(error).message}"
            if failed != self.warm_error:
                log.exception("warm-up failed")
            self.warm_error = failed
            return isinstance(error, _MAY_PASS)
        self.warm, self.warm_error = True, None
        self._warn_of_plain_queries()
        if "image" not in self.edge.embedder.reco.encoder.modalities:
            log.warning("the encoder takes texts only: pictures are refused, and pairs need vectors of theirs")
        log.info("ready")
        return False

    def look(self) -> None:
        """Check the model server's graphs and the memory's server, and probe an open circuit.

        A load balancer sends no requests to a service that is not ready, so no request would notice the recovery.
        """
        reco = self.edge.embedder.reco
        try:
            reco.encoder.check()
        except RecoError as error:
            self._note("model server", str(error))
            self.away = failure_of(error).message
        else:
            self._note("model server", None)
            self.away = None
        part, why = ("folder", "is gone") if reco.memory.alone else ("server", "does not answer")
        self.lost = "" if reco.memory.answers() else f"memory: its {part} {why}"
        self._note(f"memory's {part}", f"it {why}" if self.lost else None)
        self.missing = reco.memory.missing
        if reco.circuit.retry_in_s == 0:
            with suppress(RecoError):  # the circuit records it
                reco.refine(np.eye(1, reco.manifest.dimension, dtype=np.float32), modality="text")
        self._note("memory", None if reco.circuit.state == "closed" else reco.circuit.last_error)

    def _note(self, part: str, error: str | None) -> None:
        """Log when a part goes down and when it is back."""
        if error is None:
            if self._out.pop(part, None) is not None:
                log.info("the %s is back", part)
        elif self._out.setdefault(part, "") == "":
            self._out[part] = error
            log.warning("the %s is down: %s", part, error)

    def _warn_of_plain_queries(self) -> None:
        reco = self.edge.embedder.reco
        with suppress(RecoError):  # it is down, which degraded answers report
            pairs = len(reco.memory)
            plain = why_plain(reco.memory.store.header, pairs)
            if plain and (pairs == 0 or reco.defaults["fuser"] == ClosedForm.name):  # others need no calibration
                log.warning("the memory at %s: %s", reco.memory.location, plain)

    def parts(self) -> dict[str, bool]:
        """Whether each part is down."""
        reco = self.edge.embedder.reco
        return {
            "encoder": self.away is not None,
            "encoder_changed": reco.encoder.changed is not None,
            "memory": bool(self.lost),
            "memory_circuit": reco.circuit.state != "closed",
        }

    def ready(self) -> Ready:
        """The current readiness."""
        reasons: list[str] = []
        degraded: list[str] = []
        of_memory = reasons if self.edge.embedder.reco.settings.on_memory_failure == "fail" else degraded
        if self.edge.stopping:
            reasons.append("the service is stopping")
        if self.away is not None:
            reasons.append(self.away)
        elif not self.warm:
            reasons.append(self.warm_error or "the models are being loaded")
        if self.edge.lanes.hangs(2):
            reasons.append("every thread has been busy with one request for twice the deadline")
        if self.lost:
            of_memory.append(self.lost)
        if self.missing:
            degraded.append(f"memory: {describe_loss(self.missing)}")
        if (circuit := self.edge.embedder.reco.circuit).state != "closed":
            of_memory.append(
                f"memory: {circuit.state} after {circuit.failures} failures in a row, of which the log has the latest"
            )
        if self.edge.embedder.reco.encoder.changed is not None:
            of_memory.append(_CHANGED)
        return Ready(status="not ready" if reasons else "ready", reasons=reasons, degraded=degraded)


def warm_up(reco: Reco) -> None:
    """Encode and refine one text and one image, as requests do."""
    size = reco.manifest.image.size
    samples: dict[str, Any] = {"text": ["warm-up"], "image": [Image.fromarray(np.zeros((*size, 3), np.uint8))]}
    for modality in reco.encoder.modalities:
        reco.embed(samples[modality], modality=modality, refine=True)


def router(health: Health) -> APIRouter:
    """``GET /livez`` and ``GET /readyz``."""
    routes = APIRouter(route_class=answering_in(openai_shape), tags=["operations"])

    @routes.get(
        "/livez", response_model=Live, responses={503: {"model": Live, "description": "start this process again"}}
    )
    @routes.get("/v1/health/live", response_model=Live, include_in_schema=False)  # of NVIDIA NIM
    async def live(request: Request) -> Response:
        """Whether the process answers at all; not, if every thread has hung in one call for ten deadlines."""
        hangs = health.edge.lanes.hangs(HOPELESS)
        return JSONResponse({"status": "hangs" if hangs else "live"}, 503 if hangs else 200)

    @routes.get("/health", response_model=Ready, include_in_schema=False)  # of TEI, vLLM and most others
    @routes.get("/ping", response_model=Ready, include_in_schema=False)  # of SageMaker
    @routes.get("/v1/health/ready", response_model=Ready, include_in_schema=False)  # of NVIDIA NIM
    @routes.get(
        "/readyz", response_model=Ready, responses={503: {"model": Ready, "description": "send no requests here now"}}
    )
    async def ready(request: Request) -> Response:
        """Whether requests should be sent here."""
        state = health.ready()
        return JSONResponse(state.model_dump(), 200 if state.status == "ready" else 503)

    return routes
