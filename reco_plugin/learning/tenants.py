"""What a memory knows of each scope: its feedback, and for a tenant what is learned of its own pairs, in RAM."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..memory import Header, Memory
from ..memory.scope import Scope, ScopedMemory
from .state import ENOUGH, Calibration
from .trainer import Learner, LearnsFrom

MOST = 64
"""Scopes that are kept: those that came last. With 512 dimensions, what is learned of one takes some megabytes."""
_EVERY_S = 60.0  # until a tenant that is used is looked at again


class TenantLearner(Learner):
    """Learns from enough pairs only: from fewer, the whole memory knows more."""

    def _is_due(self) -> bool:
        return self._memory.store.count() >= ENOUGH and super()._is_due()


class Tenant:
    """One scope."""

    def __init__(self, engine: Memory, scope: Scope) -> None:
        self.store: ScopedMemory = ScopedMemory(engine, scope)
        self.learner: Learner | None = None
        self.due = 0.0
        """When to look whether to learn, by ``time.monotonic``."""
        self._read: tuple[Header, dict[str, Any] | None, Calibration | None] | None = None

    @property
    def calibration(self) -> Calibration | None:
        """What was learned of its own pairs."""
        return Calibration.from_json(self.store.learned) if self.store.learned else None

    def read(self, header: Header, make: Callable[[Header], Calibration | None]) -> Calibration | None:
        """Return what applies in the scope, read again if the memory's header or what was learned is another one."""
        learned = self.store.learned
        if self._read is None or self._read[0] is not header or self._read[1] is not learned:
            self._read = (header, learned, make(self.store.header))
        return self._read[2]


class Tenants:
    """The scopes that came last."""

    def __init__(self, field: str | None, make_learner: Callable[[LearnsFrom], Learner]) -> None:
        """Learn from the pairs of each value of a field; None: from those of the whole memory only."""
        self._field, self._make_learner = field, make_learner
        self._known, self._lock = OrderedDict[Scope, Tenant](), threading.Lock()

    def of(self, engine: Memory, scope: Scope) -> Tenant:
        """Return a scope. If it is a tenant, a thread looks at times whether to learn from its pairs."""
        with self._lock:
            one = self._known.pop(scope, None) or self._make(engine, scope)
            self._known[scope] = one  # as the last
            gone = self._known.popitem(last=False)[1] if len(self._known) > MOST else None
            is_due = one.learner is not None and time.monotonic() >= one.due
            if is_due:
                one.due = time.monotonic() + _EVERY_S
        if gone is not None and gone.learner is not None:
            gone.learner.stop()
        if is_due and one.learner is not None:
            one.learner.learn_behind()
        return one

    def clear(self) -> None:
        """Forget all, and end what runs."""
        with self._lock:
            known, self._known = self._known, OrderedDict()
        for one in known.values():
            if one.learner is not None:
                one.learner.close()

    def _make(self, engine: Memory, scope: Scope) -> Tenant:
        one = Tenant(engine, scope)
        if self._field in dict(scope):
            one.learner = self._make_learner(one)
        return one
