"""What a folder and a server do alike: pairs are points, read by their ids or page by page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ..defaults import SCROLL_BATCH
from ..types import Payload, Records
from .checks import check_ids, check_positive, chunks
from .filters import USER_ID, WITNESSES
from .header import Header
from .points import ids_behind, pages, point_id, to_ids, to_payload, to_records, to_witnesses, translate_errors

AT_ONCE = 1000
"""Points that are read at once, without vectors."""


class PointMemory(ABC):
    """The reads of a memory whose pairs are points of Qdrant."""

    location: str

    @property
    @abstractmethod
    def header(self) -> Header:
        """See :class:`~reco_plugin.memory.base.Memory`."""

    @abstractmethod
    def _live(self) -> Any:
        """The open store; a MemoryStoreError where it is closed."""

    @abstractmethod
    def _fetch(self, points: Sequence[str], payload: list[str] | bool, *, vectors: bool) -> list[Any]:
        """Those of the points that exist, in any order, with these keys of their payload, or all or none."""

    @abstractmethod
    def _page(
        self, start: Any, size: int, payload: list[str] | bool, *, vectors: bool = False, unjudged: bool = False
    ) -> tuple[list[Any], Any]:
        """At most so many pairs from a point on, None: from the first, and the point behind; perhaps unjudged alone."""

    def witnesses(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """The witnesses (N, 3) of pairs."""
        names = check_ids(ids, "ids")
        found = chain.from_iterable(self._retrieve(names, [WITNESSES]))
        return to_witnesses(found, [point_id(name) for name in names])

    def unjudged(self, most: int) -> list[str]:
        """Ids of pairs without witnesses, at most so many."""
        self._live()
        size = min(check_positive(most, "most"), AT_ONCE)
        found = pages(lambda start: self._page(start, size, [USER_ID], unjudged=True))
        return to_ids(islice(chain.from_iterable(found), most))

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs in order of their point ids, or those of ``ids`` in their order, in batches (N, D)."""
        self._live()
        check_positive(batch_size, "batch_size")
        if ids is None:
            found = pages(lambda start: self._page(start, batch_size, True, vectors=True))
        else:
            found = self._retrieve(check_ids(ids, "scroll"), True, batch_size, vectors=True)
        return map(self._to_records, filter(None, found))

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of all pairs, or of ``ids``."""
        self._live()
        if ids is None:
            found = pages(lambda start: self._page(start, AT_ONCE, True))
        else:
            found = self._retrieve(check_ids(ids, "ids"), True)
        return map(to_payload, chain.from_iterable(found))

    def ids_after(self, last: str | None, limit: int) -> list[str]:
        """The next ids behind ``last``, in the order of point ids."""
        self._live()
        start = None if last is None else point_id(last)
        found, _ = self._page(start, check_positive(limit, "limit") + (start is not None), [USER_ID])
        return ids_behind(found, start, limit)

    @property
    def _dimension(self) -> int:
        return self.header.fingerprint.dimension

    def _retrieve(
        self, ids: Sequence[str], payload: list[str] | bool, size: int = AT_ONCE, *, vectors: bool = False
    ) -> Iterator[list[Any]]:
        """The existing points of these ids, in their order."""
        for chunk in chunks(ids, size):
            wanted = [point_id(name) for name in chunk]
            there = {str(point.id): point for point in self._fetch(wanted, payload, vectors=vectors)}
            yield [there[name] for name in wanted if name in there]

    def _to_records(self, points: list[Any]) -> Records:
        with translate_errors(self.location, "read"):
            return to_records(points, self._dimension)
