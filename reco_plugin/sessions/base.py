"""Run one ONNX graph, wherever it runs: named arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from ..config import Settings

Arrays = dict[str, npt.NDArray[Any]]


class Session(Protocol):
    """One loaded graph; safe to call from several threads."""

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute all outputs by name.

        Raises:
            SessionError: the graph refuses the inputs or fails.
        """
        ...


def open_session(path: Path, settings: Settings) -> Session:
    """Load one graph in process, on the execution provider of the settings.

    Raises:
        SessionError: damaged graph, or the provider is not available.
        MissingExtra: ONNX Runtime is not installed.
    """
    from .ort import OrtSession  # the only implementation so far; imported late, ONNX Runtime is heavy

    return OrtSession(path, settings)
