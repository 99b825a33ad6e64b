"""Refined vectors from Triton alone, see docs/triton.md; needs reco-plugin[triton,qdrant] in the server's Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import triton_python_backend_utils as backend

from reco_plugin.serve.triton_model import InTriton


class TritonPythonModel:
    """What Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model folder and the memory that the settings name (RECO_MODEL, RECO_MEMORY, ...)."""
        self.model = InTriton(backend, Path(args["model_repository"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests that Triton merged."""
        return self.model.execute(requests)

    def finalize(self) -> None:
        """Release the memory."""
        self.model.close()
