"""Looks for what is down in a thread of its own, so that no caller waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)
EVERY_S = 0.5
"""Before the first look, and between looks for what does not answer."""


class Recovery:
    """Runs a look again and again, from when it is begun until it finds that all is well."""

    def __init__(self, name: str, look: Callable[[], float]) -> None:
        """Start nothing yet; ``look`` gives the seconds until the next one, 0 where all is well, and may block."""
        self._name, self._look = name, look
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._running = False

    @property
    def running(self) -> bool:
        """Whether it looks now."""
        return self._running

    def begin(self) -> None:
        """Look from now on, unless it does already, or was closed."""
        with self._lock:
            if self._running or self._closed.is_set():
                return
            self._running = True
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError:  # no thread is left, or the program ends: callers try by themselves
            self._running = False
            log.warning("%s cannot begin", self._name, exc_info=True)

    def close(self) -> None:
        """Look no more; one that has begun is not waited for."""
        self._closed.set()

    def _run(self) -> None:
        try:
            pause = EVERY_S
            while pause and not self._closed.wait(pause):
                pause = self._look()
        except Exception:  # a defect: callers try by themselves, as where nothing looks
            log.exception("%s ended", self._name)
        finally:
            self._running = False
