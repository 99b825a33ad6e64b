"""One sentence: switch, switch for some queries, or leave it, and what that rests on.

Only judgments, clicks on interleaved lists and marks say "switch". Titles of the index give an estimate: where the
memory is the index, a wrong title is both what the memory teaches and what counts as right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..interleave import Team, Votes
from ..measure.statistics import CHANGED, Difference, Figures, Interval, bootstrap, compare_pairs, points
from ..types import Modality
from .evidence import Indication
from .marks import SURE, Marks
from .queries import SearchQuery
from .search import SearchHow

Decision: TypeAlias = Literal["switch", "switch for some", "leave", "not known"]
Flags = npt.NDArray[np.bool_]
_QUANTILES = (0.25, 0.5, 0.75)
_JUDGE = "mark the queries on the page, or give judgments (--qrels)"


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
        votes: clicks on lists of both.
        marks: of people, blind.
        presence: (B,) of the queries, NaN where it is not known; None: of none.
    """

    alarm: str = ""
    votes: Votes | None = None
    marks: Marks | None = None
    presence: Figures | None = None

    @property
    def said(self) -> Advice | None:
        """What follows from clicks, else from marks; None where they may be by chance."""
        if self.votes is not None and self.votes.preferred is not None:
            return _preferred(self.votes.preferred, str(self.votes), "clicks")
        if self.marks is None or self.marks.chance >= SURE:
            return None
        return _preferred("refined" if self.marks.refined > self.marks.plain else "plain", str(self.marks), "marks")


def decide(
    evidence: Indication | None, queries: Sequence[SearchQuery], moved: Figures, how: SearchHow, heard: Heard
) -> Advice:
    """Decide by evidence, with B queries and how far each moved, (B,).

    Judgments come first, then clicks on lists of both, then marks; captions of the index give an estimate.

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
    if evidence is None or not len(evidence):
        return heard.said or Advice("not known", f"Not known: nothing tells whether it helps: {_JUDGE}.")
    told = _Told.of(evidence, queries, moved, how.seed, heard.presence)
    if evidence.kind != "judgments":
        return heard.said or _estimate(told, evidence, how)
    whole = told.compare(SwitchRule())
    if whole.told != "too few":
        return _by_judgments(told, whole, evidence, how)
    return heard.said or Advice("not known", _too_few(whole, evidence), None, whole.interval, evidence.kind)


def _estimate(told: _Told, evidence: Indication, how: SearchHow) -> Advice:
    """By captions of the index, which are taken as true."""
    gain = bootstrap(told.difference, weights=told.weights, seed=how.seed)
    sentence = (
        "Not known: nobody has judged these queries. An estimate that takes titles as true, also those that the memory "
        f"holds: {points(gain)} points nDCG@{how.k} on {len(evidence):,} of {evidence.asked:,} queries whose words "
        f"stand in captions of the index. Before you switch, {_JUDGE}."
    )
    return Advice("not known", sentence, None, gain, evidence.kind)


def _by_judgments(told: _Told, whole: Difference, evidence: Indication, how: SearchHow) -> Advice:
    """The widest rule that surely gains."""
    rests = f"on {len(evidence):,} judged of {evidence.asked:,} queries; {told.shares}"
    for rule, gain in told.rules(whole):
        head = "Switch" if rule == SwitchRule() else f"Switch for {rule}, and leave the others plain"
        decision: Decision = "switch" if rule == SwitchRule() else "switch for some"
        return Advice(decision, f"{head}: {points(gain)} points nDCG@{how.k} {rests}.", rule, gain, evidence.kind)
    why = "refined queries lose" if whole.told == "loses" else "no gain is sure"
    more = f" About {whole.more:,} more judged queries would tell a difference as this." if whole.more else ""
    sentence = f"Leave it as it is: {why}: {points(whole.interval)} points nDCG@{how.k} {rests}.{more}"
    return Advice("leave", sentence, None, whole.interval, evidence.kind)


def _too_few(whole: Difference, evidence: Indication) -> str:
    return (
        f"Not known: the results of {whole.changed:,} of {len(evidence):,} judged queries are better or worse, and "
        f"{CHANGED} are needed. Judge more, or {_JUDGE.partition(',')[0]}."
    )


@dataclass(frozen=True)
class _Told:
    """n differences, with what each query is, how often it was asked, how far it moved, its filter and presence."""

    difference: Figures
    weights: Figures
    kind: npt.NDArray[np.str_]
    far: Figures
    filtered: Flags
    presence: Figures | None
    seed: int

    @classmethod
    def of(
        cls, evidence: Indication, queries: Sequence[SearchQuery], moved: Figures, seed: int, presence: Figures | None
    ) -> _Told:
        """The queries that the evidence tells of."""
        some = [queries[row] for row in evidence.rows.tolist()]
        return cls(
            evidence.difference,
            np.array([query.weight for query in some]),
            np.array([query.modality for query in some]),
            moved[evidence.rows],
            np.array([query.where is not None for query in some], np.bool_),
            None if presence is None else presence[evidence.rows],
            seed,
        )

    @property
    def shares(self) -> str:
        """What share of the searches gains, loses and stays."""
        signs = (self.difference > 0, self.difference < 0, self.difference == 0)
        gain, lose, stay = (float(self.weights[sign].sum() / self.weights.sum()) for sign in signs)
        return f"{gain:.0%} of these searches gain, {lose:.0%} lose, {stay:.0%} stay"

    def compare(self, rule: SwitchRule, some: Flags | None = None, tried: int = 1) -> Difference:
        """The difference of the queries that a rule refines, or of some of them."""
        held = self._holds(rule) if some is None else self._holds(rule) & some
        own = self.difference[held] if held.any() else np.zeros(1)
        return compare_pairs(own, weights=self.weights[held] if held.any() else None, tried=tried, seed=self.seed)

    def rules(self, whole: Difference) -> Iterator[tuple[SwitchRule, Interval]]:
        """Rules that surely gain, the widest first, and the gain over all queries if the rule is followed."""
        parts = self._parts()
        if whole.sure and not any(self.compare(part).told == "loses" for part in parts):
            yield SwitchRule(), whole.interval
        tried = len(parts) + 2
        for part in parts:
            if self.compare(part, tried=tried).sure:
                yield part, self._followed(part, np.ones(len(self.far), np.bool_))
        for name in ("presence", "moved"):
            yield from self._above(name, tried)

    def _followed(self, rule: SwitchRule, some: Flags) -> Interval:
        """The gain of some queries if the rule is followed: those that it leaves plain gain nothing."""
        gain = np.where(self._holds(rule), self.difference, 0.0)[some]
        return bootstrap(gain, weights=self.weights[some], seed=self.seed)

    def _parts(self) -> list[SwitchRule]:
        """Texts and images, with and without a filter: where enough queries are of either side."""
        sides = [
            [SwitchRule(("text",)), SwitchRule(("image",))],
            [SwitchRule(filtered=own) for own in (False, True)],
        ]
        return [one for side in sides if min(self._holds(part).sum() for part in side) >= CHANGED for one in side]

    def _holds(self, rule: SwitchRule) -> Flags:
        return rule.holds(self.kind, self.far, self.filtered, self.presence)

    def _above(self, name: str, tried: int) -> Iterator[tuple[SwitchRule, Interval]]:
        """The value from which queries gain most, chosen on half of them, if it gains on the other half."""
        values = self.far if name == "moved" else self.presence
        if values is None:
            return
        moving = np.flatnonzero((self.far > 0) & np.isfinite(values))
        if len(moving) < 4 * CHANGED:
            return
        order = np.random.default_rng(self.seed).permutation(len(self.far))
        choose, confirm = (np.isin(np.arange(len(self.far)), half) for half in (order[::2], order[1::2]))
        bounds = np.quantile(values[moving], _QUANTILES)
        bounds = np.round(bounds, 2) if name == "presence" else bounds  # a setting, as people write it
        gains = [float((self.difference * self.weights)[choose & (values >= bound)].sum()) for bound in bounds]
        bound = float(bounds[int(np.argmax(gains))])
        rule = SwitchRule(presence=bound) if name == "presence" else SwitchRule(moved=bound)
        if bound > 0 and self.compare(rule, confirm, tried).sure:
            yield rule, self._followed(rule, confirm)


def _preferred(preferred: Team, said: str, rests_on: str) -> Advice:
    if preferred == "refined":
        return Advice("switch", f"Switch: {said}.", SwitchRule(), None, rests_on)
    return Advice("leave", f"Leave it as it is: {said}.", None, None, rests_on)
