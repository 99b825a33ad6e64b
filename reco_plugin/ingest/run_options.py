"""Options of a run, which are also flags: how rows are written, and the Ray cluster."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ..cpu import cores
from ..defaults import INGEST_BATCH
from ..settings import CommandOptions, option
from ..types import Payload
from ..values import SOURCE


class IngestOptions(CommandOptions):
    """How rows are written to the memory."""

    source: str | None = option(
        None,
        "Store this name of the source with its pairs, for `sync`.",
        flag="--as",
        metavar="NAME",
        unset="its whole path, or its URL",
    )
    batch_size: int = option(INGEST_BATCH, "Encode and write this many pairs together.", ge=1)
    rejected: Path = option(
        Path("rejected.jsonl"),
        "List the rows that were left out, with reasons, in this file.",
        metavar="FILE",
        unset="MEMORY.rejected.jsonl",
    )
    max_error_rate: float = option(
        0.1, "Stop when a larger share is rejected, after 200 rows and at the end.", ge=0, le=1
    )
    allow_private_urls: bool = option(False, "Also fetch pictures from private addresses.", flag="--allow-private-urls")
    only_known: bool = False  # skip rows whose id the memory does not hold
    decoders: int = Field(default_factory=cores, ge=1)  # threads that decode images

    def is_from_source(self, payload: Payload) -> bool:
        """Whether a stored pair came from this source."""
        return self.source is not None and payload.get(SOURCE) == self.source


class Cluster(CommandOptions):
    """The Ray cluster that reads and encodes."""

    address: str | None = option(
        None,
        "Use this Ray cluster; auto finds the one of this machine.",
        metavar="HOST:PORT",
        unset="a cluster of this machine alone",
    )
    workers: int | None = option(
        None, "Use at most this many encoding workers of the cluster.", ge=1, unset="as many as there is room for"
    )
