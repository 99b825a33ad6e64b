"""Timing in turns, because the machine is shared and its speed changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Turns:
    """Action -> median seconds of each round."""

    seconds: dict[str, list[float]]

    def least(self, name: str) -> float:
        """Seconds of a call in the best round, which other processes disturbed least."""
        return min(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Median over the rounds of the ratio to another action."""
        return median(one / other for one, other in zip(self.seconds[name], self.seconds[base], strict=True))


def take_turns(actions: Mapping[str, Callable[[], object]], rounds: int, calls: int = 1) -> Turns:
    """Time ``calls`` calls of each action a round, in turns; every second round runs backwards.

    One call of each warms up.

    >>> turns = take_turns({"short": lambda: sum(range(9)), "long": lambda: sum(range(99_999))}, rounds=3)
    >>> {name: len(of_rounds) for name, of_rounds in turns.seconds.items()}
    {'short': 3, 'long': 3}
    >>> Turns({"short": [1.0, 1.0, 2.0], "long": [3.0, 5.0, 8.0]}).ratio("long", "short")
    4.0
    """
    for action in actions.values():
        action()
    found = Turns({name: [] for name in actions})
    for number in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(calls):
            for name in list(actions)[:: 1 if number % 2 == 0 else -1]:
                begun = time.perf_counter()
                actions[name]()
                times[name].append(time.perf_counter() - begun)
        for name, taken in times.items():
            found.seconds[name].append(median(taken))
    return found
