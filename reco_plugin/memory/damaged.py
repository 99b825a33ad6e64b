"""The readable pairs of a folder that no longer opens, or that holds unreadable pairs.

A shard that is opened with a new log ignores as many writes as the lost log held: so the pairs are copied, and the
shard is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import qdrant_edge as qe

from ..config import MemoryOptions
from ..defaults import SCROLL_BATCH
from ..errors import MemoryLocked, MemoryStoreError
from ..types import MODALITIES, Records
from .disk import SHARD_NAME, check_segments
from .edge import EdgeMemory
from .header import Header, read_header
from .points import translate_errors


class Damaged(EdgeMemory):
    """A folder to copy from, as far as it can be read."""

    def __init__(self, shard: qe.EdgeShard, header: Header, folder: Path, *, log_read: bool) -> None:
        super().__init__(shard, header, folder, MemoryOptions(index="off"))
        self.log_read = log_read
        self.left: dict[str, str] = {}
        """Ids of points that could not be read -> why."""

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """The readable pairs in batches (N, D); ``ids`` is not looked at."""
        for points in self.point_ids():
            for start in range(0, len(points), batch_size):
                yield self._to_records(list(self._readable(points[start : start + batch_size])))

    def close(self) -> None:
        """Release the folder without writing to it."""
        if (shard := self._shard) is not None:
            self._shard = None
            shard.close()

    def _readable(self, points: list[str]) -> Iterator[Any]:
        """The readable points; a group that fails is halved until the unreadable point is found."""
        try:
            found = self._fetch(points, True, vectors=True)
        except MemoryStoreError as error:
            if len(points) == 1:
                self.left[points[0]] = str(error.__cause__)
                return
            for half in (points[: len(points) // 2], points[len(points) // 2 :]):
                yield from self._readable(half)
            return
        for point in found:
            if lost := [side for side in MODALITIES if side not in point.vector]:
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
    with TemporaryDirectory(prefix="reco-damaged-") as aside:
        log_read = True
        try:
            with translate_errors(str(folder), "open"):
                shard = qe.EdgeShard.load(str(path))
        except MemoryLocked:
            raise
        except MemoryStoreError:  # the log was replayed up to its first unreadable entry
            log_read = False
            (Path(aside) / "segments").symlink_to((path / "segments").resolve())
            with translate_errors(str(folder), "open"):
                shard = qe.EdgeShard.load(aside)  # what edge_config.json says is in the segments, too
        with closing(Damaged(shard, header, folder, log_read=log_read)) as damaged:
            yield damaged
