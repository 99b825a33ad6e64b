"""Opens the graphs of a model folder, in process or on a Triton server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ...settings import Settings
from ..model_folder import GRAPHS, Artifact
from .base import Session
from .triton_address import address_of

log = logging.getLogger(__name__)


def open_graph(artifact: Artifact, name: str, settings: Settings) -> Session:
    """Open a graph of a model folder on a Triton server or in process, and log what runs it.

    Args:
        artifact: the model folder; a server must serve the same folder.
        name: name of the graph, as in :data:`reco_plugin.encoders.model_folder.GRAPHS`.
        settings: ``triton_url`` selects a server, else ``provider`` selects a runtime.

    Raises:
        SessionError: the graph is damaged, the provider is missing, or the server serves another model.
        SessionUnavailable: the server cannot be reached.
        MissingExtra: ONNX Runtime or the Triton client is not installed.
    """
    if settings.triton_url is None:
        session, engine = _open_in_process(artifact, name, settings)
        log.info("%s: %s", name, engine)
        return session
    from .triton import open_triton

    return open_triton(artifact, name, settings)


class Graphs:
    """The sessions of a model folder by the names of their graphs. Each is opened once, at its first use."""

    def __init__(
        self, artifact: Artifact, settings: Settings, opening: Callable[[Artifact, str, Settings], Session] = open_graph
    ) -> None:
        self._artifact, self._settings, self._open = artifact, settings, opening
        self._sessions: dict[str, Session] = {}
        self._opening = {name: threading.Lock() for name in artifact.manifest.graphs}

    def __getitem__(self, name: str) -> Session:
        """Return a session, opened once for all threads; errors as in :func:`open_graph`."""
        if name not in self._sessions:
            with self._opening[name]:
                if name not in self._sessions:
                    self._sessions[name] = self._open(self._artifact, name, self._settings)
        return self._sessions[name]


def describe_engines(artifact: Artifact, settings: Settings) -> dict[str, str]:
    """Return the name of each graph -> its runtime in process; errors as in :func:`open_graph`."""
    return {name: _open_in_process(artifact, name, settings)[1] for name in GRAPHS}


def _open_in_process(artifact: Artifact, name: str, settings: Settings) -> tuple[Session, str]:
    from .onnxruntime import ON_CPU, ON_CUDA, OrtSession, has_cuda, warn_of_cpu  # here, since ONNX Runtime is heavy

    path = artifact.graph(name)
    if settings.provider == "cuda":
        return OrtSession(path, settings), ON_CUDA
    if has_cuda() and "provider" not in settings.model_fields_set and artifact.manifest.precision != "int8":
        warn_of_cpu("this ONNX Runtime supports CUDA, but RECO_PROVIDER is not set: set it to cuda to use the GPU")
    return OrtSession(path, settings), ON_CPU


def check_settings(settings: Settings) -> None:
    """Check the settings of a Triton server, without connecting.

    Raises:
        ConfigError: the URL or the certificate is invalid.
    """
    if settings.triton_url is not None:
        address_of(settings)


def check_graph(name: str, settings: Settings) -> None:
    """Check that the Triton server has a graph ready; without a server, do nothing.

    Raises:
        SessionUnavailable: the server cannot be reached.
        SessionTimeout: the server does not answer in time.
        SessionError: the server does not have the graph.
        MissingExtra: the Triton client is not installed.
    """
    if settings.triton_url is not None:
        from .triton import check_triton

        check_triton(name, settings)
