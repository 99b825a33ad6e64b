"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[
    Path | None, typer.Option(help="Model folder made by `reco export`.", show_default="RECO_MODEL or ./triton_models")
]
MemoryOption = Annotated[
    str | None,
    typer.Option(help="Memory: a folder, or the URL of a Qdrant server.", show_default="RECO_MEMORY or ./memory"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]

DEFAULT_MEMORY = "./memory"


def memory_location(given: str | None) -> str:
    """The memory that a command works on: its option, then the settings, then ``./memory``.

    The library's own default, a memory in RAM, would be gone when the command ends.
    """
    from ..config import load_settings

    settings = load_settings(memory=given)
    return settings.memory if "memory" in settings.model_fields_set else DEFAULT_MEMORY
