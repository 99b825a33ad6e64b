"""The protocol of a memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

from ..defaults import SCROLL_BATCH
from ..types import Filter, Modality, Neighbours, Payload, Records, Vectors
from .header import Header


class Memory(Protocol):
    """A store of image-text pairs, searched by either modality, read by either.

    Every method raises :class:`~reco_plugin.errors.MemoryStoreError` when the store fails.
    """

    kind: str
    """exact, edge or qdrant."""
    location: str
    """Folder, ``:memory:`` or URL; never a key."""

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        ...

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

    def search(
        self,
        vectors: Vectors,
        *,
        by: Modality,
        read: Modality,
        k: int,
        exclude: Sequence[Collection[str]] | None = None,
        where: Filter | None = None,
        payloads: bool = False,
        ids: bool = True,
    ) -> Neighbours:
        """Find each query's k nearest pairs by one modality's vectors and read one modality's vectors.

        Args:
            vectors: (B, D) unit-norm queries.
            by: modality of the memory that is compared with the query.
            read: modality whose vectors come back.
            k: neighbours per query; fewer are found when the memory holds fewer.
            exclude: B collections of ids that must not be found for that query.
            where: conditions on the payload.
            payloads: also read the payloads.
            ids: also read the users' ids; without, what stands for them are names of the store's own, and a store that
                keeps ids in the payload reads no payload at all.

        Raises:
            InputError: arguments that do not fit one another; see also :class:`~reco_plugin.errors.VectorError`.
        """
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
