"""Copy the readable pairs of an embedded memory that no longer opens, or that holds unreadable pairs.

Earlier versions stored payloads nested 124 levels and more. Qdrant Edge accepts them, but cannot read its log again, if
the process was killed before the log was emptied, nor, from 127 levels on, the pair. A shard that is opened with a new
log ignores as many writes as the lost log held: so the pairs are copied, and the shard is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import qdrant_edge as qe

from ..errors import InputError, MemoryLocked, MemoryStoreError
from ..opinions import Brought, add_said
from ..types import MODALITIES, Records
from .base import Memory
from .checks import check_payload
from .disk import check_segments
from .edge import SHARD_NAME
from .edge_reading import ShardReader
from .header import Header
from .points import point_id, to_records, to_witnesses, translate_errors


@dataclass
class Rescued:
    """The outcome of a rescue."""

    pairs: int = 0  # how many were copied
    left: dict[str, str] = field(default_factory=dict)
    """Ids of pairs that were not copied, or point ids if those cannot be read -> why."""
    said: Brought = field(default_factory=Brought)
    log_read: bool = True  # if not, the last written pairs may be missing


@dataclass(frozen=True)
class Broken:
    """A memory that is open to be rescued."""

    folder: Path
    header: Header
    shard: qe.EdgeShard
    log_read: bool


def rescue(broken: Broken, target: Memory, progress: Callable[[int], object] = int) -> Rescued:
    """Copy all readable pairs of an embedded memory into another, and what people said.

    What was learned goes along if the other holds no other pairs.

    ``progress`` gets the number of pairs of each batch.

    Raises:
        MemoryStoreError: nothing can be read, or written.
    """
    done, header = Rescued(log_read=broken.log_read), broken.header
    for ids in ShardReader(lambda: broken.shard, str(broken.folder), header.fingerprint.dimension).point_ids():
        points = list(_readable(broken.shard, ids, done))
        records = _keep_valid(to_records(points, header.fingerprint.dimension), done)
        target.upsert(records)
        target.set_witnesses(records.ids, to_witnesses(points, [point_id(name) for name in records.ids]))
        done.pairs += len(records)
        progress(len(records))
    target.flush()
    if header.calibration and target.count() == done.pairs:
        target.set_calibration(header.calibration)
    done.said = add_said(target, header.said.values())
    return done


@contextmanager
def open_broken(folder: Path, header: Header) -> Iterator[Broken]:
    """Open an embedded memory to rescue it; if its log cannot be read, its segments with an empty log.

    Raises:
        MemoryLocked: it is open elsewhere.
        MemoryStoreError: nothing can be read.
    """
    path = folder / SHARD_NAME
    check_segments(path)
    try:
        with translate_errors(str(folder), "open"):
            shard = qe.EdgeShard.load(str(path))
    except MemoryLocked:
        raise
    except MemoryStoreError:  # the log was replayed up to its first unreadable entry
        with TemporaryDirectory(prefix="reco-rescue-") as aside:
            (Path(aside) / "segments").symlink_to((path / "segments").resolve())
            try:
                with translate_errors(aside, "open"):
                    shard = qe.EdgeShard.load(aside)  # what edge_config.json says is in the segments, too
            except MemoryStoreError as error:
                raise MemoryStoreError(str(error).replace(aside, str(path))) from None
            with closing(shard):
                yield Broken(folder, header, shard, log_read=False)
        return
    with closing(shard):
        yield Broken(folder, header, shard, log_read=True)


def _readable(shard: qe.EdgeShard, ids: list[str], done: Rescued) -> Iterator[Any]:
    """The readable points; a group that fails is halved until the unreadable point is found."""
    try:
        found = shard.retrieve(list(ids), True, True)
    except Exception as error:  # Edge has no class of its own
        if len(ids) == 1:
            done.left[ids[0]] = str(error)
            return
        for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
            yield from _readable(shard, half, done)
        return
    for point in found:
        if lost := [side for side in MODALITIES if side not in cast("dict[str, object]", point.vector)]:
            done.left[str(point.id)] = f"its {' and its '.join(lost)} vector cannot be read"
        else:
            yield point


def _keep_valid(records: Records, done: Rescued) -> Records:
    """The pairs (N, D) whose payloads are within today's limits."""
    for name, payload in zip(records.ids, records.payloads, strict=True):
        try:
            check_payload(name, payload)
        except InputError as error:
            done.left[name] = str(error)
    return records.take([name not in done.left for name in records.ids])
