"""Open a memory, or begin without it where answers may be degraded until it can be reached."""

from __future__ import annotations

import warnings

from ..config import Settings
from ..errors import MemoryTimeout, MemoryUnavailable
from ..memory import Memory, memory_of
from ..memory.lazy import LazyMemory
from ..types import Fingerprint
from .degrading import DegradedWarning


def open_or_await(settings: Settings, fingerprint: Fingerprint) -> Memory | LazyMemory:
    """The memory of the settings; with ``on_memory_failure=degrade``, also one whose server is away now.

    Args:
        settings: where the memory is, how it is opened, and what happens when it is away.
        fingerprint: encoder of the model in use.

    Raises:
        MemoryUnavailable: its server is away, and failures shall raise.
        MemoryTimeout: likewise, it does not answer in time.
        MemoryStoreError: anything else, see :func:`reco_plugin.memory.open_memory`.
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
            stacklevel=3,
        )
    return LazyMemory(
        lambda: memory_of(settings, fingerprint), kind="qdrant", location=settings.memory, fingerprint=fingerprint
    )
