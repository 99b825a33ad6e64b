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
from .app_state import AppState
from .failures import failure_of
from .logs import LOGGER
from .routing import openai_shape, route_class

log = logging.getLogger(LOGGER)
_EVERY_S = 1.0  # and a server has a second to answer: what is down is known within two seconds
HANGING_DEADLINES = 10
"""A call that has taken so many deadlines will not end. The process must be restarted."""
_CHANGED = (
    "the encoder is an API and has another model than the memory: answers are plain and nothing is stored; the log has "
    "what differs"
)
_HANGS = "every thread has been busy with one request for twice the deadline"
_TRANSIENT = (SessionUnavailable, SessionTimeout, MemoryStoreError)


class Live(BaseModel):
    """Whether the process answers. `hangs`: every thread waits for a call that will not end."""

    status: Literal["live", "hangs"]


class Ready(BaseModel):
    """Whether requests should be sent here."""

    status: Literal["ready", "not ready"]
    reasons: list[str]
    """Why not; empty when ready."""
    degraded: list[str]
    """What is down or damaged although requests are answered, perhaps with plain vectors."""


@dataclass
class Health:
    """State of one service."""

    state: AppState
    warm: bool = False  # whether every graph has run
    warm_error: str | None = None  # why warming up failed
    encoder_error: str | None = None  # why the model server runs no graph now; None if it does, or if there is none
    memory_error: str = ""  # why the memory cannot be reached: its server does not answer, or its folder is gone
    missing: int = 0  # pairs that the memory has lost
    _stopped: threading.Event = field(init=False, default_factory=threading.Event)
    _down: dict[str, str] = field(init=False, default_factory=dict)  # part -> why it is down

    def watch(self) -> None:
        """Warm up, then check every second what is down, until :meth:`stop`. Runs in its own thread."""
        retry = self.warm_up()
        while not self._stopped.wait(_EVERY_S):
            try:
                if retry:
                    retry = self.warm_up()
                self.check()
            except Exception:  # of a library, or a defect: the watch must go on
                log.exception("the check of models and memory failed, and is made again")

    def stop(self) -> None:
        """Mark the service as stopping."""
        self.state.is_stopping = True
        self._stopped.set()

    def warm_up(self) -> bool:
        """Encode and refine one text and one image, which blocks. The service starts even if its memory is down.

        Returns:
            Whether it failed and a retry may succeed.
        """
        reco = self.state.embedder.reco
        size = reco.manifest.image.size
        samples: dict[str, Any] = {"text": ["warm-up"], "image": [Image.fromarray(np.zeros((*size, 3), np.uint8))]}
        try:
            for modality in reco.encoder.modalities:
                reco.embed(samples[modality], modality=modality, refine=True)
        except Exception as error:  # any error: liveness goes on, and readiness names it
            reason = f"the models do not run: {failure_of(error).message}"
            if reason != self.warm_error:
                log.exception("warm-up failed")
            self.warm_error = reason
            return isinstance(error, _TRANSIENT)
        self.warm, self.warm_error = True, None
        self._warn_of_plain_queries()
        if "image" not in reco.encoder.modalities:
            log.warning("the encoder takes texts only: pictures are refused, and pairs need vectors of theirs")
        log.info("ready")
        return False

    def check(self) -> None:
        """Check the graphs of the model server and the memory, and probe an open circuit.

        A load balancer sends no request to a service that is not ready, so no request would notice the recovery.
        """
        reco = self.state.embedder.reco
        error: RecoError | None = None
        try:
            reco.encoder.check()
        except RecoError as raised:
            error = raised
        self._record("model server", None if error is None else str(error))
        self.encoder_error = None if error is None else failure_of(error).message
        part, why = ("folder", "is gone") if reco.memory.alone else ("server", "does not answer")
        self.memory_error = "" if reco.memory.answers() else f"memory: its {part} {why}"
        self._record(f"memory's {part}", f"it {why}" if self.memory_error else None)
        self.missing = reco.memory.missing
        if reco.circuit.retry_in_s == 0:
            with suppress(RecoError):  # the circuit records it
                reco.refine(np.eye(1, reco.manifest.dimension, dtype=np.float32), modality="text")
        self._record("memory", None if reco.circuit.state == "closed" else reco.circuit.last_error)

    def _record(self, part: str, error: str | None) -> None:
        """Log when a part goes down and when it is back."""
        if error is None:
            if self._down.pop(part, None) is not None:
                log.info("the %s is back", part)
        elif part not in self._down:
            self._down[part] = error
            log.warning("the %s is down: %s", part, error)

    def _warn_of_plain_queries(self) -> None:
        reco = self.state.embedder.reco
        with suppress(RecoError):  # it is down, which degraded answers report
            pairs = len(reco.memory)
            plain = why_plain(reco.memory.store.header, pairs)
            if plain and (pairs == 0 or reco.defaults["fuser"] == ClosedForm.name):  # others need no calibration
                log.warning("the memory at %s: %s", reco.memory.location, plain)

    def problems(self) -> dict[str, str]:
        """Return what is wrong with each part; an empty string if nothing is."""
        reco = self.state.embedder.reco
        circuit = reco.circuit
        failures = f"memory: {circuit.state} after {circuit.failures} failures in a row; the log has the latest"
        return {
            "encoder": self.encoder_error or "",
            "encoder_changed": "" if reco.encoder.changed is None else _CHANGED,
            "memory": self.memory_error,
            "memory_circuit": "" if circuit.state == "closed" else failures,
        }

    def ready(self) -> Ready:
        """Return the current readiness."""
        problems = self.problems()
        of_encoder = problems.pop("encoder") or ("" if self.warm else self.warm_error or "the models are being loaded")
        stopping = "the service is stopping" if self.state.is_stopping else ""
        hangs = _HANGS if self.state.executor.hangs(2) else ""
        reasons = [stopping, of_encoder, hangs]
        degraded = [f"memory: {describe_loss(self.missing)}"] if self.missing else []
        fails = self.state.embedder.reco.settings.on_memory_failure == "fail"
        (reasons if fails else degraded).extend(problems.values())
        reasons, degraded = [one for one in reasons if one], [one for one in degraded if one]
        return Ready(status="not ready" if reasons else "ready", reasons=reasons, degraded=degraded)


def router(health: Health) -> APIRouter:
    """Make ``GET /livez`` and ``GET /readyz``."""
    routes = APIRouter(route_class=route_class(openai_shape), tags=["operations"])

    @routes.get("/livez", response_model=Live, responses={503: {"model": Live, "description": "restart this process"}})
    @routes.get("/v1/health/live", response_model=Live, include_in_schema=False)  # NVIDIA NIM's
    async def live(request: Request) -> Response:
        """Report whether the process answers. It hangs if every thread has been in one call for ten deadlines."""
        hangs = health.state.executor.hangs(HANGING_DEADLINES)
        return JSONResponse({"status": "hangs" if hangs else "live"}, 503 if hangs else 200)

    @routes.get("/health", response_model=Ready, include_in_schema=False)  # TEI's, vLLM's and most others'
    @routes.get("/ping", response_model=Ready, include_in_schema=False)  # SageMaker's
    @routes.get("/v1/health/ready", response_model=Ready, include_in_schema=False)  # NVIDIA NIM's
    @routes.get(
        "/readyz", response_model=Ready, responses={503: {"model": Ready, "description": "send no requests here now"}}
    )
    async def ready(request: Request) -> Response:
        """Report whether requests should be sent here."""
        answer = health.ready()
        return JSONResponse(answer.model_dump(), 200 if answer.status == "ready" else 503)

    return routes
