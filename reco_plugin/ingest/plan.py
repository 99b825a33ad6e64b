"""Before a run: what it would do, without decoding, encoding or writing; and pairs that a new version would lack."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from ..data.rows import Rejected, Rows
from ..defaults import INGEST_BATCH
from ..errors import MemoryStoreError
from ..memory import Memory
from ..types import Payload
from ..values import ROW, SOURCE
from .options import IngestOptions
from .prepare import Loaded, in_order, key_of, load, make_chunks, read_rows
from .write import Outcome, Writer, too_many

NOWHERE = ""
"""In counts: pairs without a source, which came by `add`, `import`, HTTP or from a program."""


@dataclass
class Others:
    """The other pairs of a version in use."""

    ids: list[str] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)  # by which source brought them

    @classmethod
    def of(cls, live: Memory, options: IngestOptions, brings: Callable[[str], bool]) -> Others:
        """Those that are neither of this source, nor of an id that it has; reads all payloads."""
        found = cls()
        for id_, payload in live.payloads():
            if not options.brought(payload) and not brings(id_):
                found.ids.append(id_)
                found.sources[str(payload.get(SOURCE, NOWHERE))] += 1
        return found

    def refuse(self, source: str, live: str, built: str) -> None:
        """Stop, if there are any; ``built`` says what becomes of what was built so far.

        Raises:
            MemoryStoreError: naming them, and both ways on.
        """
        if self.ids:
            raise MemoryStoreError(
                f"{len(self.ids):,} pairs of {live}, which is in use, came from elsewhere and are not in {source}: "
                f"{describe_sources(self.sources)}. Give --keep-others to copy them into the new version, or "
                f"--drop-others to leave them out; {built}"
            )

    def copy(self, live: Memory, writer: Writer) -> None:
        """Copy them into the memory of a writer."""
        for start in range(0, len(self.ids), INGEST_BATCH):
            for records in live.scroll(INGEST_BATCH, self.ids[start : start + INGEST_BATCH]):
                writer.keep(records)


def describe_sources(sources: Mapping[str, int]) -> str:
    """How many pairs came from where, the most first.

    >>> describe_sources({"": 5490, "/srv/more.csv": 6})
    '5,490 without a source (by `add`, `import`, HTTP or a program), 6 of /srv/more.csv'
    """
    most = Counter(sources).most_common(_NAMED)
    said = [f"{count:,} {f'of {name}' if name else _WITHOUT}" for name, count in most]
    more = len(sources) - len(most)
    return ", ".join([*said, *([f"and those of {more:,} more sources"] if more else [])])


_NAMED = 5
_WITHOUT = "without a source (by `add`, `import`, HTTP or a program)"


def find_others(live: Memory, options: IngestOptions, rows: Rows, progress: Callable[[int, int], object]) -> Others:
    """The same before anything is encoded; the rows are read, no image is decoded or fetched."""
    if all(options.brought(payload) for _, payload in live.payloads()):
        return Others()
    named: set[int] = set()
    for row in read_rows(rows.parts):
        id_ = row[1].id if isinstance(row, tuple) else row.id
        if id_ is not None:
            named.add(key_of(id_))
        progress(1, 0)
    return Others.of(live, options, lambda id_: key_of(id_) in named)


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
