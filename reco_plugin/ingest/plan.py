"""What a run would do, without decoding, encoding or writing anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from ..data.rows import Rejected, Rows
from ..memory import Memory
from ..types import Payload
from .items import Loaded
from .load import load, numbered
from .marks import ROW, SOURCE
from .options import Options
from .outcome import Outcome
from .stages import chunked, in_order
from .write import key_of


def plan(
    rows: Rows, memory: Memory, options: Options, *, deletes: bool = False, progress: Callable[[int, int], object]
) -> Outcome:
    """Count what :func:`~reco_plugin.ingest.run.ingest` would do, as far as ids and digests tell.

    Images are read and not decoded, remote ones not fetched: what only shows then counts as good. Near-duplicates and
    excluded images are not looked for.

    Args:
        rows: the source.
        memory: is only read.
        options: how.
        deletes: also count the pairs that are gone from the source ``options.source``.
        progress: told after each batch.
    """
    begun, seen, named, unnamed, outcome = time.monotonic(), set[int](), set[int](), 0, Outcome()
    with ThreadPoolExecutor(options.decoders or None, "reco-load") as pool:
        batches = in_order(pool, load, chunked(numbered(rows.parts), options.batch_size), window=2)
        with closing(batches):
            for batch in batches:
                outcome.read += len(batch)
                held = dict(memory.payloads(list({row.pair.id for row in batch if isinstance(row, Loaded)})))
                for row in batch:
                    if isinstance(row, Rejected):
                        outcome.rejected += 1
                        unnamed += row.id is None
                        named |= {key_of(row.id)} if row.id is not None else set()
                    elif (key := key_of(row.pair.id)) in seen:
                        outcome.rejected += 1
                    else:
                        seen.add(key)
                        _count(row, held.get(row.pair.id), options, outcome)
                progress(len(batch), outcome.rejected)
    if deletes:
        seen |= named
        ours = (id_ for id_, payload in memory.payloads() if payload.get(SOURCE) == options.source)
        gone = sum(key_of(id_) not in seen for id_ in ours)
        outcome.kept, outcome.deleted = (gone, 0) if unnamed else (0, gone)
    outcome.pairs, outcome.seconds = memory.count(), time.monotonic() - begun
    return outcome


def _count(row: Loaded, held: Payload | None, options: Options, outcome: Outcome) -> None:
    if held is None:
        outcome.missing += options.only_known
        outcome.added += not options.only_known
    else:
        same = held.get(ROW) == row.digest
        outcome.unchanged += same
        outcome.replaced += not same
