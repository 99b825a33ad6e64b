"""Ablations: another side of the pairs is searched or read than the paper (3.2) does: search uni, fusion cross."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from ..fuse import Learned
from ..types import Neighbours, Search, other

Mode: TypeAlias = Literal["uni", "cross"]


class InModes:
    """A memory whose searches compare queries with another side of the pairs, or read another one."""

    def __init__(self, memory: Learned, search: Mode, fusion: Mode) -> None:
        """Put the modes before a memory.

        Args:
            memory: the pairs.
            search: uni compares a query with the vectors of its own modality, cross with the other one's.
            fusion: cross reads the neighbours' vectors of the other modality, uni of the query's own.
        """
        self.store, self.calibration, self.header = memory.store, memory.calibration, memory.searches.header
        self._searches, self._search, self._fusion = memory.searches, search, fusion

    @property
    def searches(self) -> InModes:
        """What is searched: itself."""
        return self

    def search(self, search: Search) -> Neighbours:
        """Search for (B, D), see :meth:`reco_plugin.memory.Searches.search`."""
        own = search.by
        by, read = own if self._search == "uni" else other(own), own if self._fusion == "uni" else other(own)
        return self._searches.search(replace(search, by=by, read=read))
