"""What refinement does to the memory's own pairs, each hidden from itself: right in sign, not in size.

Below some 5,000 pairs these are pairs that the gate was fitted on, so they are not held out. It cannot see that a
memory is irrelevant to the queries to come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..types import MODALITIES, Modality
from .corpus import Corpus
from .episodes import AskedPairs, FoundPairs, asked_by, look

if TYPE_CHECKING:
    from .state import Applied, Calibration

ALONE = 0.5
"""Share of pairs with a caption of their own above which the estimate says little."""
CHANCE = 5.0
"""Pairs that CLIP answers, up to which it may be by chance: of any number, one is expected."""


@dataclass(frozen=True)
class SideCheck:
    """Own pairs that ask by one modality for the other, each hidden from itself.

    Attributes:
        frozen: share of them that CLIP answers, in percent.
        gain: change with the pairs of the same caption visible, in points.
        error: its standard error.
        hidden: change with those hidden; about what a query without an answer loses.
    """

    frozen: float
    gain: float
    error: float
    hidden: float


@dataclass(frozen=True)
class Check:
    """The self-check of a memory.

    Attributes:
        image, text: queries of that modality.
        wrong: what their mean reliability lacks to 1; too high where entities look alike, so no share of wrong
            captions.
        pairs: that asked.
        alone: share of them whose caption no other pair has: with them hidden from themselves, there is no answer.
    """

    image: SideCheck
    text: SideCheck
    wrong: float
    pairs: int
    alone: float = 0.0

    @property
    def by_chance(self) -> bool:
        """Whether CLIP itself answers no more of them than chance would, by both modalities."""
        answered = (self.image.frozen + self.text.frozen) / 200.0 * self.pairs
        return answered <= CHANCE

    @property
    def meaning(self) -> str:
        """How far it can be trusted."""
        if self.by_chance:
            return (
                "real if this encoder knows nothing of such things; worth nothing if the vectors are of another "
                "encoder, or texts and images do not belong together. `reco eval` on real queries tells for sure"
            )
        if self.alone > ALONE:
            return "of little worth, since most of its captions have one pair; blind to an irrelevant memory"
        return "right in sign, not in size, blind to an irrelevant memory"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Check:
        """Read :meth:`to_json` back."""
        image, text = (SideCheck(**{name: float(one) for name, one in stored[m].items()}) for m in MODALITIES)
        return cls(image, text, float(stored["wrong"]), int(stored["pairs"]), float(stored["alone"]))

    def __str__(self) -> str:
        def told(side: SideCheck, what: str) -> str:
            return f"{what} {side.gain:+.1f} ± {2 * side.error:.1f} points ({side.hidden:+.1f} without an answer)"

        gains = f"{told(self.image, 'image queries')}, {told(self.text, 'text queries')}, estimated on its own pairs"
        if not self.by_chance:
            return gains
        return (
            f"ALARM: without refinement {self.image.frozen:.1f} % of image queries and {self.text.frozen:.1f} % of "
            f"text queries find their own pair among {self.pairs:,}, as by chance. {gains[0].upper()}{gains[1:]}"
        )


def check_pairs(corpus: Corpus, state: Calibration, rows: npt.NDArray[np.intp], *, k: int) -> Check:
    """Play the gates on pairs (n,) of the memory, each hidden from itself, by reliability."""
    looked, sides = look(corpus, rows, k), dict[Modality, SideCheck]()
    for m in MODALITIES:
        applied = state.gate(m, "balanced")
        asked = asked_by(corpus, m, looked).ask(applied.gate.sharpness if applied else 0.0)
        sides[m] = _check_side(asked, applied)
    wrong = float((1.0 - corpus.reliability_of(rows)).mean())
    alone = float((looked.siblings == 0).mean())
    return Check(sides["image"], sides["text"], wrong, len(rows), alone)


def _check_side(asked: AskedPairs, applied: Applied | None) -> SideCheck:
    every = np.arange(len(asked))
    plain, weights = asked.plain(every), asked.reliability / asked.reliability.sum()

    def compare(found: FoundPairs) -> tuple[float, float, float]:
        """Share that is answered before, the change and its standard error, in points."""
        out = asked.out(found, every)
        before, moved = _answers(plain, out), plain
        if applied is not None:
            strength = applied.gate.strength(found.features)
            for factor in applied.factors(found.evidence.best).values():
                strength = strength * factor
            moved = plain + strength[:, None] * found.scores(every)
        change = _answers(moved, out).astype(np.float64) - before
        mean = float(weights @ change)
        error = float(np.sqrt(np.sum(weights**2 * (change - mean) ** 2)))
        return 100.0 * float(weights @ before), 100.0 * mean, 100.0 * error

    share, gain, error = compare(asked.visible)
    return SideCheck(share, gain, error, compare(asked.hidden)[1])


def _answers(scores: npt.NDArray[np.float32], out: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether the own candidate has the highest score of those that are rivals, (n, n) -> (n,)."""
    return np.asarray(np.where(out, -np.inf, scores).argmax(axis=1) == np.arange(len(scores)))
