"""The disk of an embedded memory: free space is checked before a write, and damaged files before Edge opens them.

Qdrant Edge writes through memory-mapped sparse files of 32 MB. When the file system has no block left for a hole, no
call fails: SIGBUS kills the process, and a service with it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import qdrant_edge as qe

from ..errors import MemoryFull, MemoryStoreError
from ..files import PARTIAL
from ..types import MODALITIES, Payload, caption_of
from .header import RESTORE, write_error
from .points import WORDS, locked_error

SHARD_NAME, _LOG_NAME = "shard", "wal"
"""The folder of a memory's shard, and in it that of its log."""
SPARE_BYTES = 32 * 2**20
"""Kept free when pairs are written: for flushing, header, lists, deletions, and other writers."""
LAST_BYTES = 2**20
"""Kept free when pairs are deleted."""
_MARK, _TRACKER = "version.info", "mutable_id_tracker"  # of a segment that is whole, and of its pairs; Edge's names
_FACTOR, _PAIR_BYTES = 3, 300  # measured: 2.3 times vectors and payloads as JSON, the log included, and 300 bytes
_WORD_BYTES = 12  # of a caption's words, for each character: a word takes 24, and may be a single one and a space


def check_room(folder: Path, doing: str, wanted: int, spare: int = SPARE_BYTES) -> None:
    """Refuse an operation ("write to") that may take ``wanted`` bytes of a memory's disk, if ``spare`` are not left.

    Raises:
        MemoryFull: there is not enough space.
        MemoryReadOnly: the folder is gone; Edge would go on in files that nobody finds again.
    """
    try:
        disk = shutil.disk_usage(folder)
    except OSError as error:
        raise write_error(folder, error) from error
    if disk.total and disk.free < wanted + spare:  # some network file systems report only zeros
        raise MemoryFull(
            f"cannot {doing} the memory at {str(folder)!r}: its disk has {_megabytes(disk.free)} left, this may take "
            f"{_megabytes(wanted)}, and {_megabytes(spare)} must stay free, because a full disk kills the process. "
            "Make room there, or move the folder to a larger disk, and do the same again; what was written stays"
        )


def bytes_of_pairs(dimension: int, payloads: Sequence[Payload]) -> int:
    """Bytes that writing pairs may take, in the log and in the storage."""
    vectors = len(MODALITIES) * 4 * dimension
    words = _WORD_BYTES * sum(len(caption_of(payload) or "") for payload in payloads)
    return words + sum(_FACTOR * (vectors + len(json.dumps(payload))) + _PAIR_BYTES for payload in payloads)


def _megabytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def make_shard(path: Path, dimension: int) -> None:
    """Create an empty shard, atomically."""
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    words = {WORDS: qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)}
    # pages are read as they are asked for: vectors in RAM are read whole, 64 MB also for a dozen pairs
    config = _config(dimension, qe.Memory.Cold, wal_enabled=True, sparse_vectors=words)
    qe.EdgeShard.create(str(partial), config).close()
    partial.rename(path)


def load_shard(path: Path, dimension: int) -> qe.EdgeShard:
    """Load a shard of vectors (D,), whose searches then run in the thread that asks.

    Edge has eight threads or more for them, of which one works, since our shards have one segment, and the others look
    for work: who asks waits behind them for its turn on a core, with Python's lock in its hand. Of two idle cores,
    32 queries to 500 pairs took 3.8 ms so, and take 1.3.
    """
    check_segments(path)
    return qe.EdgeShard.load(str(path), _config(dimension))


def check_unlocked(path: Path) -> None:
    """Refuse a shard that is open elsewhere, before Edge opens it.

    Edge looks at the lock of its log last, after it has opened the segments for writing: whoever has the shard open can
    no longer write to them then ("Tracker journal … is shorter than expected").

    Raises:
        MemoryLocked: it is open in another process, or in this one.
    """
    try:
        import fcntl

        handle = os.open(path / _LOG_NAME, os.O_RDONLY)
    except (ImportError, OSError):  # Edge itself says what is wrong
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise locked_error(str(path.parent)) from None
    finally:
        os.close(handle)


def check_segments(path: Path) -> None:
    """Refuse a shard without a file that says which pairs its vectors are of, before Edge opens it.

    Edge takes a segment without one for empty, deletes it or writes over its vectors, and shows what its log still
    holds: 1,000 of 12,000 pairs.

    Raises:
        MemoryLocked: it is open elsewhere.
        MemoryStoreError: naming the file.
    """
    check_unlocked(path)
    segments = [one for one in path.glob("segments/*") if one.is_dir()]
    if not segments:
        raise MemoryStoreError(f"{path}/segments holds nothing, and pairs would be there: {RESTORE}")
    for segment in segments:
        written = _vectors_written(segment)
        if not written:
            continue
        needed = [_MARK]
        if not any(segment.glob("id_tracker.*")):  # of a segment that is no longer written to
            needed.append(f"{_TRACKER}.mappings")
            if _log_was_emptied(path):  # else they may not have been written yet, and it holds all pairs
                needed.append(f"{_TRACKER}.versions")
        for name in needed:
            if not (segment / name).is_file() or not (segment / name).stat().st_size:
                raise MemoryStoreError(
                    f"{segment / name} is missing or cut off, without which the {written:,} pairs beside it would be "
                    f"taken for none: {RESTORE}"
                )


def _vectors_written(segment: Path) -> int:
    """How many vectors were written to a segment and flushed; 0 where its file does not say so."""
    with suppress(OSError):
        return int.from_bytes((segment / "vector_storage-image" / "vectors" / "status.dat").read_bytes()[:8], "little")
    return 0


def _log_was_emptied(shard: Path) -> bool:
    """Whether the log no longer holds what was written first; not where it does not say so."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads((shard / _LOG_NAME / "first-index").read_bytes())["ack_index"]) > 0
    return False


def _config(dimension: int, memory: qe.Memory | None = None, **others: Any) -> qe.EdgeConfig:
    side = qe.EdgeVectorParams(size=dimension, distance=qe.Distance.Cosine, memory=memory)
    return qe.EdgeConfig(vectors=dict.fromkeys(map(str, MODALITIES), side), max_search_threads=1, **others)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a new memory while no other process makes one in the same folder, where the system has such locks."""
    try:
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # that the folder cannot be made, is said by what makes the memory
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
