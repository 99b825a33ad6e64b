"""The folder of an embedded memory on its disk: who holds it, whether there is room, and the shard in it.

Qdrant Edge writes through memory-mapped sparse files of 32 MB. When the file system has no block left for a hole, no
call fails: SIGBUS kills the process, and a service with it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import qdrant_edge as qe

from ..errors import MemoryFull
from ..files import PARTIAL
from ..types import MODALITIES, Records
from .header import write_error
from .points import WORDS, locked_error

SHARD_NAME = "shard"
"""The folder of a memory's shard."""
_SPARE_BYTES = 64 * 2**20
"""Kept free: for flushing, header, lists, deletions, and other writers."""
_PER_VECTOR_BYTE, _PER_PAYLOAD_BYTE = 4, 16  # measured: 2.3 with the log, and up to 12 more for a caption's words


def check_room(folder: Path, records: Records | None = None) -> None:
    """Refuse a write where the disk has not enough space for records (N, D).

    Raises:
        MemoryFull: there is not enough space.
        MemoryReadOnly: the folder is gone; Edge would go on in files that nobody finds again.
    """
    try:
        disk = shutil.disk_usage(folder)
    except OSError as error:
        raise write_error(folder, error) from error
    needed = _SPARE_BYTES
    if records is not None:
        needed += _PER_VECTOR_BYTE * (records.image.nbytes + records.text.nbytes)
        needed += _PER_PAYLOAD_BYTE * len(json.dumps(list(records.payloads)))
    if disk.total and disk.free < needed:  # some network file systems report only zeros
        raise MemoryFull(
            f"cannot write to the memory at {str(folder)!r}: its disk has {disk.free / 2**20:,.0f} MiB left, and this "
            f"write needs {needed / 2**20:,.0f}. Make room there, or move the folder to a larger disk, and do the same "
            "again; what was written stays"
        )


def hold(folder: Path) -> int | None:
    """Hold a folder until the handle is closed; None where the system has no such locks, and Edge's own one counts.

    Edge looks at its lock only after it opened the segments for writing, and whoever has the shard open can no longer
    write to them then.

    Raises:
        MemoryLocked: it is open in another process, or in this one.
    """
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Edge says what is wrong
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise locked_error(str(folder)) from None
    except OSError:  # a file system without locks
        pass
    return handle


def release(handle: int | None) -> None:
    """Let go of a folder that :func:`hold` holds."""
    if handle is not None:
        os.close(handle)


def make_shard(path: Path, dimension: int) -> None:
    """Create an empty shard, atomically."""
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    words = {WORDS: qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)}
    # pages are read when they are needed: vectors in RAM are read whole, 64 MB also for a dozen pairs
    config = _config(dimension, qe.Memory.Cold, wal_enabled=True, sparse_vectors=words)
    qe.EdgeShard.create(str(partial), config).close()
    partial.rename(path)


def load_shard(path: Path, dimension: int) -> qe.EdgeShard:
    """Load a shard of vectors (D,), whose searches then run in the thread that asks.

    Edge has eight threads or more for them, of which one works, since our shards have one segment, and the others look
    for work: who asks waits behind them for its turn on a core, with Python's lock in its hand. Of two idle cores,
    32 queries to 500 pairs took 3.8 ms so, and take 1.3.
    """
    return qe.EdgeShard.load(str(path), _config(dimension))


def _config(dimension: int, memory: qe.Memory | None = None, **others: Any) -> qe.EdgeConfig:
    side = qe.EdgeVectorParams(size=dimension, distance=qe.Distance.Cosine, memory=memory)
    return qe.EdgeConfig(vectors=dict.fromkeys(map(str, MODALITIES), side), max_search_threads=1, **others)
