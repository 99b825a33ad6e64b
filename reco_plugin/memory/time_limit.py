"""How long the calls of a block may take: until a moment that their caller gives, or as long as a write may."""

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


_LIMIT: ContextVar[CallLimit | None] = ContextVar("limit", default=None)
_WRITING: ContextVar[bool] = ContextVar("writing", default=False)


@contextmanager
def limited(limit: CallLimit) -> Iterator[None]:
    """Give the calls of a block so long, all together."""
    token = _LIMIT.set(limit)
    try:
        yield
    finally:
        _LIMIT.reset(token)


@contextmanager
def part_of_a_write() -> Iterator[None]:
    """What is read in this block is part of a write: a server that restarts is waited for as long as by a write."""
    token = _WRITING.set(True)
    try:
        yield
    finally:
        _WRITING.reset(token)


def time_limit() -> CallLimit | None:
    """What the block gives this call; None outside of one."""
    return _LIMIT.get()


def is_writing() -> bool:
    """Whether this is part of a write."""
    return _WRITING.get()
