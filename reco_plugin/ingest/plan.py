"""Before a run: what it would do, without decoding, encoding or writing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from ..data.rows import Rejected, Rows
from ..memory import Memory
from ..types import Payload
from ..values import ROW
from .options import IngestOptions
from .prepare import Loaded, in_order, key_of, load, make_chunks, read_rows
from .write import Outcome, too_many


@dataclass
class Plan(Outcome):
    """The expected outcome of a run, in the same counts."""

    refused: str | None = None  # why the run would refuse to delete ``deleted`` pairs, and fail; None if it would not


def plan(
    rows: Rows,
    memory: Memory,
    options: IngestOptions,
    *,
    max_delete: float | None = None,
    progress: Callable[[int, int], object],
) -> Plan:
    """Count what :func:`~reco_plugin.ingest.run.ingest` would do, as far as ids and digests tell.

    Images are read but not decoded, remote ones not fetched: errors that show only then are not counted, and neither
    are near-duplicates and excluded images. With ``max_delete``, the share of pairs that may be deleted, the pairs gone
    from the source ``options.source`` are counted too. ``progress`` is called after each batch.
    """
    begun, tally, outcome = time.monotonic(), _Tally(), Plan()
    with ThreadPoolExecutor(thread_name_prefix="reco-load") as pool:
        batches = in_order(pool, load, make_chunks(read_rows(rows.parts), options.batch_size), window=2)
        with closing(batches):
            for batch in batches:
                outcome.read += len(batch)
                held = dict(memory.payloads(list({row.pair.id for row in batch if isinstance(row, Loaded)})))
                for row in batch:
                    tally.count(row, held, options, outcome)
                progress(len(batch), outcome.rejected)
    rows.check_unchanged()
    if max_delete is not None:
        ours = [key_of(id_) for id_, payload in memory.payloads() if options.brought(payload)]
        gone = sum(key not in tally.named for key in ours)
        outcome.kept, outcome.deleted = (gone, 0) if tally.unnamed else (0, gone)
        outcome.refused = too_many(outcome.deleted, len(ours) + tally.coming, options.source, max_delete)
    outcome.pairs, outcome.seconds = memory.count(), time.monotonic() - begun
    return outcome


class _Tally:
    """Rows of the source seen so far."""

    def __init__(self) -> None:
        self.named: dict[int, str | None] = {}  # keys of ids -> digests of good rows
        self.unnamed = 0  # rejected rows without an id
        self.coming = 0  # pairs that are new to this source

    def count(self, row: Loaded | Rejected, held: Mapping[str, Payload], options: IngestOptions, outcome: Plan) -> None:
        """Count one row as the run would."""
        if isinstance(row, Rejected):
            outcome.rejected += 1
            self.unnamed += row.id is None
            if row.id is not None:
                self.named.setdefault(key_of(row.id), None)
        elif (first := self.named.get(key := key_of(row.pair.id))) is not None:
            outcome.repeated += first == row.digest
            outcome.rejected += first != row.digest
        else:
            self.named[key] = row.digest
            there = held.get(row.pair.id)
            self.coming += there is None or not options.brought(there)
            same = there is not None and there.get(ROW) == row.digest
            outcome.missing += there is None and options.only_known
            outcome.added += there is None and not options.only_known
            outcome.unchanged += same
            outcome.replaced += there is not None and not same
