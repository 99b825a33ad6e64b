"""The outcome of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Outcome:
    """Counts of one run; every row read is in one of those from ``added`` to ``merged``.

    Attributes:
        read: rows of the source, rejected ones included.
        added: pairs with an id that is new in the memory.
        replaced: pairs whose row changed.
        unchanged: rows that the memory already holds.
        repeated: rows that came before in this source, with the same content.
        missing: rows skipped because only known ids are wanted.
        rejected: rows that cannot be used.
        excluded: rows skipped because they are evaluation images.
        dropped: near-duplicates that were skipped.
        merged: near-duplicates whose caption was added to an earlier pair.
        reported: near-duplicates that were written and listed.
        cut: captions longer than the encoder reads.
        deleted: pairs deleted because they are gone from the source, or excluded now.
        kept: pairs gone from the source but kept, because rejected rows may be theirs.
        pairs: in the memory at the end.
        seconds: of wall clock.
        reasons: of rejected rows, the most frequent first, with their counts.
        files: written beside the memory, by kind.
    """

    read: int = 0
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    repeated: int = 0
    missing: int = 0
    rejected: int = 0
    excluded: int = 0
    dropped: int = 0
    merged: int = 0
    reported: int = 0
    cut: int = 0
    deleted: int = 0
    kept: int = 0
    pairs: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def held(self) -> int:
        """Pairs of the source that the memory holds."""
        return self.added + self.replaced + self.unchanged

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values."""
        return asdict(self)


@dataclass
class Plan(Outcome):
    """The expected outcome of a run, in the same counts.

    Attributes:
        refused: why the run would refuse to delete ``deleted`` pairs, and fail; None if it would not.
    """

    refused: str | None = None
