"""Fill a memory, or a version of one, from a source: read, prepare, encode and write concurrently; resumable.

::

    Rows ──► load ──► sift ──► prepare ──► encode ──► Writer ──► memory
             digest   skip     decode,     vectors    drop repeated
                      stored   tokenise               and excluded rows
                      rows

Each arrow is a bounded queue, each stage a thread or a pool. The order of rows is kept. A row that cannot be used
becomes a :class:`~reco_plugin.sources.rows.Rejected`, which passes through all stages and is listed at the end.
"""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..defaults import INGEST_BATCH
from ..encoders.local import Encoder
from ..errors import MemoryLocked
from ..memory import Memory
from ..memory.checks import chunks
from ..memory.versions import Version, Versions
from ..reco import Reco
from ..signals.opinions import add_opinions
from ..sources.rows import Rejected, Rows
from ..sources.same_encoder import EncoderCheck
from ..types import Fingerprint, Pair, Records
from ..values import ROW, SOURCE
from .near import ExcludedImages
from .prepare import (
    DOWNLOADS,
    Loaded,
    Skipped,
    WriterItem,
    encode,
    fetch_image,
    hash64,
    load,
    make_chunks,
    map_in_order,
    prepare,
    read_ahead,
    read_rows,
)
from .run_options import Cluster, IngestOptions
from .write import Outcome, Writer

_INDEXING_TIMEOUT_S = 36_000.0
"""For a server to index a version; ten million pairs take hours."""
_MAX_SOURCES = 5  # in a message
RowProgress = Callable[[int, int], object]
"""Called with the rows since the last call, and all rejected rows."""


def no_progress(rows: int, rejected: int) -> None:
    """Show no progress."""


def ingest(
    rows: Rows,
    reco: Reco,
    options: IngestOptions | None = None,
    *,
    cluster: Cluster | None = None,
    excluded: ExcludedImages | None = None,
    finish: Callable[[Writer], object] | None = None,
    progress: RowProgress = no_progress,
    dry_run: bool = False,
) -> Outcome:
    """Read, encode and write rows. Rows that the memory already holds are skipped, so a second run resumes the first.

    Args:
        rows: the source.
        reco: model and memory.
        options: how rows are written.
        cluster: its workers read and encode, with the same result; None: this process does.
        excluded: images that must not enter the memory.
        finish: called when all rows are written.
        progress: called after each batch; with it, a bar on stderr shows how calibration is learned.
        dry_run: only count what a run would do, by ids and contents: image files are read, but nothing is fetched,
            decoded, written or deleted.

    Raises:
        DataError: too many rows were rejected, a table changed while it was read, or a task lost its worker several
            times. What was written stays.
        MemoryStoreError: the memory failed. What was written stays.
        SessionError: the encoder failed.
        ConfigError: the cluster cannot be reached, or has no room for one worker.
        FingerprintMismatch: captions or pictures show that the source's vectors are of another encoder.
    """
    options, begun = options or IngestOptions(), time.monotonic()
    writer = Writer(reco.memory, options, excluded, dry_run=dry_run)
    batches = _load_source(rows, options) if dry_run else _encode(rows, reco, options, cluster, writer)

    def records() -> Iterator[Records]:
        for batch in batches:
            written = writer.records(batch)
            if len(written):
                yield written
            progress(len(batch), writer.outcome.rejected)
            writer.rejected.check(writer.outcome.read)

    try:
        with closing(batches):
            if dry_run:
                deque(records(), 0)
            else:
                reco.memory.add_records(records(), progress=progress is not no_progress)
        writer.rejected.check(writer.outcome.read, at_end=True)
        if finish is not None:
            finish(writer)
        if not dry_run:
            reco.memory.settle(progress=progress is not no_progress)
    finally:
        writer.close()
    writer.outcome.pairs = len(reco.memory)
    writer.outcome.seconds = time.monotonic() - begun
    return writer.outcome


def _encode(
    rows: Rows, reco: Reco, options: IngestOptions, cluster: Cluster | None, writer: Writer
) -> Generator[Sequence[WriterItem | Loaded], None, None]:
    name, private = str(reco.manifest.fingerprint), options.allow_private_urls
    writer.check = EncoderCheck(reco.encoder, name, rows, allow_private=private)
    if cluster is None:
        return encode_source(rows, reco.encoder, writer.sift, options)
    from .ray_engine import encode_on_ray

    return encode_on_ray(rows, reco, cluster, options)


def encode_source(
    rows: Rows,
    encoder: Encoder,
    sift: Callable[[Sequence[Loaded]], Sequence[Loaded | Skipped]],
    options: IngestOptions,
    wanted: Callable[[Pair | Rejected], bool] | None = None,
) -> Generator[list[WriterItem], None, None]:
    """Encode rows to vectors (D,), in batches and in order. Reading, decoding and encoding overlap.

    ``wanted`` filters the rows of the source, ``sift`` skips rows that need no encoding. One thread calls the encoder.
    """
    with (
        ThreadPoolExecutor(options.decoders, "reco-decode") as pool,
        ThreadPoolExecutor(DOWNLOADS, "reco-fetch") as downloads,
    ):
        read = read_ahead(_read(rows, options.batch_size, wanted), 2)
        loaded = map_in_order(pool, load, read, window=2)
        sifted = (_sift(batch, sift) for batch in loaded)
        fetch = partial(fetch_image, allow_private=options.allow_private_urls)
        whole = map_in_order(downloads, fetch, sifted, window=2)
        prepared = read_ahead(map_in_order(pool, partial(prepare, preparation=encoder.preparation), whole, window=2), 1)
        batches = read_ahead((encode(batch, encoder) for batch in prepared), 2)
        with closing(read), closing(prepared), closing(batches):
            yield from batches


def _load_source(rows: Rows, options: IngestOptions) -> Generator[list[Loaded | Rejected], None, None]:
    with ThreadPoolExecutor(options.decoders, "reco-load") as pool:
        yield from map_in_order(pool, load, _read(rows, options.batch_size, None), window=2)


def _read(rows: Rows, size: int, wanted: Callable[[Pair | Rejected], bool] | None) -> Generator[list[Any], None, None]:
    read = read_rows(rows.parts)
    if wanted is not None:
        read = (row for row in read if wanted(row if isinstance(row, Rejected) else row[1]))
    yield from make_chunks(read, size)
    rows.check_unchanged()


def _sift(batch: list[Loaded | Rejected], sift: Callable[[Sequence[Loaded]], Sequence[Any]]) -> list[Any]:
    sifted = iter(sift([row for row in batch if isinstance(row, Loaded)]))
    return [next(sifted) if isinstance(row, Loaded) else row for row in batch]


@dataclass
class VersionBuild:
    """Builds a version from a source, and copies the pairs of other sources from the version in use."""

    versions: Versions
    fingerprint: Fingerprint
    options: IngestOptions
    fill: Callable[[str, Callable[[Writer], object]], Outcome]  # of a version's name; calls the function after the rows
    read_live: Callable[[], AbstractContextManager[Memory]]  # opens the memory in use
    read_replaced: Callable[[Version], AbstractContextManager[Memory]]  # opens the version in use before the swap
    swap: bool = False  # whether to put the version to use; always done if the one in use is missing or empty
    drop_others: bool = False  # whether to leave out the pairs of other sources
    resume: bool = False  # whether to continue an unfinished version
    late: int = 0  # pairs that others changed in the previous version between the copy and the swap
    _copied: dict[int, int] = field(default_factory=dict)  # hash of an id -> state in the previous version, at the copy
    _built: dict[int, int] = field(default_factory=dict)  # the same in this version, before the swap

    def run(self) -> tuple[Version, Outcome]:
        """Build the version, and put it to use if requested.

        Raises:
            FingerprintMismatch: the version in use is of another encoder.
            MemoryLocked: another process has the version in use open.
            MemoryStoreError: the version lacks pairs that were written.
        """
        versions = self.versions
        live = versions.in_use(self.fingerprint)
        self.swap = self.swap or live is None or live.pairs == 0
        begun = versions.find_unfinished(self.fingerprint) if self.resume else None
        name = versions.begin(self.fingerprint) if begun is None else begun.name
        outcome = self.fill(name, lambda writer: self._finish(writer, live))
        held = outcome.held + outcome.copied
        version = versions.finish(name, held, wait_s=_INDEXING_TIMEOUT_S)
        if self.swap:
            version = versions.use(name)
            self._carry_over(live)
        return version, outcome

    def _finish(self, writer: Writer, live: Version | None) -> None:
        """Complete the new version: delete what is not in the source, copy pairs of other sources and the feedback."""
        writer.delete_others()
        if live is None:
            return
        if self.swap and not self.drop_others:
            with self.read_live() as store:
                self._copied = {hash64(id_): state for id_, state in _states(store)}
                others = self._find_others(store, writer.memory.store)
                for records in store.scroll(INGEST_BATCH, list(others)):
                    writer.keep(records)
            self._built = {hash64(id_): state for id_, state in _states(writer.memory.store)}
            writer.outcome.others = dict(Counter(others.values()))
        live = self.versions.in_use(self.fingerprint) or live  # with the newest feedback
        add_opinions(writer.memory.store, live.header.said.values())

    def _find_others(self, old: Memory, new: Memory) -> dict[str, str]:
        """Id -> source (empty: none) of the pairs of other sources that the new version lacks."""
        others = {
            id_: str(payload.get(SOURCE, ""))
            for id_, payload in old.payloads()
            if not self.options.is_from_source(payload)
        }
        held = {id_ for id_, _ in new.payloads(list(others))} if others else set()
        return {id_: source for id_, source in others.items() if id_ not in held}

    def _carry_over(self, before: Version | None) -> None:
        """Repeat changes that others made in the previous version between the copy and the swap.

        A pair that was written to the new version after the swap stays, because that write is later.
        """
        if before is None or self.drop_others:
            return
        try:
            with self.read_replaced(before) as old, self.read_live() as new:
                now = _states(old)
                changed = {id_: state for id_, state in now if self._copied.pop(hash64(id_), None) != state}
                gone = [id_ for id_, _ in new.payloads() if hash64(id_) in self._copied] if self._copied else []
                for ids in chunks([*changed, *gone], INGEST_BATCH):
                    states = dict(_states(new, ids))
                    untouched = [id_ for id_ in ids if states.get(id_) == self._built.get(hash64(id_))]
                    late = [id_ for id_ in untouched if states.get(id_) != changed.get(id_)]
                    for records in old.scroll(ids=late):
                        new.upsert(records)
                    new.delete([id_ for id_ in late if id_ not in changed])
                    self.late += len(late)
                new.flush()
        except MemoryLocked as error:
            warnings.warn(f"changes by others before the swap may be missing: {error}", stacklevel=2)


def _states(store: Memory, ids: Sequence[str] | None = None) -> Iterator[tuple[str, int]]:
    """Id and state of all pairs, or of ``ids``. The state is a hash of the source's row, or of a pair without a row.

    Vectors are read only for pairs without a row.
    """
    without_row = []
    for id_, payload in store.payloads(ids):
        if ROW in payload:
            yield id_, hash64(str(payload[ROW]), str(payload.get(SOURCE)))
        else:
            without_row.append(id_)
    for records in store.scroll(INGEST_BATCH, without_row):
        for id_, image, text, payload in zip(records.ids, records.image, records.text, records.payloads, strict=True):
            yield id_, hash64(image.tobytes().hex(), text.tobytes().hex(), json.dumps(payload, sort_keys=True))


def describe_sources(sources: dict[str, int]) -> str:
    """Count the pairs of each source, the largest first.

    >>> describe_sources({"": 5490, "/srv/more.csv": 6})
    '5,490 without a source (by `add`, HTTP or a program), 6 of /srv/more.csv'
    """
    return ", ".join(
        f"{count:,} {f'of {name}' if name else 'without a source (by `add`, HTTP or a program)'}"
        for name, count in Counter(sources).most_common(_MAX_SOURCES)
    )
