"""Move pairs from one memory to another, of whichever kinds, and go on after an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..defaults import SCROLL_BATCH
from ..errors import MemoryStoreError
from ..types import Pair, Records
from .base import Memory


def lacking(records: Records, memory: Memory) -> Records:
    """Those of these pairs whose ids a memory does not hold."""
    there = {name for batch in memory.scroll(len(records) or 1, ids=records.ids) for name in batch.ids}
    return records.take([name not in there for name in records.ids])


def all_pairs(memory: Memory, batch_size: int = SCROLL_BATCH) -> Iterator[Records]:
    """All pairs in batches; at the end it is counted, so that none is left out unnoticed.

    Raises:
        MemoryStoreError: the store gave out another number of pairs than it holds.
    """
    read, before = 0, memory.count()
    for records in memory.scroll(batch_size):
        read += len(records)
        yield records
    after = memory.count()  # others may write meanwhile
    if not min(before, after) <= read <= max(before, after):
        raise MemoryStoreError(
            f"the memory at {memory.location!r} holds {before:,} pairs, and {read:,} could be read. Do it again; if it "
            "stays so in an embedded memory, copy what can be read: reco memory rescue --help"
        )


def lacking_pairs(pairs: Iterable[Pair], memory: Memory, batch_size: int = SCROLL_BATCH) -> Iterator[Pair]:
    """Those of these raw pairs whose ids a memory does not hold, so that only they are encoded."""
    batch: list[Pair] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == batch_size:
            yield from _absent(batch, memory)
            batch = []
    yield from _absent(batch, memory)


def copy(source: Memory, target: Memory, *, batch_size: int = SCROLL_BATCH, resume: bool = False) -> Iterator[int]:
    """Copy all pairs, and the gate's constants when the target holds nothing else; yields how many each batch had.

    Args:
        source: where they are.
        target: where they go; an id that exists there is replaced.
        batch_size: pairs per read.
        resume: leave out pairs whose ids the target holds already.

    Raises:
        MemoryStoreError: also where not all pairs could be read; what could be is in the target.
    """
    for records in all_pairs(source, batch_size):
        wanted = lacking(records, target) if resume else records
        if len(wanted):
            target.upsert(wanted)
        yield len(records)
    target.flush()
    if source.header.calibration and target.count() == source.count():
        target.set_calibration(source.header.calibration)


def _absent(batch: list[Pair], memory: Memory) -> Iterator[Pair]:
    ids = list(dict.fromkeys(pair.id for pair in batch))
    there = {name for found in memory.scroll(len(ids), ids=ids) for name in found.ids} if ids else set()
    return (pair for pair in batch if pair.id not in there)
