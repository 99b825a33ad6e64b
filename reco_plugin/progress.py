"""Progress of a long job on stderr: a bar on a terminal, plain lines elsewhere (a pipe, a log)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

FIRST_S, LAST_S = 10.0, 60.0
"""Seconds between two lines, at the beginning and later."""


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """A bar over items, or one that ``update`` advances; takes tqdm's options.

    If stderr is no terminal, it writes a line every ten seconds, and every minute in a long job; no carriage returns,
    and nothing for a shorter job.
    """
    return (tqdm if sys.stderr.isatty() else _Lines)(items, **options)


class _Lines(tqdm):  # type: ignore[misc]  # it has no types
    """tqdm's figures, one line each time."""

    monitor_interval = 0  # no monitor thread: each update checks the clock

    def __init__(self, items: Iterable[Any] | None, **options: Any) -> None:
        line = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        self._shown = time.monotonic()
        super().__init__(items, **options, bar_format=line, mininterval=FIRST_S, miniters=1, delay=FIRST_S)

    def __iter__(self) -> Iterator[Any]:
        """Count one by one: tqdm's own loop keeps its first ``mininterval`` and counts twice when that grows."""
        with self:
            for item in self.iterable:
                yield item
                self.update()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line, or only the name of a step without counts; lines get rarer in a long job."""
        now = time.monotonic()
        if self.n or now >= self._shown + FIRST_S:  # a new step: many may begin in a second
            self._shown = now
            self.fp.write(f"{self if self.n or self.total else self.desc}\n")
            self.fp.flush()
        self.mininterval = min(LAST_S, max(FIRST_S, self.format_dict["elapsed"] / 10))
        return True

    def close(self) -> None:
        """Write the final state, if the last line was earlier."""
        if not self.disable and self.leave and 0 < self.last_print_n < self.n:
            self.display()
        self.sp = None  # the base class would write for a terminal
        super().close()
