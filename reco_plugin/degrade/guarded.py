"""The memory and the fusion as a refiner sees them, each behind its guard."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from ..calibration import Calibration
from ..fuse import Fused, Fuser
from ..gate import TextGate
from ..memory import Header, Searches
from ..memory.checks import check_search
from ..refine import Calibrated
from ..request import Search
from ..types import Modality, Neighbours, Vectors
from .guard import Guard, Outage


class GuardedPairs:
    """Pairs whose searches are guarded; what is known of them is always that of now."""

    def __init__(self, pairs: Calibrated, guard: Guard) -> None:
        self._pairs, self._guard = pairs, guard

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        return self._pairs.header

    @property
    def calibration(self) -> Calibration | None:
        """The gate's constants."""
        return self._pairs.calibration

    @property
    def store(self) -> Searches:
        """This, since nothing else of a store is asked for."""
        return self

    def search(self, search: Search) -> Neighbours:
        """Search; a store that was away when this began is opened under the same guard.

        Raises:
            InputError: also when nobody answers.
            Outage: the memory has no answer.
        """
        try:
            return self._guard.ask(lambda: self._pairs.store.search(search))
        except Outage:
            check_search(search, self.header.fingerprint.dimension)
            raise


class GuardedFuser:
    """A fuser behind a guard."""

    def __init__(self, fuser: Fuser, guard: Guard) -> None:
        self.name = fuser.name
        self._fuser, self._guard = fuser, guard

    @property
    def text_gate(self) -> TextGate | None:
        """What it was trained to trust."""
        return self._fuser.text_gate

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Fuse, see :meth:`reco_plugin.fuse.Fuser.fuse`.

        Raises:
            Outage: the fusion has no answer.
        """
        return self._guard.ask(partial(self._fuser.fuse, modality, vectors, neighbours, trust))
