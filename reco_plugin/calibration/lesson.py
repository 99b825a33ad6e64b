"""What is learned from pairs that are at hand, in this process or in one of its own, see :mod:`.apart`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..types import Records
from .calibrate import calibrate
from .extra import Extra
from .state import Calibration

COMPARED, FITTED = 1, 2
"""Progress per pair: its caption is compared with all others, and it is fitted to, by image and by text."""


class Taught(NamedTuple):
    """What pairs taught: the state, and what extras learned, by name."""

    state: Calibration
    extras: Mapping[str, Mapping[str, Any]]


class Lesson:
    """Learns from pairs that it is given."""

    def __init__(self, progress: Callable[[int], object] = int) -> None:
        self._progress = progress

    def learn(self, pairs: Records, k: int, extras: Sequence[Extra] = ()) -> Taught | None:
        """Learn from pairs (N, D); None where they are too few, or too equal.

        Args:
            pairs: their payloads are not looked at.
            k: neighbours of the searches to come.
            extras: learn too.
        """
        left = (COMPARED + FITTED) * len(pairs)

        def count(steps: int) -> None:
            nonlocal left
            left -= steps
            self._progress(steps)

        learned = calibrate(pairs.image, pairs.text, k=k, progress=count)
        self._progress(left)  # a side that is not fitted
        if learned is None:
            return None
        told = dict[str, Mapping[str, Any]]()
        for extra in extras if learned.state.fitted else ():
            if (found := extra.learn(learned, pairs, k, self._progress)) is not None:
                told[extra.name] = found
        return Taught(learned.state, told)
