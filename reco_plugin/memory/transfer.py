"""Copy one memory to another, of any kinds: pairs, and what was learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from ..defaults import SCROLL_BATCH
from ..errors import MemoryStoreError
from ..types import Records
from .base import Memory


def lacking(records: Records, memory: Memory) -> Records:
    """The records, vectors (N, D), whose ids a memory does not hold."""
    held = _held(records.ids, memory)
    return records.take([name not in held for name in records.ids])


def all_pairs(memory: Memory, batch_size: int = SCROLL_BATCH) -> Iterator[Records]:
    """All pairs in batches (N, D); their number is checked at the end, so that no pair is lost silently.

    Of a damaged folder, see :mod:`.damaged`, what can be read.

    Raises:
        MemoryStoreError: another number of pairs was read than the store holds.
    """
    read, before = 0, memory.count()
    for records in memory.scroll(batch_size):
        read += len(records)
        yield records
    read += len(getattr(memory, "left", ()))
    after = memory.count()  # others may write meanwhile
    if not min(before, after) <= read <= max(before, after):
        raise MemoryStoreError(
            f"the memory at {memory.location!r} holds {before:,} pairs, and {read:,} could be read. Do it again; if it "
            "stays so in a folder, copy what can be read: reco memory copy --damaged"
        )


def find_other(memory: Memory, source: Memory) -> str | None:
    """The id of a pair in a memory that the source does not hold; None if it holds all."""
    names = (name for name, _ in memory.payloads())
    while batch := list(islice(names, SCROLL_BATCH)):
        held = _held(batch, source)
        if other := next((name for name in batch if name not in held), None):
            return other
    return None


def copy(
    source: Memory, target: Memory, *, batch_size: int = SCROLL_BATCH, progress: Callable[[int], object] = int
) -> int:
    """Copy all pairs, and what was learned if the target holds no other pairs; returns how many were read.

    An id that exists in the target is replaced. What people said is copied by :func:`reco_plugin.opinions.add_said`.
    ``progress`` gets the number of pairs of each batch.

    Raises:
        MemoryStoreError: also if some pairs could not be read; the others are in the target.
    """
    read = 0
    for records in all_pairs(source, batch_size):
        target.upsert(records)
        target.set_caption_scores(records.ids, source.caption_scores(list(records.ids)))
        read += len(records)
        progress(len(records))
    target.flush()
    if source.header.calibration and target.count() == read:
        target.set_calibration(source.header.calibration)
    return read


def _held(ids: Sequence[str], memory: Memory) -> set[str]:
    return {name for name, _ in memory.payloads(list(dict.fromkeys(ids)))}
