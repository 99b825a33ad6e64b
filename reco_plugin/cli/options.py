"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[
    Path | None,
    typer.Option(
        help="Model folder made by `reco export`.",
        show_default="RECO_MODEL or ./triton_models, else the quickstart model",
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(help="Memory: a folder, or the URL of a Qdrant server.", show_default="RECO_MEMORY or ./memory"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]

DEFAULT_MEMORY = "./memory"


@dataclass(frozen=True)
class OpenOptions:
    """The model and memory of a command; None leaves them to the settings."""

    model: ModelOption = None
    memory: MemoryOption = None


def memory_location(given: str | None) -> str:
    """The memory of a command: its option, then the settings, then ``./memory``.

    The library's own default, a memory in RAM, would be lost at the end of the command.
    """
    from ..config import load_settings

    settings = load_settings(memory=given)
    return settings.memory if "memory" in settings.model_fields_set else DEFAULT_MEMORY


def existing_memory(given: str | None) -> str:
    """The same for a command that only reads: creating an empty memory would hide a mistyped name."""
    from ..errors import MemoryStoreError

    location = memory_location(given)
    if location != ":memory:" and "://" not in location and not Path(location).expanduser().exists():
        raise MemoryStoreError(
            f"there is no memory at {location!r}. Check the location, or make one: reco memory add --help"
        )
    return location
