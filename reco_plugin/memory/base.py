"""The protocols of a memory: ``Searches`` only searches, ``Memory`` can also be filled; and a copy of one memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from ..defaults import SCROLL_BATCH
from ..errors import MemoryStoreError
from ..types import Filter, Neighbours, Payload, Records, Search
from .header import RESTORE, Header, SaidRecord


class Searches(Protocol):
    """Image-text pairs, searched by either modality, read by either: all that a refinement needs."""

    @property
    def header(self) -> Header:
        """Fingerprint and calibration; makes no request."""

    def search(self, search: Search) -> Neighbours:
        """Find the k nearest pairs of queries (B, D) by one modality's vectors and read one modality's (B, K, D).

        Raises:
            InputError: arguments that contradict each other; see also :class:`~reco_plugin.errors.VectorError`.
            MemoryStoreError: the store fails.
        """


class Memory(Searches, Protocol):
    """A store of image-text pairs.

    Every method raises :class:`~reco_plugin.errors.MemoryStoreError` when the store fails.
    """

    kind: str
    """exact, edge or qdrant."""
    location: str
    """Folder, ``:memory:`` or URL; never a key."""

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store what was learned about the pairs, durably and as a whole, see :mod:`reco_plugin.learning`."""

    def look(self) -> Header:
        """The header, read anew where other processes may have written it."""

    def change_said(self, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        """Store, durably, what people said, and forget some of it by id; what others say meanwhile stays.

        All of it is stored or nothing; unknown ids are no error.
        """

    def count(self, within: Filter | None = None) -> int:
        """Number of pairs, or of those that fulfil conditions."""

    def upsert(self, records: Records) -> None:
        """Add pairs, vectors (N, D), searchable at once; an id that exists is replaced as a whole."""

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs in a stable order, or the existing ones of ``ids`` in their order, in batches (N, D)."""

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of all pairs, or of the existing ones of ``ids``, in any order; reads no vectors."""

    def ids_after(self, last: str | None, limit: int, within: Filter | None = None) -> list[str]:
        """The next ids behind ``last``, None from the first on, in an order that no write changes; none at the end.

        So all pairs can be read in parts while others write: what is there all the time comes exactly once.
        """

    def flush(self) -> None:
        """Make everything written so far durable."""

    def close(self) -> None:
        """Flush and release the store; closing twice is fine."""


_END: ContextVar[float | None] = ContextVar("end of a write", default=None)


@contextmanager
def part_of_a_write(until: float = math.inf) -> Iterator[None]:
    """What is read in this block is part of a write: a server that restarts is waited for as long as by a write.

    ``until`` is the moment of ``time.monotonic`` at which all of it must have ended.
    """
    outer = _END.get()
    token = _END.set(until if outer is None else min(until, outer))
    try:
        yield
    finally:
        _END.reset(token)


def end_of_write() -> float | None:
    """Until when the write may take, of which this is a part; None where it is none."""
    return _END.get()


def all_pairs(memory: Memory, batch_size: int = SCROLL_BATCH) -> Iterator[Records]:
    """All pairs in batches (N, D); their number is checked at the end, so that no pair is lost silently.

    Raises:
        MemoryStoreError: another number of pairs was read than the store holds.
    """
    read, before = 0, memory.count()
    for records in memory.scroll(batch_size):
        read += len(records)
        yield records
    after = memory.count()  # others may write meanwhile
    if not min(before, after) <= read <= max(before, after):
        raise MemoryStoreError(
            f"the memory at {memory.location!r} holds {before:,} pairs, and {read:,} could be read. Do it again; if it "
            f"stays so in a folder, {RESTORE}"
        )


def copy(
    source: Memory, target: Memory, *, batch_size: int = SCROLL_BATCH, progress: Callable[[int], object] = int
) -> int:
    """Copy all pairs, and what was learned if the target holds no other pairs; returns how many were read.

    An id that exists in the target is replaced. Opinions are copied by
    :func:`reco_plugin.signals.opinions.add_opinions`.
    ``progress`` gets the number of pairs of each batch.

    Raises:
        MemoryStoreError: also if some pairs could not be read; the others are in the target.
    """
    read = 0
    for records in all_pairs(source, batch_size):
        target.upsert(records)
        read += len(records)
        progress(len(records))
    target.flush()
    if source.header.calibration and target.count() == read:
        target.set_calibration(source.header.calibration)
    return read
