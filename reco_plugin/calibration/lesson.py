"""What is learned from pairs that are at hand, in this process or in one of its own, see :mod:`.apart`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import Records, Vectors
from .calibrate import Calibrated, calibrate
from .extra import Extra
from .state import Calibration

COMPARED, FITTED = 2, 2
"""Progress per pair: it is compared by image and by text, and fitted to, by either."""


class Taught(NamedTuple):
    """What pairs taught: the state, the caption scores (N, 3) of each, and what extras learned, by name."""

    state: Calibration
    caption_scores: npt.NDArray[np.float32]
    extras: Mapping[str, Mapping[str, Any]]


class Lesson:
    """Learns from pairs that it is given, and then judges others beside them."""

    def __init__(self, progress: Callable[[int], object] = int) -> None:
        self._progress = progress
        self._learned: Calibrated | None = None

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

        self._learned = learned = calibrate(pairs.image, pairs.text, k=k, progress=count)
        self._progress(left)  # a side that is not fitted
        if learned is None:
            return None
        told = dict[str, Mapping[str, Any]]()
        for extra in extras if learned.state.fitted else ():
            if (found := extra.learn(learned, pairs, k, self._progress)) is not None:
                told[extra.name] = found
        return Taught(learned.state, learned.caption_scores, told)

    def judge(self, image: Vectors, text: Vectors) -> npt.NDArray[np.float32]:
        """Caption scores (M, 3) of other pairs (M, D), by their neighbours among those that were learned from."""
        if self._learned is None:
            raise RuntimeError("nothing was learned yet")
        return self._learned.score_captions(image, text)
