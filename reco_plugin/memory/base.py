"""The protocols of a memory: what is searched, and what is also filled."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

from ..defaults import SCROLL_BATCH
from ..request import Search
from ..types import Neighbours, Payload, Records
from .header import Header


class Searches(Protocol):
    """Image-text pairs, searched by either modality, read by either: all that a refinement asks for."""

    @property
    def header(self) -> Header:
        """Fingerprint and calibration; asks nobody."""
        ...

    def search(self, search: Search) -> Neighbours:
        """Find each query's k nearest pairs by one modality's vectors and read one modality's vectors.

        Raises:
            InputError: parts that do not fit one another; see also :class:`~reco_plugin.errors.VectorError`.
            MemoryStoreError: the store fails.
        """
        ...


class Memory(Searches, Protocol):
    """A store of image-text pairs.

    Every method raises :class:`~reco_plugin.errors.MemoryStoreError` when the store fails.
    """

    kind: str
    """exact, edge or qdrant."""
    location: str
    """Folder, ``:memory:`` or URL; never a key."""

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store the gate's constants with the memory, durably."""
        ...

    def count(self) -> int:
        """Number of pairs."""
        ...

    def upsert(self, records: Records) -> None:
        """Add pairs, searchable at once; an id that exists is replaced whole."""
        ...

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many were there."""
        ...

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs in a stable order, or those of these ids that exist in the order of the ids, in batches."""
        ...

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of all pairs, or of those of these ids that exist, in any order; reads no vectors."""
        ...

    def flush(self) -> None:
        """Make everything written so far durable."""
        ...

    def close(self) -> None:
        """Flush and let go of the store; closing twice is fine."""
        ...
