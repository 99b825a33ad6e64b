"""Move pairs from one memory to another, of whichever kinds, and go on after an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ..defaults import SCROLL_BATCH
from ..errors import MemoryStoreError
from ..types import Pair, Records
from .base import Memory


def lacking(records: Records, memory: Memory) -> Records:
    """Those of these pairs whose ids a memory does not hold."""
    held = _held(records.ids, memory)
    return records.take([name not in held for name in records.ids])


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
    source = iter(pairs)
    while batch := list(islice(source, batch_size)):
        held = _held([pair.id for pair in batch], memory)
        yield from (pair for pair in batch if pair.id not in held)


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


def _held(ids: Sequence[str], memory: Memory) -> set[str]:
    return {name for name, _ in memory.payloads(list(dict.fromkeys(ids)))}
