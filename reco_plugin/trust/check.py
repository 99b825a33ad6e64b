"""What refinement does to the memory's own held-out pairs: an estimate that is right in sign, not in size.

It cannot see that a memory is irrelevant to the queries to come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import MODALITIES, Modality
from .corpus import Corpus
from .episodes import Episode, Episodes, make_episodes
from .fit import move
from .gate import Applied

ALONE = 0.5
"""Share of pairs with a caption of their own above which the estimate says little: it was -3 where +6 was measured
(docs/measurements/self-check.md), and +9 where +.5 was (docs/measurements/fit.md, game)."""


@dataclass(frozen=True)
class SideCheck:
    """Held-out pairs that ask by one modality for the other.

    Attributes:
        frozen: share of them that CLIP answers, in percent.
        gain: change with the pairs of the same caption visible, in points.
        error: its standard error.
        hidden: change with those hidden; about what a query without an answer loses.
        hidden_error: its standard error.
    """

    frozen: float
    gain: float
    error: float
    hidden: float
    hidden_error: float


@dataclass(frozen=True)
class Check:
    """The self-check of a memory.

    Attributes:
        image, text: queries of that modality.
        wrong: share of its captions that look wrong, in [0, 1].
        pairs: that asked.
        alone: share of them whose caption no other pair has: with them hidden from themselves, there is no answer.
    """

    image: SideCheck
    text: SideCheck
    wrong: float
    pairs: int
    alone: float = 0.0

    @property
    def meaning(self) -> str:
        """How far it can be trusted."""
        if self.alone > ALONE:
            return "of little worth, since most of its captions have one pair; blind to an irrelevant memory"
        return "right in sign, not in size, blind to an irrelevant memory"

    def side(self, modality: Modality) -> SideCheck:
        """The check of one modality."""
        return self.image if modality == "image" else self.text

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Check:
        """Read :meth:`to_json` back."""
        image, text = (SideCheck(**{k: float(v) for k, v in stored[m].items()}) for m in MODALITIES)
        return cls(image, text, float(stored["wrong"]), int(stored["pairs"]), float(stored.get("alone", 0.0)))

    def __str__(self) -> str:
        def said(side: SideCheck, what: str) -> str:
            return f"{what} {side.gain:+.1f} ± {2 * side.error:.1f} points ({side.hidden:+.1f} without an answer)"

        return f"{said(self.image, 'image queries')}, {said(self.text, 'text queries')}, estimated on its own pairs"


def check_pairs(
    corpus: Corpus,
    gates: Mapping[Modality, Applied | None],
    rows: npt.NDArray[np.intp],
    *,
    k: int,
) -> Check:
    """Play the gates on pairs that were not in the fit, weighted by honesty: a wrong caption tests nothing."""
    sides, alone = {}, 0.0
    for modality in MODALITIES:
        episodes = make_episodes(corpus, modality, rows, k=k)
        sides[modality] = _check_side(episodes, gates[modality])
        alone = float((episodes.siblings == 0).mean())
    wrong = float((1.0 - corpus.honesty_of(rows)).mean())
    return Check(sides["image"], sides["text"], wrong, len(rows), alone)


def _check_side(episodes: Episodes, gate: Applied | None) -> SideCheck:
    weights = episodes.honesty / episodes.honesty.sum()
    figures = []
    for episode in (episodes.visible, episodes.hidden):
        before = _answers(np.where(episode.out, -np.inf, episode.frozen))
        after = before if gate is None else _answers(np.where(episode.out, -np.inf, _scores(episode, episodes, gate)))
        change = after.astype(np.float64) - before
        mean = float(weights @ change)
        error = float(np.sqrt(np.sum(weights**2 * (change - mean) ** 2)))
        figures.append((100.0 * float(weights @ before), 100.0 * mean, 100.0 * error))
    (frozen, gain, error), (_, hidden, hidden_error) = figures
    return SideCheck(frozen, gain, error, hidden, hidden_error)


def _scores(episode: Episode, episodes: Episodes, applied: Applied) -> npt.NDArray[np.float64]:
    gate = applied.gate
    moved = move(episode, np.concatenate([gate.phi, [gate.sharpness]]), episodes, (gate.low, gate.high))
    evidence = np.matmul(moved.shares[:, None].astype(np.float32), episode.scores)[:, 0]
    strength = moved.strength * applied.share(episode.similarity[:, 0])
    return np.asarray(episode.frozen + strength[:, None] * evidence)


def _answers(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Whether the own candidate has the highest score, (n, n) -> (n,)."""
    return np.asarray(scores.argmax(axis=1) == np.arange(len(scores)))
