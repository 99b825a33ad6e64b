"""The memory and the fusion as a refiner sees them, each behind its guard."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..calibration import Calibration
from ..defaults import SCROLL_BATCH
from ..fuse import Fused, Fuser
from ..gate import TextGate
from ..memory import Header, Memory
from ..memory.checks import check_search
from ..refine import Calibrated
from ..types import Filter, Modality, Neighbours, Payload, Records, Vectors
from .guard import Guard, Outage


class GuardedMemory:
    """A memory whose searches are guarded; everything else is the memory's own."""

    def __init__(self, store: Memory, guard: Guard) -> None:
        self.kind, self.location = store.kind, store.location
        self._store, self._guard = store, guard

    def search(
        self,
        vectors: Vectors,
        *,
        by: Modality,
        read: Modality,
        k: int,
        exclude: Sequence[Collection[str]] | None = None,
        where: Filter | None = None,
        payloads: bool = False,
        ids: bool = True,
    ) -> Neighbours:
        """Search, see :meth:`reco_plugin.memory.Memory.search`.

        Raises:
            InputError: also when nobody answers.
            Outage: the memory has no answer.
        """
        question: dict[str, Any] = {"by": by, "read": read, "k": k, "exclude": exclude, "where": where}
        try:
            return self._guard.ask(partial(self._store.search, vectors, payloads=payloads, ids=ids, **question))
        except Outage:
            check_search(vectors, self.header.fingerprint.dimension, **question)
            raise

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        return self._store.header

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Store the gate's constants."""
        self._store.set_calibration(calibration)

    def count(self) -> int:
        """Number of pairs."""
        return self._store.count()

    def upsert(self, records: Records) -> None:
        """Add or replace pairs."""
        self._store.upsert(records)

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs."""
        return self._store.delete(ids)

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """Read pairs."""
        return self._store.scroll(batch_size, ids)

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Read ids and payloads."""
        return self._store.payloads(ids)

    def flush(self) -> None:
        """Make everything durable."""
        self._store.flush()

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()


@dataclass(frozen=True)
class GuardedPairs:
    """Pairs with a guarded store; the gate's constants are always those of now."""

    pairs: Calibrated
    store: Memory

    @property
    def calibration(self) -> Calibration | None:
        """The gate's constants."""
        return self.pairs.calibration


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
