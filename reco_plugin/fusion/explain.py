"""Why a query moved as far as it did, in figures and in words for people, and what was decided for a set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..learning.state import FEWEST, Calibration
from ..memory import Header
from ..types import Coverage
from ..values import counted
from ..vectors import Floats
from .evidence import Evidence

_SURE = 1e9  # odds; JSON has no infinity
_MOST = 0.5  # share of one pair from which the others hardly count
_HELD: dict[str, str] = {
    "typical": "the query is unlike what the memory holds",
    "presence": "the memory hardly holds its answer",
    "rejected": "somebody rejected such answers to such queries",
}


@dataclass(frozen=True)
class Why:
    """Why one query moved as far as it did.

    Attributes:
        signals: by name. odds: that the query means the most likely caption; pictures: of that caption, as far as they
            are trusted. Then the factors of this move, each as the share that it leaves: typical, presence, rejected.
        reliability: how far the pairs found are trusted, by their weights, from 0 to 1.
        added: length of what was added to the query, of length 1.
        heaviest: share that one of the pairs found has in it, at most.
        words: of the query, by which captions were found that stand in for it; empty where it asked by itself.
    """

    signals: Mapping[str, float]
    reliability: float
    added: float
    heaviest: float = 0.0
    words: str = ""

    @property
    def held_by(self) -> str:
        """The factor that shortened the move most; empty where none took a tenth of it."""
        least = min((name for name in self.signals if name in _HELD), key=self.signals.__getitem__, default="")
        return least if least and self.signals[least] < 0.9 else ""

    def __str__(self) -> str:
        found = f"Found by its words: {self.words}. " if self.words else ""
        held = self.held_by
        if held and self.signals[held] < 0.01:
            return f"{found}The query hardly moves: {_HELD[held]}."
        pictures = counted(max(1, round(self.signals["pictures"])), "picture", "pictures")
        one = f", and one pair has {self.heaviest:.0%} of the weight" if self.heaviest >= _MOST else ""
        because = f". It counts no more because {_HELD[held]}" if held else ""
        return (
            f"{found}What was found counts {times_added(self.added)} as much as the query itself: {pictures} of the "
            f"most likely caption, {_odds(self.signals['odds'])}{one}{because}."
        )


def _odds(odds: float) -> str:
    """Odds in words.

    >>> _odds(16.2), _odds(0.25), _odds(1e9)
    ('16 to 1 that it is meant', '1 to 4 that it is meant', 'which is surely meant')
    """
    if odds >= 1000:
        return "which is surely meant"
    told = f"{odds:.0f} to 1" if odds >= 1 else f"1 to {1 / max(odds, 1e-6):.0f}"
    return f"{told} that it is meant"


def reasons(evidence: Evidence, added: Floats) -> list[Why]:
    """Explain B moves, by the evidence with its factors and the lengths (B,) of what was added."""
    signals = {"odds": np.minimum(evidence.odds, _SURE), "pictures": evidence.pictures, **evidence.factors}
    trusted = (evidence.weights * evidence.trust).sum(axis=1)
    return [
        Why(
            {name: float(values[row]) for name, values in signals.items()},
            float(trusted[row]),
            float(added[row]),
            float(evidence.weights[row].max(initial=0.0)),
        )
        for row in range(len(added))
    ]


def why_plain(header: Header, pairs: int | None) -> str:
    """Say that a memory refines no query, why, and what to do; empty where it refines.

    Args:
        header: of the memory.
        pairs: how many it holds; None where that is not known now.
    """
    if header.calibration:
        try:
            why = Calibration.from_json(header.calibration).reason
        except ConfigError as error:
            why = str(error)
        else:
            why += why and ". Check that each text belongs to its image, and build the memory again"
    elif pairs is not None and pairs < FEWEST:
        why = f"{counted(pairs, 'pair is', 'pairs are')} too few, it needs {FEWEST}: add pairs"
    else:
        captions = f"it needs {FEWEST} pairs with 5 different captions"
        why = f"the memory is not calibrated: {captions}, then reco memory build --relearn"
    return why and f"queries stay plain: {why}"


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
    >>> explain_decision(Coverage(1, 0, strength=0.9)), explain_decision(Coverage(1, 0, strength=0.0))
    ('all move by what the memory learned of their own modality', 'nothing moves: no pair was found')

    Args:
        coverage: of the refinement.
        exact: whether scores of both sides follow, which need no majority.
    """
    if coverage.plain:
        return f"{'the texts stay plain' if exact else 'nothing moves'}: {coverage.plain}"
    if not coverage.found:
        own = "all move by what the memory learned of their own modality"
        return own if coverage.strength else "nothing moves: no pair was found"
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
