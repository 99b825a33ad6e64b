"""Whether queries are still like those that a promise was tested on; a promise holds for these alone.

How far two distributions are apart is told by the Kolmogorov-Smirnov distance. Recent rankings may be any mixture of
those whose answer the index holds and does not hold, of things that the memory knows and does not know: the best
mixture counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from .match import ThingQuestions

ENOUGH = 100
"""Recent queries from which on they are compared."""
_FAR = 0.15  # of the distance, beyond what chance brings
_CHANCE = 1.63  # of the distance at an error level of .01, times the root of 1/n + 1/m
_SHARES = np.linspace(0.0, 1.0, 11)
_MORE = 0.1  # of the share without an answer
_WORSE = 0.05  # of the distance, where no more are without an answer than allowed
Sampled = npt.NDArray[np.floating]


def find_shift(
    kinds: Sequence[ThingQuestions], signals: npt.NDArray[np.float32], usual: npt.NDArray[np.float32], absent: float
) -> str:
    """Say how recent queries differ from the questions, for people; empty where they do not, or are too few.

    Args:
        kinds: the questions of a side and way.
        signals: (n, 4) of recent rankings.
        usual: (n,) cosines of their plain queries with the mean of the memory's vectors.
        absent: share of queries without an answer that the promise allows.
    """
    if len(signals) < ENOUGH:
        return ""
    most = max(kinds, key=len)
    allowed = _FAR + _CHANCE * float(np.sqrt(1.0 / len(usual) + 1.0 / len(most)))
    style = distance([most.usual], [1.0], usual)
    if style > allowed:
        side = "less" if np.median(usual) < np.median(most.usual) else "more"
        return (
            f"recent queries are {side} like the memory's own than those that asked (distance {style:.2f} of 1): "
            "nothing is promised for them. Add pairs whose captions and pictures are like what people ask"
        )
    parts = [part for one in kinds for part in (one.present[:, 0], one.absent[:, 0])]
    found = [(distance(parts, shares, signals[:, 0]), shares) for shares in _mixtures(len(kinds))]
    least, shares = min(found, key=lambda one: one[0])
    gone = sum(shares[1::2])
    if least > allowed:
        return (
            f"scores of recent queries are unlike those of the questions (distance {least:.2f} of 1), as where the "
            "index is larger or holds other things: nothing is promised for them"
        )
    enough = min(one for one, mixed in found if sum(mixed[1::2]) <= absent + _MORE + 1e-9)
    if gone > absent and enough > least + _WORSE:
        return (
            f"about {gone:.0%} of the recent queries seem to have no answer in the index, and {absent:.0%} are allowed "
            "for: say so (absent)"
        )
    return ""


def _mixtures(kinds: int) -> list[list[float]]:
    """Shares of present and absent answers of each kind, which sum to 1."""
    if kinds == 1:
        return [[1.0 - gone, gone] for gone in _SHARES.tolist()]
    return [
        [known * (1.0 - gone), known * gone, (1.0 - known) * (1.0 - gone), (1.0 - known) * gone]
        for known, gone in product(_SHARES.tolist(), _SHARES.tolist())
    ]


def distance(parts: Sequence[Sampled], shares: Sequence[float], recent: Sampled) -> float:
    """Kolmogorov-Smirnov distance of values from a mixture of parts.

    >>> distance([np.array([0.0, 1.0])], [1.0], np.array([2.0, 3.0]))
    1.0
    """
    places = np.sort(np.concatenate([recent, *parts]))
    there = np.searchsorted(np.sort(recent), places, "right") / len(recent)
    mixed = np.zeros(len(places))
    for part, share in zip(parts, shares, strict=True):
        mixed += share * np.searchsorted(np.sort(part), places, "right") / len(part)
    return float(np.abs(there - mixed).max())
