"""Explain moves by the gate that decided, and say what was decided for a set of candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..types import Coverage
from .gate import Applied
from .why import NAMES, Name, Signal, Why, times_added


def reasons(
    applied: Applied,
    signals: npt.NDArray[np.float32],
    features: npt.NDArray[np.float64],
    added: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
) -> list[Why]:
    """Explain B moves.

    Args:
        applied: the gate that decided.
        signals: (B, 8), see :data:`.gate.SIGNALS`.
        features: (B, 6) of them.
        added: (B,) length of what was added.
        weights: (B, K) share of each neighbour in it.
    """
    gate = applied.gate
    last: Name = "novelty" if applied.unknown_only else "likeness"
    values = np.concatenate([signals[:, :1], np.log(np.maximum(signals[:, 1:2], 1e-9)), signals[:, 2:]], axis=1)
    width = np.maximum(gate.high - gate.low, 1e-9)
    level = np.clip((features - gate.low) / width, 0.0, 1.0)
    pull = gate.phi * (level - 0.5) * width
    return [
        Why(
            (
                *(
                    Signal(name, float(values[row, place]), float(level[row, place + 1]), float(pull[row, place + 1]))
                    for place, name in enumerate(NAMES)
                ),
                _shortened(last, float(signals[row, 7])),
            ),
            float(added[row]),
            float(weights[row].max(initial=0.0)),
        )
        for row in range(len(signals))
    ]


def _shortened(name: Name, share: float) -> Signal:
    return Signal(name, share, share, math.log(max(share, 1e-6)))


def explain_decision(coverage: Coverage, *, exact: bool = False) -> str:
    """Say what was decided for a set, and why.

    >>> explain_decision(Coverage(4, 4, answered=0.25, needed=0.5, strength=0.2, covered=(True, False, False, False)))
    '1 of 4 is known to the memory, less than 50%, so all stay plain: moving some takes queries from the others'

    Args:
        coverage: of the refinement.
        exact: whether scores of both sides follow, which need no majority.
    """
    if coverage.plain:
        return f"{'the texts stay plain' if exact else 'nothing moves'}: {coverage.plain}"
    if not coverage.found:
        return "nothing moves: no pair was found"
    if not coverage.covered:
        said = f"{coverage.found} of {coverage.asked} found pairs"
        far = coverage.strength
        return said if far is None else f"{said}, which count {times_added(far)} as much as a query itself, on average"
    known = sum(coverage.covered)
    said = f"{known} of {len(coverage.covered)} {'is' if known == 1 else 'are'} known to the memory"
    if exact:
        return f"{said}, {_for_scores(coverage.covered)}"
    if coverage.held:
        return f"{said}, less than {coverage.needed:.0%}, so all stay plain: moving some takes queries from the others"
    return f"{said}, so all move"


def _for_scores(covered: Sequence[bool]) -> str:
    if all(covered):
        return "so both sides are refined"
    if not any(covered):
        return "so both sides stay plain"
    return "which compete by both sides refined, and take little from the others"
