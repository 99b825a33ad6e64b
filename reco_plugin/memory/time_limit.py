"""The time that one call of a memory may take, for a client that ends its calls by itself when it is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class CallLimit:
    """A moment until which there must be an answer, and what a message says of it."""

    until: float  # of ``time.monotonic``
    seconds: float  # from when the caller asked
    setting: str

    @property
    def left_s(self) -> float:
        """Seconds until then; none are left at 0 or below."""
        return self.until - time.monotonic()

    @property
    def words(self) -> str:
        """What happened, and the way out."""
        return f"no answer within {self.seconds:g} s. Raise {self.setting}, or see what keeps it busy"


_limit: ContextVar[CallLimit | None] = ContextVar("limit", default=None)


@contextmanager
def limited(limit: CallLimit) -> Iterator[None]:
    """Give the calls of a block so long, all together."""
    token = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(token)


def time_limit() -> CallLimit | None:
    """What the block gives this call; None outside of one."""
    return _limit.get()
