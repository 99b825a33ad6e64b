"""Move pairs from one memory to another, of whichever kinds, and go on after an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..types import Pair, Records
from .base import Memory


def lacking(records: Records, memory: Memory) -> Records:
    """Those of these pairs whose ids a memory does not hold."""
    there = {name for batch in memory.scroll(len(records) or 1, ids=records.ids) for name in batch.ids}
    rows = [row for row, name in enumerate(records.ids) if name not in there]
    if len(rows) == len(records):
        return records
    return Records(
        [records.ids[row] for row in rows],
        records.image[rows],
        records.text[rows],
        [records.payloads[row] for row in rows],
    )


def lacking_pairs(pairs: Iterable[Pair], memory: Memory, batch_size: int = 1024) -> Iterator[Pair]:
    """Those of these raw pairs whose ids a memory does not hold, so that only they are encoded."""
    batch: list[Pair] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == batch_size:
            yield from _absent(batch, memory)
            batch = []
    yield from _absent(batch, memory)


def copy(source: Memory, target: Memory, *, batch_size: int = 1024, resume: bool = False) -> Iterator[int]:
    """Copy all pairs, and the gate's constants when the target holds nothing else; yields how many each batch had.

    Args:
        source: where they are.
        target: where they go; an id that exists there is replaced.
        batch_size: pairs per read.
        resume: leave out pairs whose ids the target holds already.
    """
    for records in source.scroll(batch_size):
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
