"""The memory and the fusion as a refiner sees them, each behind its guard."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ..fuse import Fused, Fuser
from ..memory import Header, Memory, Searches
from ..memory.checks import check_search
from ..refine import Trusted
from ..request import Search
from ..trust import State
from ..types import Modality, Neighbours, Vectors
from .guard import Guard, Outage


class GuardedSearches:
    """A memory whose searches are guarded."""

    def __init__(self, memory: Searches, guard: Guard) -> None:
        self._memory, self._guard = memory, guard

    @property
    def header(self) -> Header:
        """Fingerprint and trust."""
        return self._memory.header

    def search(self, search: Search) -> Neighbours:
        """Search with queries (B, D), see :meth:`reco_plugin.memory.Searches.search`.

        Raises:
            InputError: also while the memory is down.
            Outage: the memory fails.
        """
        try:
            return self._guard.ask(partial(self._memory.search, search))
        except Outage:
            check_search(search, self.header.fingerprint.dimension)
            raise


@dataclass(frozen=True)
class GuardedPairs:
    """Pairs whose searches are guarded; their trust is always the current one."""

    pairs: Trusted
    searches: Searches

    @property
    def store(self) -> Memory:
        """The pairs themselves, unguarded."""
        return self.pairs.store

    @property
    def trust(self) -> State | None:
        """What was learned about them."""
        return self.pairs.trust


class GuardedFuser:
    """A fuser behind a guard."""

    def __init__(self, fuser: Fuser, guard: Guard) -> None:
        self.name = fuser.name
        self._fuser, self._guard = fuser, guard

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Fuse vectors (B, D) with neighbours (B, K, D) by trust (B, K), see :meth:`reco_plugin.fuse.Fuser.fuse`.

        Raises:
            Outage: the fusion fails.
        """
        return self._guard.ask(partial(self._fuser.fuse, modality, vectors, neighbours, trust))
