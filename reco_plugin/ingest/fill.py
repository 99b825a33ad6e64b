"""A source of image-text pairs into a memory: read, prepare, encode and write concurrently; run again to resume.

::

    Rows ──► load ──► sift ──► prepare ──► encode ──► Writer ──► memory
             digest   skip     decode,     vectors    repeated,
                      what is  tokenise               excluded rows
                      there

Each arrow is a bounded queue, each stage a thread or a pool; order is kept. A row that cannot be used is a
:class:`~reco_plugin.sources.rows.Rejected` that travels with the others and is listed at the end.
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
from ..sources.same_encoder import SameEncoder
from ..types import Fingerprint, Pair, Records
from ..values import ROW, SOURCE
from .near import Excluded
from .origins import IndexPart
from .prepare import (
    DOWNLOADS,
    Loaded,
    Skipped,
    WriterItem,
    ahead,
    encode,
    fetch_image,
    in_order,
    key_of,
    load,
    make_chunks,
    prepare,
    read_rows,
)
from .run_options import Cluster, IngestOptions
from .write import Outcome, Writer

_INDEXED_S = 36_000.0
"""Seconds that a server may take to index a version: ten million pairs take hours."""
_NAMED = 5  # sources that are told apart
RowProgress = Callable[[int, int], object]
"""Takes the rows since the last call, and all rejected ones."""


def silent(rows: int, rejected: int) -> None:
    """Show no progress."""


def ingest(
    rows: Rows,
    reco: Reco,
    options: IngestOptions | None = None,
    *,
    cluster: Cluster | None = None,
    excluded: Excluded | None = None,
    finish: Callable[[Writer], object] | None = None,
    progress: RowProgress = silent,
    dry_run: bool = False,
) -> Outcome:
    """Read, encode and write rows; rows that the memory already holds are skipped, so a second run resumes.

    Args:
        rows: the source.
        reco: model and memory.
        options: of the run.
        cluster: whose workers read and encode, with the same result; None: this process does.
        excluded: images that must not enter the memory.
        finish: called once all rows are written, before the outcome is complete.
        progress: called after each batch; then a bar on stderr also shows how calibration is learned.
        dry_run: only count what a run would do, as far as ids and contents tell: images are read, but neither fetched
            nor decoded, and nothing is written or deleted.

    Raises:
        DataError: too many rows were rejected, a table changed while it was read, or a task keeps losing its worker;
            what was written stays.
        MemoryStoreError: the memory failed; what was written stays.
        SessionError: the encoder failed.
        ConfigError: the cluster cannot be reached, or has no room for one worker.
        FingerprintMismatch: the source holds vectors of another encoder, as far as captions or pictures tell.
    """
    options, begun = options or IngestOptions(), time.monotonic()
    writer = Writer(reco.memory, options, excluded, partial(_compare_with, reco, rows, options), dry_run=dry_run)
    batches = _load_source(rows, options) if dry_run else _encoded(rows, reco, options, cluster, writer)

    def records() -> Iterator[Records]:
        for batch in batches:
            written = writer.records(batch)
            if len(written):
                yield written
            progress(len(batch), writer.outcome.rejected)
            writer.check_rejected()

    try:
        with closing(batches):
            if dry_run:
                deque(records(), 0)
            else:
                reco.memory.add_records(records(), progress=progress is not silent)
        writer.check_rejected(at_end=True)
        if finish is not None:
            finish(writer)
        if not dry_run:
            reco.memory.settle(progress=progress is not silent)
    finally:
        writer.close()
    writer.outcome.pairs = len(reco.memory)
    writer.outcome.seconds = time.monotonic() - begun
    return writer.outcome


def _encoded(
    rows: Rows, reco: Reco, options: IngestOptions, cluster: Cluster | None, writer: Writer
) -> Generator[Sequence[WriterItem | Loaded], None, None]:
    if cluster is None:
        return encode_source(rows, reco.encoder, writer.sift, options)
    from .ray_engine import encode_on_ray

    return encode_on_ray(rows, reco, cluster, options)


def _compare_with(reco: Reco, rows: Rows, options: IngestOptions) -> SameEncoder:
    indexed = isinstance(rows.parts[0], IndexPart)
    off = "give of=text if they are of its captions, or of=neither to encode its pictures" if indexed else None
    name, private = str(reco.manifest.fingerprint), options.allow_private_urls
    return SameEncoder(reco.encoder, name, rows, off, allow_private=private)


def encode_source(
    rows: Rows,
    encoder: Encoder,
    sift: Callable[[Sequence[Loaded]], Sequence[Loaded | Skipped]],
    options: IngestOptions,
    wanted: Callable[[Pair | Rejected], bool] | None = None,
) -> Generator[list[WriterItem], None, None]:
    """Encode rows to vectors (D,), in batches and in order; reading, decoding and encoding overlap.

    ``wanted`` filters rows, ``sift`` skips those that need no encoding; a single thread calls the encoder.
    """
    with (
        ThreadPoolExecutor(options.decoders, "reco-decode") as pool,
        ThreadPoolExecutor(DOWNLOADS, "reco-fetch") as downloads,
    ):
        read = ahead(_read(rows, options.batch_size, wanted), 2)
        loaded = in_order(pool, load, read, window=2)
        sifted = (_sift(batch, sift) for batch in loaded)
        fetch = partial(fetch_image, allow_private=options.allow_private_urls)
        whole = in_order(downloads, fetch, sifted, window=2)
        prepared = ahead(in_order(pool, partial(prepare, preparation=encoder.preparation), whole, window=2), 1)
        batches = ahead((encode(batch, encoder) for batch in prepared), 2)
        with closing(read), closing(prepared), closing(batches):
            yield from batches


def _load_source(rows: Rows, options: IngestOptions) -> Generator[list[Loaded | Rejected], None, None]:
    with ThreadPoolExecutor(options.decoders, "reco-load") as pool:
        yield from in_order(pool, load, _read(rows, options.batch_size, None), window=2)


def _read(rows: Rows, size: int, wanted: Callable[[Pair | Rejected], bool] | None) -> Generator[list[Any], None, None]:
    found = read_rows(rows.parts)
    if wanted is not None:
        found = (row for row in found if wanted(row if isinstance(row, Rejected) else row[1]))
    yield from make_chunks(found, size)
    rows.check_unchanged()


def _sift(batch: list[Loaded | Rejected], sift: Callable[[Sequence[Loaded]], Sequence[Any]]) -> list[Any]:
    sifted = iter(sift([row for row in batch if isinstance(row, Loaded)]))
    return [next(sifted) if isinstance(row, Loaded) else row for row in batch]


@dataclass
class VersionBuild:
    """One build. Pairs of the version in use that came from elsewhere are copied, unless they shall be dropped."""

    versions: Versions
    fingerprint: Fingerprint
    options: IngestOptions
    fill: Callable[[str, Callable[[Writer], object]], Outcome]
    """Writes the source into the version of this name, and calls the function when all rows are written."""
    read_live: Callable[[], AbstractContextManager[Memory]]
    """Opens the memory in use."""
    read_replaced: Callable[[Version], AbstractContextManager[Memory]]
    """Opens a version that was in use until now."""
    swap: bool = False
    drop_others: bool = False
    resume: bool = False
    late: int = 0
    """Pairs that others added, replaced or deleted in the version before while this one was finished."""
    _copied: dict[int, int] = field(default_factory=dict)  # key of an id -> state in the version before, at the copy
    _built: dict[int, int] = field(default_factory=dict)  # the same in this version, before others write to it

    def run(self) -> tuple[Version, Outcome]:
        """Build the version, and put it to use if that is wanted or nothing is lost by it.

        Raises:
            FingerprintMismatch: the version in use is of another encoder.
            MemoryLocked: the version in use has to be closed or read, and another process has it open.
            MemoryStoreError: the version does not hold what was written.
        """
        versions = self.versions
        live = versions.in_use(self.fingerprint)
        self.swap = self.swap or live is None or live.pairs == 0
        begun = versions.find_unfinished(self.fingerprint) if self.resume else None
        name = versions.begin(self.fingerprint) if begun is None else begun.name
        outcome = self.fill(name, lambda writer: self._finish(writer, live))
        held = outcome.held + outcome.copied
        version = versions.finish(name, held, wait_s=_INDEXED_S)
        if self.swap:
            version = versions.use(name)
            self._carry_over(live)
        return version, outcome

    def _finish(self, writer: Writer, live: Version | None) -> None:
        """Make the new version hold the source's pairs, and those from elsewhere."""
        writer.delete_others()
        if live is None:
            return
        if self.swap and not self.drop_others:
            with self.read_live() as store:
                self._copied = {key_of(id_): state for id_, state in _states(store)}
                others = self._find_others(store, writer.memory.store)
                for records in store.scroll(INGEST_BATCH, list(others)):
                    writer.keep(records)
            self._built = {key_of(id_): state for id_, state in _states(writer.memory.store)}
            writer.outcome.others = dict(Counter(others.values()))
        live = self.versions.in_use(self.fingerprint) or live  # with what was said meanwhile
        add_opinions(writer.memory.store, live.header.said.values())

    def _find_others(self, old: Memory, new: Memory) -> dict[str, str]:
        """Id -> source (empty: none) of the pairs that came from elsewhere and that the new version lacks."""
        others = {
            id_: str(payload.get(SOURCE, "")) for id_, payload in old.payloads() if not self.options.brought(payload)
        }
        held = {id_ for id_, _ in new.payloads(list(others))} if others else set()
        return {id_: source for id_, source in others.items() if id_ not in held}

    def _carry_over(self, before: Version | None) -> None:
        """Repeat what others wrote to the version before between the copy and the swap: they were told it is stored.

        A pair that somebody wrote to the new version since the swap stays: that write is the later one.
        """
        if before is None or self.drop_others:
            return
        try:
            with self.read_replaced(before) as old, self.read_live() as new:
                now = _states(old)
                changed = {id_: state for id_, state in now if self._copied.pop(key_of(id_), None) != state}
                gone = [id_ for id_, _ in new.payloads() if key_of(id_) in self._copied] if self._copied else []
                for ids in chunks([*changed, *gone], INGEST_BATCH):
                    there = dict(_states(new, ids))
                    untouched = [id_ for id_ in ids if there.get(id_) == self._built.get(key_of(id_))]
                    late = [id_ for id_ in untouched if there.get(id_) != changed.get(id_)]
                    for records in old.scroll(ids=late):
                        new.upsert(records)
                    new.delete([id_ for id_ in late if id_ not in changed])
                    self.late += len(late)
                new.flush()
        except MemoryLocked as error:
            warnings.warn(f"what others wrote until the swap may be missing: {error}", stacklevel=2)


def _states(store: Memory, ids: Sequence[str] | None = None) -> Iterator[tuple[str, int]]:
    """Id and state of all pairs, or of ``ids``: a hash of the row that brought a pair, else of the whole pair.

    The mark of a row stands for its vectors, so only those of the other pairs are read.
    """
    bare = []
    for id_, payload in store.payloads(ids):
        if ROW in payload:
            yield id_, key_of(str(payload[ROW]), str(payload.get(SOURCE)))
        else:
            bare.append(id_)
    for records in store.scroll(INGEST_BATCH, bare):
        for id_, image, text, payload in zip(records.ids, records.image, records.text, records.payloads, strict=True):
            yield id_, key_of(image.tobytes().hex(), text.tobytes().hex(), json.dumps(payload, sort_keys=True))


def describe_sources(sources: dict[str, int]) -> str:
    """How many pairs came from where, the most first.

    >>> describe_sources({"": 5490, "/srv/more.csv": 6})
    '5,490 without a source (by `add`, HTTP or a program), 6 of /srv/more.csv'
    """
    return ", ".join(
        f"{count:,} {f'of {name}' if name else 'without a source (by `add`, HTTP or a program)'}"
        for name, count in Counter(sources).most_common(_NAMED)
    )
