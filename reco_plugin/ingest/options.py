"""What a run may be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ..defaults import INGEST_BATCH, SAME_IMAGE
from ..errors import ConfigError

Duplicates: TypeAlias = Literal["off", "report", "drop", "merge"]
"""report: list them. drop: leave the later one out. merge: give its caption to the earlier one."""


@dataclass(frozen=True)
class IngestOptions:
    """How rows get into the memory.

    Attributes:
        batch_size: rows that go through all stages together, and are written together.
        only_known: leave out rows whose id the memory does not hold.
        source: name that pairs carry as theirs; None for none.
        duplicates: what is done about images that are nearly the same.
        threshold: cosine of two images from which on they are.
        max_error_rate: share of rejected rows above which the run stops.
        rejected: file of rejected rows.
        listed: file of near-duplicate and excluded rows.
        decoders: threads that decode images; 0: as many as there are cores.
    """

    batch_size: int = INGEST_BATCH
    only_known: bool = False
    source: str | None = None
    duplicates: Duplicates = "off"
    threshold: float = SAME_IMAGE
    max_error_rate: float = 0.1
    rejected: Path = Path("rejected.jsonl")
    listed: Path = Path("duplicates.jsonl")
    decoders: int = 0

    def __post_init__(self) -> None:
        if self.duplicates not in get_args(Duplicates):
            raise ConfigError(f"duplicates must be one of {', '.join(get_args(Duplicates))}, got {self.duplicates!r}")
        for name, value in (("threshold", self.threshold), ("max_error_rate", self.max_error_rate)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} must be from 0 to 1, got {value}")
        if self.batch_size < 1 or self.decoders < 0:
            raise ConfigError(f"batch_size must be at least 1 and decoders 0, got {self.batch_size}, {self.decoders}")
