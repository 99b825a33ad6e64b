"""Opens sessions, on a Triton server or in process, as the settings say."""

from __future__ import annotations

from pathlib import Path

from ..artifact import Artifact
from ..config import Settings
from .base import Session


def open_graph(artifact: Artifact, name: str, settings: Settings) -> Session:
    """Open a graph of a model folder where the settings say: on a Triton server, or in process.

    Args:
        artifact: the model folder; a server must serve the same.
        name: as in :data:`reco_plugin.artifact.GRAPHS`.
        settings: ``triton_url`` decides.

    Raises:
        SessionError: damaged graph, provider not available, or the server serves another model.
        SessionUnavailable: the server cannot be reached.
        MissingExtra: ONNX Runtime or the Triton client is not installed.
    """
    if settings.triton_url is None:
        return open_session(artifact.graph(name), settings)
    from .triton import open_triton

    return open_triton(artifact, name, settings)


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


def open_session(path: Path, settings: Settings) -> Session:
    """Load one graph in process, on the execution provider of the settings.

    Raises:
        SessionError: damaged graph, or the provider is not available.
        MissingExtra: ONNX Runtime is not installed.
    """
    from .ort import OrtSession  # imported late, ONNX Runtime is heavy

    return OrtSession(path, settings)
