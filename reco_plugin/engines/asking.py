"""Asks an engine again while it starts, restarts or is overloaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import EngineTimeout, EngineUnavailable

T = TypeVar("T")
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt: a node that restarts, or a shard that moves, is back by then or not at all."""


def ask(call: Callable[[], T], *, waits: tuple[float, ...] = WAITS) -> T:
    """What a call answers, which only reads and so can be made again.

    Raises:
        EngineTimeout: it did not answer in time, and would not the next time.
        EngineUnavailable: of the last attempt.
    """
    for wait in waits:
        try:
            return call()
        except EngineTimeout:
            raise
        except EngineUnavailable:
            time.sleep(wait)
    return call()
