"""What refinement does to the memory's own pairs, each hidden from itself: right in sign, not in size.

Below some 5,000 pairs these are pairs that the gate was fitted on, so they are not held out. It cannot see that a
memory is irrelevant to the queries to come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from ..machine.blas import Floats
from ..types import MODALITIES, Modality, other
from .corpus import Corpus
from .episodes import AskedTwice, Episode, asked_by, look
from .formula import add, move
from .gate import SHARPNESS, Applied, features
from .moments import level
from .sharpen import OwnCheck

ALONE = 0.5
"""Share of pairs with a caption of their own above which the estimate says little: it was -3 where +6 was measured
(docs/measurements.md), and +9 where +.5 was (docs/measurements.md, game)."""

CHANCE = 5.0
"""Pairs that CLIP answers, up to which it may be by chance: of any number, one is expected."""

Rightness = npt.NDArray[np.bool_]
SidesRefined = Literal["plain", "queries", "candidates", "both"]
"""What is refined; both by exact scores."""
_OTHERS: tuple[SidesRefined, ...] = ("both", "candidates")
"""Beside the queries, in the order in which they have to be better by two standard errors than what was chosen before:
exact scores refine both, and candidates alone are near to both in most memories, where chance would choose."""
_IN_WORDS: Mapping[SidesRefined, str] = {
    "plain": "are best left plain",
    "queries": "gain most if they are refined",
    "candidates": "gain most if the candidates are refined",
    "both": "gain most if both sides are refined, by exact scores",
}


class Gates(NamedTuple):
    """Of one modality: its queries, its queries among candidates that the memory knows, and its candidates."""

    query: Applied | None
    among: Applied | None
    candidate: Applied | None


@dataclass(frozen=True)
class SideCheck:
    """Own pairs that ask by one modality for the other, each hidden from itself.

    Attributes:
        frozen: share of them that CLIP answers, in percent.
        gain: change with the pairs of the same caption visible, in points.
        error: its standard error.
        hidden: change with those hidden; about what a query without an answer loses.
        hidden_error: its standard error.
        candidates: change where the candidates are refined instead.
        both: change where both are.
        best: what to refine: the queries, which leaves an index as it is; both, if that is better by two standard
            errors; the candidates alone, if that is better still by as much.
    """

    frozen: float
    gain: float
    error: float
    hidden: float
    hidden_error: float
    candidates: float = 0.0
    both: float = 0.0
    best: SidesRefined = "queries"

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> SideCheck:
        """Read the fields back."""
        if (best := stored["best"]) not in get_args(SidesRefined):
            raise ValueError(f"{best!r} is no form")
        return cls(**{name: float(value) for name, value in stored.items() if name != "best"}, best=best)

    def gain_of(self, form: SidesRefined) -> float:
        """The change in points for one form."""
        return {"plain": 0.0, "queries": self.gain, "candidates": self.candidates, "both": self.both}[form]


@dataclass(frozen=True)
class Check:
    """The self-check of a memory.

    Attributes:
        image, text: queries of that modality.
        wrong: what their mean reliability lacks to 1; too high where entities look alike, so no share of wrong
        captions. pairs: that asked.
        alone: share of them whose caption no other pair has: with them hidden from themselves, there is no answer.
        own: queries of a modality among others of it, where enough pairs show the same as another.
    """

    image: SideCheck
    text: SideCheck
    wrong: float
    pairs: int
    alone: float = 0.0
    own: Mapping[Modality, OwnCheck] = field(default_factory=dict)

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
                "encoder, or texts and images do not belong together. Where they were not made by this model, compare "
                "some with what it makes of their captions or pictures; `reco eval` on real queries tells for sure"
            )
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
        image, text = (SideCheck.from_json(stored[m]) for m in MODALITIES)
        own: dict[Modality, OwnCheck] = {
            m: OwnCheck(float(found["frozen"]), float(found["gain"]), float(found["error"]), int(found["pairs"]))
            for m in MODALITIES
            if (found := stored["own"].get(m))
        }
        return cls(image, text, float(stored["wrong"]), int(stored["pairs"]), float(stored["alone"]), own)

    def __str__(self) -> str:
        def said(side: SideCheck, what: str) -> str:
            return f"{what} {side.gain:+.1f} ± {2 * side.error:.1f} points ({side.hidden:+.1f} without an answer)"

        gains = f"{said(self.image, 'image queries')}, {said(self.text, 'text queries')}, {self.among_own}, "
        gains += "estimated on its own pairs"
        if not self.by_chance:
            return gains
        return (
            f"ALARM: without refinement {self.image.frozen:.1f} % of image queries and {self.text.frozen:.1f} % of "
            f"text queries find their own pair among {self.pairs:,}, as by chance. {gains[0].upper()}{gains[1:]}"
        )

    @property
    def among_own(self) -> str:
        """What queries gain that are compared with their own modality, in words."""
        return ", ".join(f"{m}s among {m}s {self.among(m)}" for m in MODALITIES)

    def among(self, modality: Modality) -> str:
        """The same for one modality: points, or that its pairs cannot tell."""
        if (found := self.own.get(modality)) is None:
            return "not told (too few pairs show the same as another)"
        return f"{found.gain:+.1f} ± {2 * found.error:.1f} points"

    @property
    def advice(self) -> str:
        """What to refine, for each kind of queries; empty where the estimate is of little worth."""
        if self.alone > ALONE or self.by_chance:
            return ""
        sides = ((modality, self.side(modality)) for modality in MODALITIES)
        return ", ".join(f"{m} queries {_IN_WORDS[side.best]} ({side.gain_of(side.best):+.1f})" for m, side in sides)


def check_pairs(
    corpus: Corpus,
    gates: Mapping[Modality, Gates],
    rows: npt.NDArray[np.intp],
    *,
    k: int,
) -> Check:
    """Play the gates on pairs of the memory, each hidden from itself, by reliability: a wrong caption tests nothing."""
    used = {
        m: [one.gate.sharpness for one in gates[m] if one is not None] or [SHARPNESS] for m in MODALITIES
    }  # all alike
    looked = look(corpus, rows, k)
    normed = replace(corpus, values=level(corpus.values))
    asked = {m: asked_by(normed, m, looked).questions(used[m][0]) for m in MODALITIES}
    played = {m: _Played.of(asked[m], corpus.units[m]) for m in MODALITIES}
    sides = {m: _check_side(played[m], gates[m], played[other(m)], gates[other(m)]) for m in MODALITIES}
    alone = float((played["text"].questions.siblings == 0).mean())
    wrong = float((1.0 - corpus.reliability_of(rows)).mean())
    return Check(sides["image"], sides["text"], wrong, len(rows), alone)


@dataclass(frozen=True)
class _Played:
    """Pairs that ask by one modality, or are candidates of it; all scores (n, n) are cosines."""

    questions: AskedTwice
    visible: Episode
    hidden: Episode
    unit: float

    @classmethod
    def of(cls, questions: AskedTwice, unit: float) -> _Played:
        """All scores of all."""
        return cls(questions, questions.episode(questions.visible), questions.episode(questions.hidden), unit)

    def frozen(self, episode: Episode) -> Floats:
        """Plain scores."""
        return np.asarray(self.unit * (episode.plain + episode.base))

    def queries(self, episode: Episode, applied: Applied | None) -> Floats:
        """Scores of refined queries, up to their length."""
        if applied is None:
            return self.frozen(episode)
        moved = add(episode.plain, episode.evidence, self._strength(episode, applied))
        return np.asarray(self.unit * (moved + episode.base))

    def candidates(self, episode: Episode, applied: Applied | None) -> Floats:
        """Scores of refined candidates, with the mean and the spread of their plain ones."""
        if applied is None:
            return self.frozen(episode)
        moved = move(episode.plain, episode.evidence, self._strength(episode, applied), episode.signals[:, 6:7])
        return np.asarray(self.unit * (moved + episode.base))

    def _strength(self, episode: Episode, applied: Applied) -> Floats:
        """(n, 1)."""
        strength = applied.gate.strength(features(episode.signals, self.questions.spread))
        return np.asarray((strength * applied.share(episode.signals[:, 3]))[:, None])


def _check_side(ask: _Played, of_queries: Gates, answer: _Played, of_candidates: Gates) -> SideCheck:
    weights: Floats = ask.questions.reliability / ask.questions.reliability.sum()
    figures = []
    for episode in (ask.visible, ask.hidden):
        frozen = ask.frozen(episode)
        before = _answers(frozen, episode.out)
        after = _answers(ask.queries(episode, of_queries.query), episode.out)
        figures += [100.0 * float(weights @ before), *_compare(after, before, weights)]
    share, gain, error, _, hidden, hidden_error = figures
    asked, answers = ask.visible, answer.visible
    frozen, out = ask.frozen(asked), asked.out | answers.out.T
    moved = answer.candidates(answers, of_candidates.candidate).T
    ranked: dict[SidesRefined, Rightness] = {
        "plain": _answers(frozen, out),
        "queries": _answers(ask.queries(asked, of_queries.query), out),
        "candidates": _answers(moved, out),
        "both": _answers(moved + ask.queries(asked, of_queries.among) - frozen, out),
    }
    gains = {form: _compare(right, ranked["plain"], weights)[0] for form, right in ranked.items()}
    default: SidesRefined = "queries" if of_queries.query is not None and gains["queries"] > 0.0 else "plain"
    best = choose_form(ranked, weights, default)
    return SideCheck(share, gain, error, hidden, hidden_error, gains["candidates"], gains["both"], best)


def choose_form(ranked: Mapping[SidesRefined, Rightness], weights: Floats, default: SidesRefined) -> SidesRefined:
    """The form to advise, see :class:`SideCheck`.

    Args:
        ranked: (n,) whether each pair is answered right, by form.
        weights: (n,) of the pairs, summing to 1.
        default: where no other is surely better.
    """
    best = default
    for form in _OTHERS:
        more, chance = _compare(ranked[form], ranked[best], weights)
        best = form if more > 2.0 * chance else best
    return best


def _compare(after: Rightness, before: Rightness, weights: Floats) -> tuple[float, float]:
    """Mean and standard error of a change, in points."""
    change = after.astype(np.float64) - before
    mean = float(weights @ change)
    return 100.0 * mean, 100.0 * float(np.sqrt(np.sum(weights**2 * (change - mean) ** 2)))


def _answers(scores: Floats, out: npt.NDArray[np.bool_]) -> Rightness:
    """Whether the own candidate has the highest score of those that are rivals, (n, n) -> (n,)."""
    return np.asarray(np.where(out, -np.inf, scores).argmax(axis=1) == np.arange(len(scores)))
