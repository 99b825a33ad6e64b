"""Stop waiting for a call after a time limit, even if it hangs."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_MOST_LATE = 32


class Late(Exception):
    """The call timed out, or was not made because too many others still hang."""


class Deadline:
    """Runs each call in its own thread and waits for it up to a time limit.

    A late call goes on, since nothing can stop it, and its answer is dropped. The threads are daemons: a call that
    hangs forever does not keep the process from exiting, as a ``ThreadPoolExecutor`` would.
    """

    def __init__(self, seconds: float, setting: str) -> None:
        """Set the time limit; messages name its setting."""
        self.seconds, self._setting = seconds, setting
        self._late: list[threading.Thread] = []
        self._lock = threading.Lock()

    def run(self, call: Callable[[], T]) -> T:
        """Return or raise what the call does.

        Raises:
            Late: it took too long, or 32 late calls are still running.
        """
        if self._late and self._still_running() >= _MOST_LATE:
            raise Late(f"{_MOST_LATE} earlier calls are still not answered, so no other is made")
        answers: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                answers.append(call())
            except BaseException as error:
                errors.append(error)

        context = contextvars.copy_context()  # traces continue in the other thread
        thread = threading.Thread(target=context.run, args=(work,), name="reco-deadline", daemon=True)
        thread.start()
        thread.join(self.seconds)
        if not answers and not errors:
            with self._lock:
                self._late.append(thread)
            raise Late(f"no answer within {self.seconds:g} s. Raise {self._setting}, or see what keeps it busy")
        if errors:
            raise errors[0]
        return answers[0]

    def _still_running(self) -> int:
        with self._lock:
            self._late = [thread for thread in self._late if thread.is_alive()]
            return len(self._late)
