"""Why a query moved as far as it did, in figures and in words for people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Name: TypeAlias = Literal["knowledge", "familiarity", "reliability", "nearness", "standout", "likeness", "novelty"]
NAMES: tuple[Name, ...] = get_args(Name)[:5]
"""Of the features; one of the two others is added."""
MOST = 0.5
"""Share of one pair from which the others hardly count."""
_LITTLE = math.log(1.1)  # a tenth of the move
_THIRDS: dict[Name, tuple[str, str, str]] = {
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
_SHORT: dict[Name, tuple[str, str]] = {
    "knowledge": ("the encoder hardly knows it", "the encoder knows it so well"),
    "familiarity": ("these pairs are new to the encoder", "the encoder knows these pairs so well"),
    "reliability": ("their captions fit badly", "their captions fit so well"),
    "nearness": ("the nearest pair is far", "the nearest pair is so near"),
    "standout": ("no pair stands out", "one pair stands out so far"),
    "likeness": ("the query is unlike what the memory holds", "the query is like what the memory holds"),
    "novelty": ("the encoder knows the pair by itself", "the pair is new to the encoder"),
}


@dataclass(frozen=True)
class Signal:
    """One of the things that the gate looks at.

    Attributes:
        name: knowledge: how well the encoder knows what was found. familiarity: how well it knows the pairs found
            themselves. reliability: how well their captions fit. nearness: of the nearest one. standout: its distance
            to their mean. likeness: of the query to what the memory holds, as the share of the move that this and
            caution leave. novelty: instead of it for candidates of a memory with one image per caption, as far as the
            encoder does not know the pairs found by itself.
        value: knowledge and familiarity in standard deviations; reliability from 0 to 1; likeness and novelty as
            shares; the others as cosines.
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
        heaviest: share that one of the pairs found has in it, at most.
        words: of the query, by which captions were found that stand in for it; empty where it asked by itself.
    """

    signals: tuple[Signal, ...]
    added: float
    heaviest: float = 0.0
    words: str = ""

    @property
    def held_by(self) -> Signal | None:
        """What shortened the move most; None where nothing took a tenth of it."""
        least = min(self.signals, key=lambda signal: signal.pull)
        return least if least.pull < -_LITTLE else None

    def __str__(self) -> str:
        knowledge, familiarity, reliability = self.signals[:3]
        known, pairs = (_THIRDS[one.name][min(int(3 * one.level), 2)] for one in (knowledge, familiarity))
        if self.heaviest >= MOST:
            pairs = f"one pair has {self.heaviest:.0%} of the weight"
        fit = f"their captions fit their neighbours by {reliability.value:.2f} of 1"
        found = f"Found by its words: {self.words}. " if self.words else ""
        seen = f"{found}{known[0].upper()}{known[1:]}, {pairs}, and {fit}."
        moved = f"So what was found counts {times_added(self.added)} as much as the query itself"
        if (held := self.held_by) is None:
            return f"{seen} {moved}, as usual."
        low, high = _SHORT[held.name]
        return f"{seen} {moved}, and not more because {low if held.level < 0.5 else f'{high} that little is enough'}."


def times_added(share: float) -> str:
    """How much one counts beside another.

    >>> times_added(0.004), times_added(0.34), times_added(2.5)
    ('< 1%', '34%', '2.5 times')
    """
    if share >= 0.995:
        return f"{share:.1f} times"
    return "< 1%" if 0 < share < 0.01 else f"{share:.0%}"
