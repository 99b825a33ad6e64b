"""One run from a source into the memory of an open Reco, all stages concurrently, here or on a Ray cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

from ..data.rows import Rejected, Rows
from ..data.same_encoder import SameEncoder
from ..encode import Encoder
from ..reco import Reco
from ..types import Pair, Records
from .near import Excluded
from .options import Cluster, IngestOptions
from .prepare import (
    DOWNLOADS,
    Loaded,
    Skipped,
    WriterItem,
    ahead,
    encode,
    fetch_image,
    in_order,
    load,
    make_chunks,
    prepare,
    read_rows,
)
from .source import IndexPart
from .write import Outcome, Writer

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
    writer = Writer(reco.memory, options, excluded, partial(_compare_with, reco, rows), dry_run=dry_run)
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


def _compare_with(reco: Reco, rows: Rows) -> SameEncoder:
    indexed = isinstance(rows.parts[0], IndexPart)
    off = "give of=text if they are of its captions, or of=neither to encode its pictures" if indexed else None
    return SameEncoder(reco.encoder, str(reco.manifest.fingerprint), rows, off)


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
        whole = in_order(downloads, fetch_image, sifted, window=2)
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
