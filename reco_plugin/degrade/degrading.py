"""Answer with frozen vectors when refining fails, also while a memory cannot be opened yet."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Unpack

import numpy.typing as npt

from ..config import Settings
from ..counters import Counters
from ..errors import MemoryTimeout, MemoryUnavailable
from ..fuse import Fuser
from ..memory import LazyMemory, Memory, Searches, memory_of
from ..refine import Refiner, Trusted
from ..request import RefineKeywords
from ..types import Fingerprint, FuserName, Modality, Refinement, Role
from ..vectors import check_vectors
from .batched import BatchedFuser, BatchedSearches
from .breaker import Breaker, Circuit
from .deadline import Deadline
from .guard import Component, Guard, GuardedFuser, GuardedPairs, GuardedSearches, Outage


class DegradedWarning(UserWarning):
    """Frozen vectors are answered in place of refined ones; shown once per outage."""


class Degrading:
    """Refines, or answers with frozen vectors. A call is refined as a whole or not at all."""

    def __init__(
        self,
        pairs: Trusted,
        fusers: Mapping[FuserName, Fuser],
        make: Callable[[Trusted, Mapping[FuserName, Fuser]], Refiner],
        settings: Settings,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put a guard before the memory and the fusion.

        A memory at a URL is called in its own thread, since it could hang. A memory in this process is slow only when
        it computes, and a thread would add to that; a session on a server has its own deadline. ``make`` makes the
        refiner of the guarded pairs and fusers.
        """
        self._fails, self._counters = settings.on_memory_failure == "fail", counters

        def breaker() -> Breaker:
            return Breaker(settings.breaker_failures, settings.breaker_retry_s, clock)

        deadline = Deadline(settings.memory_timeout_s, "memory_timeout_s") if "://" in settings.memory else None
        memory = Guard("memory", breaker(), counters.retrieve_s, deadline)
        fusion = Guard("fusion", breaker(), counters.fuse_s)
        self._guards: dict[Component, Guard] = {"memory": memory, "fusion": fusion}
        searches: Searches = GuardedSearches(pairs, memory)
        guarded: dict[FuserName, Fuser] = {name: GuardedFuser(fuser, fusion) for name, fuser in fusers.items()}
        if settings.batch_callers and deadline is None:  # a server may hang, which must not add up
            searches = BatchedSearches(searches, settings.batch_size)
        if settings.batch_callers and settings.triton_url is None:
            guarded = {name: BatchedFuser(fuser, settings.batch_size) for name, fuser in guarded.items()}
        self._refiner = make(GuardedPairs(pairs, searches), guarded)

    @property
    def circuits(self) -> dict[Component, Circuit]:
        """The circuits of memory and fusion."""
        return {part: guard.breaker.circuit for part, guard in self._guards.items()}

    def refine(
        self, vectors: npt.ArrayLike, *, modality: Modality, role: Role = "query", **options: Unpack[RefineKeywords]
    ) -> Refinement:
        """Refine vectors (B, D), see :meth:`reco_plugin.refine.Refiner.refine`; or return them with the reason.

        Raises:
            InputError: whether or not a part is down.
            MemoryStoreError: the memory fails and the setting ``on_memory_failure`` is ``fail``.
            SessionError: likewise the fusion.
        """
        try:
            result = self._refiner.refine(vectors, modality=modality, role=role, **options)
        except Outage as outage:
            if self._fails:
                self._counters.failed.add(outage.reason)
                raise outage.error from outage.error.__cause__
            self._counters.degraded.add(outage.reason)
            if outage.first:
                outage.first = False  # the other callers of its batch have it, too
                _warn(outage)
            frozen = check_vectors(vectors, self._refiner.dimension)
            return Refinement(frozen.copy(), frozen, degraded=outage.reason)
        (self._counters.refined if result.refined.any() else self._counters.left_plain).add(modality)
        self._counters.moved.observe_all(result.moved)
        return result


def open_or_await(settings: Settings, fingerprint: Fingerprint) -> Memory | LazyMemory:
    """The memory of the settings; with ``on_memory_failure=degrade``, also one whose server is down now.

    Raises:
        MemoryUnavailable: its server is down, and ``on_memory_failure`` is ``fail``.
        MemoryTimeout: likewise, it does not answer in time.
        MemoryStoreError: any other error, see :func:`reco_plugin.memory.open_memory`.
    """
    try:
        return memory_of(settings, fingerprint)
    except (MemoryUnavailable, MemoryTimeout) as error:
        if settings.on_memory_failure == "fail":
            raise
        warnings.warn(
            f"beginning without the memory: {error}. Until it is reached, answers are frozen CLIP vectors "
            "(to have an error instead: on_memory_failure='fail')",
            DegradedWarning,
            stacklevel=4,
        )
    return LazyMemory(
        lambda: memory_of(settings, fingerprint), kind="qdrant", location=settings.memory, fingerprint=fingerprint
    )


def _warn(outage: Outage) -> None:
    warnings.warn(
        f"answering with frozen CLIP vectors until it recovers ({outage.reason}): {outage.error} "
        "(to have errors instead: on_memory_failure='fail')",
        DegradedWarning,
        stacklevel=4,
    )
