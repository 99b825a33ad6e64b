"""Why a query moved as far as it did, in figures and in words for people, and what was decided for a set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from ..machine.blas import Floats
from ..types import Coverage
from .evidence import Evidence, Gate

FeatureName: TypeAlias = Literal["knowledge", "familiarity", "nearness", "standout"]
FEATURES: tuple[FeatureName, ...] = get_args(FeatureName)
MOST = 0.5
"""Share of one pair from which the others hardly count."""
_LITTLE = math.log(1.1)  # a tenth of the move
_NONE = 0.01  # share of the move below which a factor holds it back as a whole
_THIRDS: dict[str, tuple[str, str, str]] = {
    "knowledge": (
        "the encoder hardly knows what was found",
        "the encoder knows what was found as well as usual",
        "the encoder knows what was found well",
    ),
    "familiarity": (
        "the pairs found are new to it",
        "it knows these pairs themselves as usual",
        "it knows these pairs themselves well",
    ),
}
_SHORT: dict[str, tuple[str, str]] = {
    "knowledge": ("the encoder hardly knows it", "the encoder knows it so well that little is enough"),
    "familiarity": (
        "these pairs are new to the encoder",
        "the encoder knows these pairs so well that little is enough",
    ),
    "nearness": ("the nearest pair is far", "the nearest pair is so near that little is enough"),
    "standout": ("no pair stands out", "one pair stands out so far that little is enough"),
}
_HELD: dict[str, str] = {
    "caution": "more queries than usual are assumed to have no answer",
    "typical": "the query is unlike what the memory holds",
    "presence": "the memory hardly holds its answer",
    "rejected": "somebody rejected such answers to such queries",
    "unknown_to_clip": "the encoder knows the pair by itself",
}


@dataclass(frozen=True)
class Signal:
    """One of the things that decide how far a query moves.

    Attributes:
        name: of a feature: knowledge: how well the encoder knows what was found. familiarity: how well it knows the
            pairs found themselves. nearness: of the nearest one. standout: its distance to their mean. Or of a factor,
            which shortens the move: caution, typical, presence, rejected, unknown_to_clip.
        value: knowledge and familiarity in standard deviations; nearness and standout as cosines; of a factor the share
            of the move that it leaves.
        level: place of a feature in the range that the gate was fitted on, from 0 to 1; of a factor its share.
        pull: logarithm of the factor by which the move is longer than in the middle of that range; below 0: shorter.
    """

    name: str
    value: float
    level: float
    pull: float


@dataclass(frozen=True)
class Why:
    """Why one query moved as far as it did.

    Attributes:
        signals: four features, and the factors of this move.
        reliability: how well the captions of the pairs found fit their neighbours, from 0 to 1.
        added: length of what was added to the query, of length 1.
        heaviest: share that one of the pairs found has in it, at most.
        words: of the query, by which captions were found that stand in for it; empty where it asked by itself.
    """

    signals: tuple[Signal, ...]
    reliability: float
    added: float
    heaviest: float = 0.0
    words: str = ""

    @property
    def held_by(self) -> Signal | None:
        """What shortened the move most; None where nothing took a tenth of it."""
        least = min(self.signals, key=lambda signal: signal.pull)
        return least if least.pull < -_LITTLE else None

    def __str__(self) -> str:
        found = f"Found by its words: {self.words}. " if self.words else ""
        held = self.held_by
        if held is not None and held.name in _HELD and held.value < _NONE:
            return f"{found}The query hardly moves: {_HELD[held.name]}."
        known, pairs = (_THIRDS[one.name][min(int(3 * one.level), 2)] for one in self.signals[:2])
        if self.heaviest >= MOST:
            pairs = f"one pair has {self.heaviest:.0%} of the weight"
        fit = f"their captions fit their neighbours by {self.reliability:.2f} of 1"
        seen = f"{found}{known[0].upper()}{known[1:]}, {pairs}, and {fit}."
        moved = f"So what was found counts {times_added(self.added)} as much as the query itself"
        if held is None:
            return f"{seen} {moved}, as usual."
        why = _HELD[held.name] if held.name in _HELD else _SHORT[held.name][held.level >= 0.5]
        return f"{seen} {moved}, and not more because {why}."


def reasons(gate: Gate, evidence: Evidence, spread: float, added: Floats) -> list[Why]:
    """Explain B moves.

    Args:
        gate: that decided.
        evidence: of the queries, with the factors.
        spread: of similarity.
        added: (B,) length of what was added.
    """
    width = np.maximum(gate.high - gate.low, 1e-9)
    level = np.clip((evidence.features(spread) - gate.low) / width, 0.0, 1.0)
    pull = gate.phi * (level - 0.5) * width
    values = np.stack([evidence.known, evidence.own, evidence.best, evidence.lead], axis=1)
    return [
        Why(
            (
                *(
                    Signal(name, float(values[row, n]), float(level[row, n + 1]), float(pull[row, n + 1]))
                    for n, name in enumerate(FEATURES)
                ),
                *(
                    Signal(name, float(left[row]), float(left[row]), math.log(max(float(left[row]), 1e-6)))
                    for name, left in evidence.factors.items()
                ),
            ),
            float(evidence.reliability[row]),
            float(added[row]),
            float(evidence.weights[row].max(initial=0.0)),
        )
        for row in range(len(added))
    ]


def times_added(share: float) -> str:
    """How much one counts beside another.

    >>> times_added(0.004), times_added(0.34), times_added(2.5)
    ('< 1%', '34%', '2.5 times')
    """
    if share >= 0.995:
        return f"{share:.1f} times"
    return "< 1%" if 0 < share < 0.01 else f"{share:.0%}"


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


def _for_scores(covered: tuple[bool, ...]) -> str:
    if all(covered):
        return "so both sides are refined"
    if not any(covered):
        return "so both sides stay plain"
    return "which compete by both sides refined, and take little from the others"
