"""One limit of time for many, with one timer of the loop for all of them.

A timer for each, which hardly any of them needs, takes Python's lock twice more for a connection, and so waits for it
twice more where threads compute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Timeouts(Generic[T]):
    """Those that have begun and not ended, the oldest first; used from one event loop."""

    def __init__(self, seconds: float, over: Callable[[T], object]) -> None:
        """Begin with none; ``over`` is called with each one that has not ended so many seconds after it began."""
        self._seconds, self._over = seconds, over
        self._until: dict[T, float] = {}
        self._looks = False  # whether a timer runs

    def begin(self, one: T) -> None:
        """Begin to count, anew for one that has begun."""
        self._until.pop(one, None)
        self._until[one] = asyncio.get_running_loop().time() + self._seconds
        if not self._looks:
            self._look_later()

    def end(self, one: T) -> None:
        """Count no more, if it has begun."""
        self._until.pop(one, None)

    def __contains__(self, one: T) -> bool:
        """Whether it has begun, and neither ended nor is over."""
        return one in self._until

    def _look_later(self) -> None:
        """Look when the oldest one is over; until then, no other one is."""
        loop = asyncio.get_running_loop()
        self._looks = bool(self._until)
        if self._looks:
            loop.call_later(max(0.0, next(iter(self._until.values())) - loop.time()), self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now, late = loop.time(), list[T]()
        for one, until in self._until.items():
            if until > now:
                break
            late.append(one)
        for one in late:
            del self._until[one]
        self._look_later()
        for one in late:  # each in a turn of its own: what fails for one must not keep the others for ever
            loop.call_soon(self._over, one)
