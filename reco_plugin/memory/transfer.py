"""Copy one memory to another, of any kinds: pairs, and what was learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..defaults import SCROLL_BATCH
from ..errors import MemoryStoreError
from ..types import Records
from .base import Memory
from .header import RESTORE


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
    :func:`reco_plugin.extras.opinions.add_opinions`.
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
