"""What a class of attacks came to."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from reco_plugin.progress import progress_bar

MODEL = Path(__file__).resolve().parents[2] / "triton_models"


@dataclass
class Found:
    """What was tried and seen.

    Attributes:
        tried: how often, by what was tried.
        answers: how often, by status or by what was found.
        faults: each in words; there must be none.
        figures: further ones, name -> value.
    """

    tried: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)


class Until:
    """When a class ends: after so many seconds, or, where a number is given, when so much was tried."""

    def __init__(self, name: str, seconds: float, count: int | None) -> None:
        self._seconds, self._count = seconds, count
        self._ends: float | None = None
        self._bar = progress_bar(total=count, desc=name, unit="")

    def more(self, found: Found) -> bool:
        """Whether to go on."""
        tried = found.tried.total()
        if self._ends is None:
            self._ends = time.monotonic() + self._seconds  # what is prepared takes time of its own
        self._bar.update(tried - self._bar.n)
        return time.monotonic() < self._ends if self._count is None else tried < self._count

    def close(self) -> None:
        """End the progress."""
        self._bar.close()


@dataclass(frozen=True)
class Round:
    """What a class is given: an empty folder, its randomness, and when to end."""

    work: Path
    rng: random.Random
    until: Until


Attack: TypeAlias = Callable[[Round], Found]
