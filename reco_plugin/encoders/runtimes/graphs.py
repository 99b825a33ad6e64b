"""Sessions: each runs one ONNX graph, in process or on a Triton server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ...settings import Settings
from ...types import MODALITIES
from ..model_folder import GRAPHS, Artifact, clip_graph
from .base import Session
from .triton_address import address_of

log = logging.getLogger(__name__)


def open_graph(artifact: Artifact, name: str, settings: Settings) -> Session:
    """Open a graph of a model folder where the settings say: on a Triton server, or in process.

    Args:
        artifact: the model folder; a server must serve the same.
        name: as in :data:`reco_plugin.encoders.model_folder.GRAPHS`.
        settings: ``triton_url`` decides, then ``provider``; what runs the graph is logged.

    Raises:
        SessionError: damaged graph, provider not available, or the server serves another model.
        SessionUnavailable: the server cannot be reached.
        MissingExtra: ONNX Runtime, OpenVINO or the Triton client is not installed.
    """
    if settings.triton_url is None:
        session, engine = _open_in_process(artifact, name, settings)
        log.info("%s: %s", name, engine)
        return session
    from .triton import open_triton

    return open_triton(artifact, name, settings)


class Graphs:
    """The sessions of a model folder by the names of their graphs; each is opened once, at its first use."""

    def __init__(
        self, artifact: Artifact, settings: Settings, opening: Callable[[Artifact, str, Settings], Session] = open_graph
    ) -> None:
        self._artifact, self._settings, self._open = artifact, settings, opening
        self._sessions: dict[str, Session] = {}
        self._opening = {name: threading.Lock() for name in artifact.manifest.graphs}

    def __getitem__(self, name: str) -> Session:
        """A session; threads that ask for the same one meanwhile wait for it; errors as in :func:`open_graph`."""
        if name not in self._sessions:
            with self._opening[name]:
                if name not in self._sessions:
                    self._sessions[name] = self._open(self._artifact, name, self._settings)
        return self._sessions[name]


def describe_engines(artifact: Artifact, settings: Settings) -> dict[str, str]:
    """Name of each graph -> what runs it in process; errors as above."""
    return {name: _open_in_process(artifact, name, settings)[1] for name in GRAPHS}


def _open_in_process(artifact: Artifact, name: str, settings: Settings) -> tuple[Session, str]:
    path = artifact.graph(name)
    if settings.provider == "openvino":
        from .openvino import OpenVinoSession, fastest_arithmetic

        exact = artifact.manifest.precision == "int8" or name not in map(clip_graph, MODALITIES)
        arithmetic = "f32" if exact else fastest_arithmetic()
        return OpenVinoSession(path, settings, arithmetic), f"OpenVINO in {arithmetic}"
    from .onnxruntime import ON_CPU, ON_CUDA, OrtSession, has_cuda, warn_of_cpu  # imported late, ONNX Runtime is heavy

    if settings.provider == "cuda":
        return OrtSession(path, settings), ON_CUDA
    if has_cuda() and "provider" not in settings.model_fields_set and artifact.manifest.precision != "int8":
        warn_of_cpu("this ONNX Runtime is one for CUDA, and RECO_PROVIDER is not set: cuda takes the GPU")
    return OrtSession(path, settings), ON_CPU


def check_settings(settings: Settings) -> None:
    """Check what the settings say of a Triton server, without asking it.

    Raises:
        ConfigError: its URL or certificate cannot be used.
    """
    if settings.triton_url is not None:
        address_of(settings)


def check_graph(name: str, settings: Settings) -> None:
    """Check that the Triton server has a graph ready; in process, there is nothing to check.

    Raises:
        SessionUnavailable: the server cannot be reached.
        SessionTimeout: it does not answer in time.
        SessionError: it does not have the graph.
        MissingExtra: the Triton client is not installed.
    """
    if settings.triton_url is not None:
        from .triton import check_triton

        check_triton(name, settings)
