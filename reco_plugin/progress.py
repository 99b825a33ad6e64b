"""How far a long job is, on stderr: a bar on a terminal, elsewhere (a pipe, a log) a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

FIRST_S, LAST_S = 10.0, 60.0
"""Seconds between two lines, in the beginning and of a job that takes long."""


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """A bar over items, or one that is advanced by ``update``; takes tqdm's options.

    Where stderr is no terminal, it is a line each ten seconds, of a long job each minute: none of a job that takes
    less, and no carriage return.
    """
    return (tqdm if sys.stderr.isatty() else _Lines)(items, **options)


class _Lines(tqdm):  # type: ignore[misc]  # it has no types
    """tqdm's figures, a line of its own each time."""

    monitor_interval = 0  # no thread that looks after bars: each update looks at the clock

    def __init__(self, items: Iterable[Any] | None, **options: Any) -> None:
        line = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        self._shown = time.monotonic()
        super().__init__(items, **options, bar_format=line, mininterval=FIRST_S, miniters=1, delay=FIRST_S)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line, of a step that counts nothing its name; the longer the job takes, the later the next."""
        now = time.monotonic()
        if self.n or now >= self._shown + FIRST_S:  # a step that begins: many may pass in a second
            self._shown = now
            self.fp.write(f"{self if self.n or self.total else self.desc}\n")
            self.fp.flush()
        self.mininterval = min(LAST_S, max(FIRST_S, self.format_dict["elapsed"] / 10))
        return True

    def close(self) -> None:
        """Write where it ended, if that is not where the last line was."""
        if not self.disable and self.leave and 0 < self.last_print_n < self.n:
            self.display()
        self.sp = None  # what the base class would write now is for a terminal
        super().close()
