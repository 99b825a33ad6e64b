"""The model ``reco`` of a Triton server: texts or images in, refined vectors out, and no other process beside it.

Triton's Python backend runs it (``deploy/triton/reco/1/model.py``). It is one more dialect over the same
:class:`~reco_plugin.serve.embedder.Embedder`; the encoders, and the fusions that are graphs, run on the same server.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, field_validator
from pydantic_core import from_json

from ..artifact import MANIFEST, Artifact
from ..config import Settings, load_section, load_settings
from ..errors import ConfigError, SessionError
from ..reco import Reco
from ..sessions import Session
from ..sessions.triton import TritonSession
from ..sessions.triton.connection import TimeLimit
from ..sessions.triton.ports import read_config
from ..sessions.triton.wire import Inference
from ..types import MODALITIES, InputType, Modality
from ..values import in_words
from .embedder import Embedded, Embedder, EmbedRequest, Item
from .failures import Failure, Refused, failure_of
from .schemas import HowToRefine
from .settings import ServeSettings

log = logging.getLogger(__name__)


class TritonParameters(HowToRefine):
    """Parameters of a request."""

    input_type: InputType = Field("query", description="document: plain, unless refine says otherwise")
    refine: bool | None = Field(None, description="final where given")
    truncate: bool = Field(True, description="cut a text to the context length; False refuses it")

    @field_validator("where", mode="before")
    @classmethod
    def _where_is_json(cls, given: Any) -> Any:
        """Triton's parameters are words and numbers only."""
        return from_json(given) if isinstance(given, str) else given

    @classmethod
    def read(cls, parameters: str) -> TritonParameters:
        """Read what Triton hands over: a JSON object, or nothing.

        Raises:
            Refused: an unknown parameter, or a value that cannot be used.
        """
        try:
            return cls(**from_json(parameters or "{}"))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            message = f"parameter {name}: {in_words(first['msg'])}. Known: {', '.join(cls.model_fields)}"
            raise Refused(Failure(400, "invalid_parameter", message, name)) from None


class InTriton:
    """One instance of the model.

    Args:
        backend: Triton's module ``triton_python_backend_utils``, which only its own processes can import.
        repository: folder of this model on the server.
    """

    def __init__(self, backend: Any, repository: Path) -> None:
        self._backend = backend
        reco = Reco.of(settings_beside(repository), _SameServer(backend).open)
        self._embedder = Embedder(reco, load_section(ServeSettings))

    def close(self) -> None:
        """Release the memory."""
        self._embedder.reco.close()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests that Triton merged; queries with the same parameters are embedded together."""
        answers: list[Any] = [None] * len(requests)
        groups: dict[tuple[Any, ...], list[tuple[int, EmbedRequest]]] = {}
        for place, request in enumerate(requests):
            try:
                modality, read = self._read(request)
            except Refused as refused:
                answers[place] = self._error(refused.failure)
                continue
            alone = place if read.side == "document" else None  # documents are refined as one set
            groups.setdefault((alone, modality, request.parameters()), []).append((place, read))
        for members in groups.values():
            for (place, _), answer in zip(members, self._embed([one for _, one in members]), strict=True):
                answers[place] = answer
        return answers

    def _read(self, request: Any) -> tuple[Modality, EmbedRequest]:
        asked = TritonParameters.read(request.parameters())
        given = {
            modality: tensor.as_numpy()
            for modality in MODALITIES
            if (tensor := self._backend.get_input_tensor_by_name(request, modality)) is not None
        }
        if len(given) != 1:
            message = f"give one of the inputs image and text, got {' and '.join(given) or 'none'}"
            raise Refused(Failure(400, "invalid_input", message))
        ((modality, values),) = given.items()
        return modality, EmbedRequest(
            [_item(value, modality, row) for row, value in enumerate(values.reshape(-1))],
            side=asked.input_type,
            refine=asked.refine,
            truncate=asked.truncate,
            options=asked.options(),
            indexed=False,
        )

    def _embed(self, requests: Sequence[EmbedRequest]) -> list[Any]:
        first, sizes = requests[0], [len(request.items) for request in requests]
        try:
            found = self._embedder.embed(replace(first, items=[item for one in requests for item in one.items]))
        except Exception as error:  # a defect, too: Triton would show its trace to callers
            failure = failure_of(error)
            if failure.status >= 500:
                log.exception("a batch of %d failed", sum(sizes))
            return [self._error(failure)] * len(requests)
        rows = iter(found.rows)
        return [self._answer(replace(found, rows=list(islice(rows, size)))) for size in sizes]

    def _answer(self, found: Embedded) -> Any:
        for number, row in enumerate(found.rows):
            if row.failure is not None:
                return self._error(row.failure.at(f"row {number}"))
        tensor, columns = self._backend.Tensor, (len(found.rows), 1)
        return self._backend.InferenceResponse(
            [
                tensor("embedding", found.vectors),
                tensor("moved", np.array([row.moved for row in found.rows], np.float32).reshape(columns)),
                tensor("truncated", np.array([row.truncated for row in found.rows], bool).reshape(columns)),
                tensor("degraded", np.full(columns, found.degraded or "", object)),
            ]
        )

    def _error(self, failure: Failure) -> Any:
        error = self._backend.TritonError
        code = {500: error.INTERNAL, 429: error.UNAVAILABLE, 503: error.UNAVAILABLE, 504: error.UNAVAILABLE}
        return self._backend.InferenceResponse(
            error=error(failure.message, code.get(failure.status, error.INVALID_ARG))
        )


class _SameServer:
    """Runs graphs on the server that this process is a part of (its Business Logic Scripting), without a network."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def open(self, artifact: Artifact, graph: str, settings: Settings) -> Session:
        """Open a graph that the server has loaded from the same folder."""
        ports = read_config(artifact.folder / graph / "config.pbtxt")
        outputs = tuple(port.name for port in ports.outputs)
        return TritonSession(self, graph, outputs, max_batch=ports.max_batch, timeout=settings.triton_timeout_s)

    def infer(self, call: Inference, deadline: TimeLimit) -> dict[str, npt.NDArray[Any]]:
        """Run a request; the deadline is left to Triton's queues.

        Raises:
            SessionError: the server does not have the graph, or the graph failed.
        """
        pb = self._backend
        answer = pb.InferenceRequest(
            model_name=call.graph,
            requested_output_names=list(call.outputs),
            inputs=[pb.Tensor(name, np.ascontiguousarray(array)) for name, array in call.inputs.items()],
            preferred_memory=pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if answer.has_error():
            raise SessionError(answer.error().message())
        return {name: pb.get_output_tensor_by_name(answer, name).as_numpy() for name in call.outputs}


def settings_beside(repository: Path) -> Settings:
    """The settings of the environment; the model folder is the one beside this model's where none is named.

    Raises:
        ConfigError: there is none, or a setting cannot be used.
    """
    chosen = load_settings(batch_callers=False)  # Triton merges requests itself
    if chosen.triton_url is not None:
        raise ConfigError("triton_url: the model reco uses the server that it is a part of: unset RECO_TRITON_URL")
    if "model" in chosen.model_fields_set:
        return chosen
    if not (repository.parent / MANIFEST).is_file():
        raise ConfigError(f"model: set RECO_MODEL to the model folder that is served; {repository.parent} is none")
    return chosen.model_copy(update={"model": repository.parent})


def _item(value: Any, modality: Modality, row: int) -> Item:
    data: bytes = value if isinstance(value, bytes) else str(value).encode()
    if modality == "image":
        return Item.image(data)
    try:
        return Item.text(data.decode())
    except UnicodeDecodeError as error:
        raise Refused(Failure(400, "invalid_text", f"text, row {row}: is not UTF-8 ({error.reason})")) from None
