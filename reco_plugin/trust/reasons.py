"""Why a query moved as far as it did, and what was decided for a set of candidates: figures, and words for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..types import Coverage
from .gate import Gate

Name: TypeAlias = Literal["knowledge", "agreement", "honesty", "nearness", "standout", "likeness"]
_NAMES: tuple[Name, ...] = get_args(Name)[:-1]
_LITTLE = math.log(1.1)  # a tenth of the move
_THIRDS: dict[Name, tuple[str, str, str]] = {
    "knowledge": (
        "the encoder hardly knows what was found",
        "the encoder knows what was found as well as usual",
        "the encoder knows what was found well",
    ),
    "agreement": ("the pairs found disagree", "the pairs found agree as well as usual", "the pairs found agree well"),
}
_SHORT: dict[Name, tuple[str, str]] = {
    "knowledge": ("the encoder hardly knows it", "the encoder knows it so well"),
    "agreement": ("the pairs found disagree", "the pairs found agree so well"),
    "honesty": ("captions look wrong", "captions look so right"),
    "nearness": ("the nearest pair is far", "the nearest pair is so near"),
    "standout": ("no pair stands out", "one pair stands out so far"),
    "likeness": ("the query is unlike what the memory holds", "the query is like what the memory holds"),
}


@dataclass(frozen=True)
class Signal:
    """One of the things that the gate looks at.

    Attributes:
        name: knowledge: how well the frozen encoder knows what was found. agreement: how far the neighbours agree.
            honesty: how right their captions look. nearness: of the nearest one. standout: its distance to their mean.
            likeness: of the query to what the memory holds, as the share of the move that this and caution leave.
        value: knowledge and agreement in standard deviations, honesty and likeness as shares, the others as cosines.
        level: place in the range that the gate was fitted on, from 0 to 1.
        pull: logarithm of the factor by which the move is longer than in the middle of that range; below 0: shorter.
    """

    name: Name
    value: float
    level: float
    pull: float


@dataclass(frozen=True)
class Why:
    """Why one query moved as far as it did.

    Attributes:
        signals: all six.
        added: length of what was added to the query, of length 1.
    """

    signals: tuple[Signal, ...]
    added: float

    @property
    def held_by(self) -> Signal | None:
        """What shortened the move most; None where nothing took a tenth of it."""
        least = min(self.signals, key=lambda signal: signal.pull)
        return least if least.pull < -_LITTLE else None

    def __str__(self) -> str:
        knowledge, agreement, honesty = self.signals[:3]
        known, agreed = (_THIRDS[one.name][min(int(3 * one.level), 2)] for one in (knowledge, agreement))
        seen = f"{known[0].upper()}{known[1:]}, {agreed}, and {honesty.value:.0%} of their captions look right."
        moved = f"So what was found counts {_times(self.added)} as much as the query itself"
        if (held := self.held_by) is None:
            return f"{seen} {moved}, as usual."
        low, high = _SHORT[held.name]
        return f"{seen} {moved}, and not more because {low if held.level < 0.5 else f'{high} that little is enough'}."


def reasons(
    gate: Gate, signals: npt.NDArray[np.float32], features: npt.NDArray[np.float64], added: npt.NDArray[np.float32]
) -> list[Why]:
    """Explain B moves.

    Args:
        gate: that decided.
        signals: (B, 8), see :data:`.gate.SIGNALS`.
        features: (B, 6) of them.
        added: (B,) length of what was added.
    """
    width = np.maximum(gate.high - gate.low, 1e-9)
    level = np.clip((features - gate.low) / width, 0.0, 1.0)
    pull = gate.phi * (level - 0.5) * width
    return [
        Why(
            (
                *(
                    Signal(name, float(signals[row, place]), float(level[row, place + 1]), float(pull[row, place + 1]))
                    for place, name in enumerate(_NAMES)
                ),
                _likeness(float(signals[row, 7])),
            ),
            float(added[row]),
        )
        for row in range(len(signals))
    ]


def _likeness(share: float) -> Signal:
    return Signal("likeness", share, share, math.log(max(share, 1e-6)))


def decided(coverage: Coverage, *, exact: bool = False) -> str:
    """Say what was decided for a set, and why.

    >>> decided(Coverage(4, 4, answered=0.25, needed=0.5, strength=0.2, covered=(True, False, False, False)))
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
        return said if far is None else f"{said}, which count {_times(far)} as much as a query itself, on average"
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
    return "which compete by both sides refined, and take nothing from the others"


def _times(share: float) -> str:
    """How much one counts beside another.

    >>> _times(0.004), _times(0.34), _times(2.5)
    ('< 1%', '34%', '2.5 times')
    """
    if share >= 0.995:
        return f"{share:.1f} times"
    return "< 1%" if 0 < share < 0.01 else f"{share:.0%}"
