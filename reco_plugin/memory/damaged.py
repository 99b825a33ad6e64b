"""The readable pairs of a folder that no longer opens, or that holds unreadable pairs.

A shard that is opened with a new log ignores as many writes as the lost log held: so the pairs are copied, and the
shard is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import qdrant_edge as qe

from ..defaults import SCROLL_BATCH
from ..errors import MemoryLocked, MemoryStoreError
from ..types import MODALITIES, Records
from .disk import check_segments
from .edge import SHARD_NAME
from .edge_reading import ShardReader
from .header import Header, read_header
from .points import point_id, to_records, to_witnesses, translate_errors


class Damaged:
    """A folder to copy from, as far as it can be read."""

    def __init__(self, shard: qe.EdgeShard, folder: Path, header: Header, *, log_read: bool) -> None:
        self._shard, self.location, self.header, self.log_read = shard, str(folder), header, log_read
        self.left: dict[str, str] = {}
        """Ids of points that could not be read -> why."""

    def count(self) -> int:
        """Number of pairs, those included that cannot be read."""
        return self._reader.count()

    def scroll(self, batch_size: int = SCROLL_BATCH) -> Iterator[Records]:
        """The readable pairs in batches (N, D)."""
        for ids in self._reader.point_ids():
            for start in range(0, len(ids), batch_size):
                points = list(self._readable(ids[start : start + batch_size]))
                yield to_records(points, self.header.fingerprint.dimension)

    def witnesses(self, ids: list[str]) -> npt.NDArray[np.float32]:
        """The witnesses (N, 3) of pairs."""
        points = [point_id(name) for name in ids]
        return to_witnesses(self._shard.retrieve(list(points), True, False), points)

    @property
    def _reader(self) -> ShardReader:
        return ShardReader(lambda: self._shard, self.location, self.header.fingerprint.dimension)

    def _readable(self, ids: list[str]) -> Iterator[Any]:
        """The readable points; a group that fails is halved until the unreadable point is found."""
        try:
            found = self._shard.retrieve(list(ids), True, True)
        except Exception as error:  # Edge has no class of its own
            if len(ids) == 1:
                self.left[ids[0]] = str(error)
                return
            for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
                yield from self._readable(half)
            return
        for point in found:
            if lost := [side for side in MODALITIES if side not in cast("dict[str, object]", point.vector)]:
                self.left[str(point.id)] = f"its {' and its '.join(lost)} vector cannot be read"
            else:
                yield point


@contextmanager
def open_damaged(folder: Path) -> Iterator[Damaged]:
    """Open a folder to copy from; if its log cannot be read, its segments with an empty log.

    Raises:
        MemoryLocked: it is open elsewhere.
        MemoryStoreError: it is no memory, or nothing can be read.
    """
    path, header = folder / SHARD_NAME, read_header(folder) if folder.is_dir() else None
    if header is None:
        raise MemoryStoreError(f"{str(folder)!r} is no folder with a memory")
    check_segments(path)
    try:
        with translate_errors(str(folder), "open"):
            shard = qe.EdgeShard.load(str(path))
    except MemoryLocked:
        raise
    except MemoryStoreError:  # the log was replayed up to its first unreadable entry
        with TemporaryDirectory(prefix="reco-damaged-") as aside:
            (Path(aside) / "segments").symlink_to((path / "segments").resolve())
            try:
                with translate_errors(aside, "open"):
                    shard = qe.EdgeShard.load(aside)  # what edge_config.json says is in the segments, too
            except MemoryStoreError as error:
                raise MemoryStoreError(str(error).replace(aside, str(path))) from None
            with closing(shard):
                yield Damaged(shard, folder, header, log_read=False)
        return
    with closing(shard):
        yield Damaged(shard, folder, header, log_read=True)
