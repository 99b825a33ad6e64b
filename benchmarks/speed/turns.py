"""Timing: whatever is compared takes turns, since the machine is shared and its speed changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Turns:
    """Of each action the median of every round: seconds that went by, and that processors worked for this process."""

    seconds: dict[str, list[float]]
    cpu: dict[str, list[float]]

    def least(self, name: str) -> float:
        """Seconds of a call in the best round: whatever else runs only adds."""
        return min(self.seconds[name])

    def least_cpu(self, name: str) -> float:
        """The same of the processors."""
        return min(self.cpu[name])

    def ratio(self, name: str, base: str) -> float:
        """How many times as long as another action: the median of the rounds' ratios."""
        return median(one / other for one, other in zip(self.seconds[name], self.seconds[base], strict=True))


def take_turns(actions: Mapping[str, Callable[[], object]], rounds: int, calls: int = 1) -> Turns:
    """Time each action so many calls a round, one after the other, every second round backwards.

    A call of each before the first round warms up.

    >>> turns = take_turns({"short": lambda: sum(range(9)), "long": lambda: sum(range(99_999))}, rounds=3)
    >>> {name: len(of_rounds) for name, of_rounds in turns.seconds.items()}, len(turns.cpu["long"])
    ({'short': 3, 'long': 3}, 3)
    >>> Turns({"short": [1.0, 1.0, 2.0], "long": [3.0, 5.0, 8.0]}, cpu={}).ratio("long", "short")
    4.0
    """
    for action in actions.values():
        action()
    found = Turns({name: [] for name in actions}, {name: [] for name in actions})
    for number in range(rounds):
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
        for _ in range(calls):
            for name in list(actions)[:: 1 if number % 2 == 0 else -1]:
                begun, worked = time.perf_counter(), time.process_time()
                actions[name]()
                times[name].append((time.perf_counter() - begun, time.process_time() - worked))
        for name, taken in times.items():
            found.seconds[name].append(median(seconds for seconds, _ in taken))
            found.cpu[name].append(median(cpu for _, cpu in taken))
    return found
