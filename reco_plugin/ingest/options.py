"""Options of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..defaults import INGEST_BATCH
from ..errors import ConfigError
from ..machine import cores
from ..types import Payload
from ..values import SOURCE


def make_field(default: Any, description: str, **said: Any) -> Any:
    """A field of a dataclass that is also a command's flag; for ``said`` see ``cli/shared.py``."""
    return field(default=default, metadata={"description": description, **said})


@dataclass(frozen=True)
class IngestOptions:
    """How rows are written to the memory."""

    source: str | None = make_field(
        None,
        "Store this name of the source with its pairs, for `sync`.",
        flag="--as",
        metavar="NAME",
        unset="its whole path, or its URL",
    )
    batch_size: int = make_field(INGEST_BATCH, "Encode and write this many pairs together.", min=1)
    rejected: Path = make_field(
        Path("rejected.jsonl"),
        "List the rows that were left out, with reasons, in this file.",
        metavar="FILE",
        unset="MEMORY.rejected.jsonl",
    )
    max_error_rate: float = make_field(
        0.1, "Stop when a larger share is rejected, after 200 rows and at the end.", min=0, max=1
    )
    only_known: bool = False  # skip rows whose id the memory does not hold
    decoders: int = field(default_factory=cores)  # threads that decode images

    def __post_init__(self) -> None:
        if not 0 <= self.max_error_rate <= 1:
            raise ConfigError(f"max_error_rate must be from 0 to 1, got {self.max_error_rate}")
        if self.batch_size < 1 or self.decoders < 1:
            raise ConfigError(f"batch_size and decoders must be at least 1, got {self.batch_size}, {self.decoders}")

    def brought(self, payload: Payload) -> bool:
        """Whether a stored pair came from this source."""
        return self.source is not None and payload.get(SOURCE) == self.source


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster for the work."""

    address: str | None = make_field(
        None,
        "Use this Ray cluster; auto finds the one of this machine.",
        metavar="HOST:PORT",
        unset="a cluster of this machine alone",
    )
    workers: int | None = make_field(
        None, "Use at most this many encoding workers of the cluster.", min=1, unset="as many as there is room for"
    )
