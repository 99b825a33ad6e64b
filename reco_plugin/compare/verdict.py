"""One sentence: switch, switch for some queries, or leave it, and what that rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..evaluate.intervals import Interval, bootstrap, points
from ..interleave import ClickVerdict, Team
from ..types import Modality
from .evidence import ENOUGH, Indication
from .marks import SURE, Marks
from .measure import Figures
from .queries import SearchQuery
from .search import SearchHow

Decision: TypeAlias = Literal["switch", "switch for some", "leave"]
Flags = npt.NDArray[np.bool_]
_QUANTILES = (0.25, 0.5, 0.75)
_LEVEL = 0.95
_MEASURED = 6  # rules of texts and images, for which this level was measured: docs/measurements.md
_REST = {
    "judgments": "on {told:,} judged queries",
    "captions of the index": "on {told:,} of {asked:,} queries whose words stand in captions of the index",
}

_FEW = {
    "judgments": "queries are judged",
    "captions of the index": "queries have their words in a caption of the index",
}


@dataclass(frozen=True)
class SwitchRule:
    """Which queries are refined."""

    modalities: tuple[Modality, ...] = ("text", "image")
    moved: float = 0.0  # cosine distance between plain and refined, at least
    filtered: bool | None = None  # only those with a filter of their own, or without one; None: both
    presence: float = 0.0  # probability that the memory holds the answer, at least: the option `presence`

    def holds(
        self,
        modalities: npt.NDArray[np.str_],
        moved: Figures,
        filtered: Flags | None = None,
        presence: Figures | None = None,
    ) -> Flags:
        """(n,) whether each query is refined.

        Args:
            modalities: (n,) of the queries.
            moved: (n,) distances.
            filtered: (n,) whether each has a filter of its own; None: none has.
            presence: (n,) of the queries; None: not known.
        """
        held: Flags = np.isin(modalities, self.modalities) & (moved >= self.moved)
        if self.presence and presence is not None:
            held &= presence >= self.presence
        if self.filtered is None:
            return held
        own: Flags = np.zeros(len(held), np.bool_) if filtered is None else filtered
        return np.logical_and(held, own if self.filtered else ~own)

    def __str__(self) -> str:
        whom = " and ".join(f"{one}s" for one in self.modalities) if len(self.modalities) == 1 else "queries"
        if self.filtered is not None:
            whom += " with a filter" if self.filtered else " without a filter"
        whom += f" whose presence is at least {self.presence:.2f}" if self.presence else ""
        return whom if not self.moved else f"{whom} that moved by at least {self.moved:.3f}"


@dataclass(frozen=True)
class Advice:
    """What to do, in one sentence.

    Attributes:
        decision: in a word.
        sentence: for people, with what it rests on.
        rule: which queries to refine; None: none.
        gain: of nDCG@k over the queries that the evidence tells of, if the rule is followed; None without evidence.
        rests_on: kind of evidence; empty without.
    """

    decision: Decision
    sentence: str
    rule: SwitchRule | None = None
    gain: Interval | None = None
    rests_on: str = ""


@dataclass(frozen=True)
class Heard:
    """What else is known.

    Attributes:
        alarm: why nothing that was measured can be trusted; empty where nothing is wrong.
        interleaved: what clicks on lists of both, or on two arms, said.
        marks: of people, blind.
        presence: (B,) of the queries, NaN where it is not known; None: of none.
    """

    alarm: str = ""
    interleaved: ClickVerdict | None = None
    marks: Marks | None = None
    presence: Figures | None = None

    @property
    def clicked(self) -> Advice | None:
        """What follows from clicks on lists of both; None where they say nothing yet."""
        return (
            None
            if self.interleaved is None
            else _preferred(self.interleaved.preferred, str(self.interleaved), "clicks")
        )

    @property
    def marked(self) -> Advice | None:
        """What follows from marks; None where they may be by chance."""
        if self.marks is None or self.marks.chance >= SURE:
            return None
        return _preferred("refined" if self.marks.refined > self.marks.plain else "plain", str(self.marks), "marks")


def decide(
    evidence: Indication | None, queries: Sequence[SearchQuery], moved: Figures, how: SearchHow, heard: Heard
) -> Advice:
    """Decide by evidence, with B queries and how far each moved, (B,).

    A gain must be sure: its interval over queries, weighted by how often each was asked, is above 0. A rule for some
    queries is chosen on half of them and must be sure on the other half. Judgments come first, then clicks on lists of
    both, then words of captions, unless people marked plain as better, then marks.

    Args:
        evidence: None where nothing tells.
        queries: B.
        moved: (B,) cosine distances.
        how: k of nDCG@k, and the seed of intervals and halves.
        heard: what else is known.
    """
    if heard.alarm:
        return Advice("leave", f"Leave it as it is: {heard.alarm}.")
    if not (moved > 0).any():
        return Advice("leave", "Leave it as it is: the memory moves none of these queries.")
    enough = evidence is not None and len(evidence) >= ENOUGH
    if heard.clicked is not None and not (enough and evidence is not None and evidence.kind == "judgments"):
        return heard.clicked
    if evidence is None or not enough:
        return heard.marked or Advice("leave", _without(evidence))
    if heard.marked is not None and heard.marked.rule is None and evidence.kind != "judgments":
        return heard.marked
    return _by(evidence, queries, moved, how, heard.presence)


def _by(
    evidence: Indication, queries: Sequence[SearchQuery], moved: Figures, how: SearchHow, presence: Figures | None
) -> Advice:
    """The widest rule that surely gains."""
    if evidence.kind != "judgments":  # the measured rules of docs/measurements.md are without it
        presence = None
    kind = np.array([query.modality for query in queries])[evidence.rows]
    filtered = np.array([query.where is not None for query in queries])[evidence.rows]
    far, weights = moved[evidence.rows], np.array([query.weight for query in queries])[evidence.rows]
    held = None if presence is None else presence[evidence.rows]
    told = _Told(evidence.difference * weights / weights.mean(), kind, far, filtered, held, how.seed)
    rests = _REST[evidence.kind].format(told=len(evidence), asked=evidence.asked)
    for rule, sure in told.rules():
        if not sure:
            continue
        gain = told.gain(rule)
        decision: Decision = "switch" if rule == SwitchRule() else "switch for some"
        head = "Switch" if decision == "switch" else f"Switch for {rule}, and leave the others plain"
        return Advice(decision, f"{head}: {points(gain)} points nDCG@{how.k} {rests}.", rule, gain, evidence.kind)
    gain = told.gain(SwitchRule())
    why = "refined queries lose" if gain.high < 0 else "no gain is sure"
    return Advice(
        "leave",
        f"Leave it as it is: {why}: {points(gain)} points nDCG@{how.k} {rests}.",
        None,
        gain,
        evidence.kind,
    )


def _level(tried: int) -> float:
    """Of the intervals of rules for some of the queries: of many that gain nothing, one would seem to by chance."""
    return 1.0 - (1.0 - _LEVEL) * min(1.0, _MEASURED / tried)


@dataclass(frozen=True)
class _Told:
    """n differences, with what each query is, how far it moved, whether it has a filter, and its presence."""

    difference: Figures
    kind: npt.NDArray[np.str_]
    far: Figures
    filtered: Flags
    presence: Figures | None
    seed: int

    def gain(self, rule: SwitchRule, level: float = _LEVEL) -> Interval:
        """If the rule is followed: queries that it leaves plain gain nothing."""
        return bootstrap(np.where(self._holds(rule), self.difference, 0.0), level=level, seed=self.seed)

    def rules(self) -> list[tuple[SwitchRule, bool]]:
        """Rules to try, the widest first, and whether each surely gains: all, then parts, presence, what moved far."""
        parts = self._parts()
        level = _level((1 + len(parts)) * (2 if self.presence is None else 3))
        tried = list[tuple[SwitchRule, bool]]()
        for rule in (SwitchRule(), *parts):
            loses = any(self._loses(rule, part) for part in parts)
            tried.append((rule, not loses and self.gain(rule, level if tried else _LEVEL).low > 0))
        for values in ("presence", "moved"):
            for rule in (SwitchRule(), *parts):
                tried += self._above(rule, values, level)
        return tried

    def _parts(self) -> list[SwitchRule]:
        """Texts and images, with and without a filter, and both: where enough queries are of either side."""
        both: tuple[Modality, ...] = ("text", "image")
        kinds = [SwitchRule((one,)) for one in both]
        filters = [SwitchRule(both, 0.0, own) for own in (False, True)]
        crossed = [SwitchRule(kind.modalities, 0.0, one.filtered) for kind in kinds for one in filters]
        told = [[one for one in side if self._holds(one).sum() >= ENOUGH] for side in (kinds, filters, crossed)]
        sides = [side for side in told[:2] if len(side) > 1]
        return [one for side in (*sides, told[2] if len(sides) > 1 else []) for one in side]

    def _holds(self, rule: SwitchRule) -> Flags:
        return rule.holds(self.kind, self.far, self.filtered, self.presence)

    def _loses(self, rule: SwitchRule, part: SwitchRule) -> bool:
        """Whether the queries of the rule that are of this part surely lose."""
        own = self.difference[self._holds(rule) & self._holds(part)]
        return len(own) >= ENOUGH and bootstrap(own, seed=self.seed).high < 0

    def _above(
        self, rule: SwitchRule, name: Literal["moved", "presence"], level: float
    ) -> list[tuple[SwitchRule, bool]]:
        """The value from which queries gain most, chosen on half of them, and whether it gains on the other half."""
        values = self.far if name == "moved" else self.presence
        if values is None:
            return []
        moving = np.flatnonzero(self._holds(rule) & (self.far > 0) & np.isfinite(values))
        if len(moving) < 2 * ENOUGH:
            return []
        order = np.random.default_rng(self.seed).permutation(moving)
        choose, confirm = order[::2], order[1::2]
        bounds = np.quantile(values[moving], _QUANTILES)
        bounds = np.round(bounds, 2) if name == "presence" else bounds  # a setting, as people write it
        gains = [float(np.where(values[choose] >= bound, self.difference[choose], 0.0).mean()) for bound in bounds]
        bound = float(bounds[int(np.argmax(gains))])
        kept = self.difference[confirm][values[confirm] >= bound]
        sure = len(kept) >= ENOUGH // 2 and bootstrap(kept, level=level, seed=self.seed).low > 0
        if name == "presence":
            return [(replace(rule, presence=bound), sure and bound > 0)]
        return [(replace(rule, moved=bound), sure)]


def _preferred(preferred: Team | None, said: str, rests_on: str) -> Advice | None:
    if preferred is None:
        return None
    if preferred == "refined":
        return Advice("switch", f"Switch: {said}.", SwitchRule(), None, rests_on)
    return Advice("leave", f"Leave it as it is: {said}.", None, None, rests_on)


def _without(evidence: Indication | None) -> str:
    told = "nothing" if evidence is None else f"{len(evidence):,} {_FEW[evidence.kind]}"
    more = "more judgments" if evidence is not None and evidence.kind == "judgments" else "judgments (--qrels)"
    return (
        f"Leave it as it is for now: nothing tells whether it helps ({told}; {ENOUGH} are needed). Mark the queries on "
        f"the page, or give {more}."
    )
