"""One sentence on an index: switch, switch for some queries, or leave it, and what that rests on.

Only judgments and marks say "switch". Titles of the index give an estimate: where the memory is the index, a wrong
title is both what the memory teaches and what counts as right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import Modality
from .judgments import SURE, Marks
from .queries import SearchQuery
from .record import MARKED, Shares, Verdict
from .search import ArmName, SearchHow
from .statistics import CHANGED, Difference, Figures, Interval, bootstrap, compare_pairs, points
from .table import percent
from .titles import TitleEstimate

Flags = npt.NDArray[np.bool_]
ARMS: Mapping[ArmName, str] = {
    "plain": "plain vectors",
    "refined": "refined vectors",
    "text": "text search",
    "text + plain": "text search with plain vectors",
    "text + refined": "text search with refined vectors",
}
DOUBTFUL = 0.15
"""Share of doubtful titles of the memory from which an estimate by titles is called doubtful."""
_NOW, _THEN = ("plain", "text", "text + plain"), ("refined", "text + refined")
_PRESENCE = (0.25, 0.5, 0.75)  # quantiles that are tried as thresholds
_JUDGE = f"mark the {MARKED} queries of the page (press m), or give judgments (--qrels)"


@dataclass(frozen=True)
class SwitchRule:
    """Which queries are refined: of these modalities, and of a presence of at least that."""

    modalities: tuple[Modality, ...] = ("text", "image")
    presence: float = 0.0

    def __str__(self) -> str:
        whom = f"{self.modalities[0]}s" if len(self.modalities) == 1 else "queries"
        return whom + (f" whose presence is at least {self.presence:.2f}" if self.presence else "")

    @property
    def settings(self) -> dict[str, Any]:
        """What to set."""
        refined = {} if len(self.modalities) == 2 else {"refine": [f"{one} queries" for one in self.modalities]}
        return {**refined, **({"presence": self.presence} if self.presence else {})}


@dataclass(frozen=True)
class KnownQueries:
    """What is known of B queries.

    Attributes:
        queries: B.
        moved: (B,) cosine distance of the query's two vectors.
        how: k of nDCG@k, and the seed of intervals and halves.
        rows: (n,) of the judged queries.
        values: arm -> (n,) nDCG@k.
        marks: of people, blind.
        titles: the estimate; None where none was made.
        doubtful: share of the memory's titles that are doubtful; None where it has learned nothing.
        presence: (B,) NaN where it is not known; None: of none.
        searches_text: whether the index has a text search, whose results nobody marks.
        alarm: why nothing that was measured can be trusted; empty where nothing is wrong.
    """

    queries: Sequence[SearchQuery]
    moved: Figures
    how: SearchHow
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    values: Mapping[ArmName, Figures] = field(default_factory=dict)
    marks: Marks | None = None
    titles: TitleEstimate | None = None
    doubtful: float | None = None
    presence: Figures | None = None
    searches_text: bool = False
    alarm: str = ""

    @property
    def weights(self) -> Figures:
        """(B,) how often each was asked."""
        return np.array([query.weight for query in self.queries])

    @property
    def traffic(self) -> float:
        """How often all were asked."""
        return float(self.weights.sum())


def decide(known: KnownQueries) -> Verdict:
    """Decide by judgments, else by marks; titles give an estimate."""
    if known.alarm:
        return Verdict("leave", "nothing", f"Leave it as it is: {known.alarm}.")
    if not (known.moved > 0).any():
        return Verdict("leave", "nothing", "Leave it as it is: the memory moves none of these queries.")
    if len(known.rows):
        verdict = _Judged.of(known).decide()
        return (_by_marks(known) or verdict) if verdict.decision == "not known" else verdict
    return _by_marks(known) or _by_titles(known)


def _by_marks(known: KnownQueries) -> Verdict | None:
    """What follows from marks; None where they may be by chance."""
    marks = known.marks
    if marks is None or marks.p >= SURE:
        return None
    of = [query.weight for query in known.queries if query.id in marks.by_query]
    said = f"{marks}; these queries, whose results change most, are {sum(of) / known.traffic:.0%} of the searches"
    if marks.count("refined") > marks.count("plain"):
        if not known.searches_text:
            return Verdict("switch", "marks", f"Switch from plain to refined vectors: {said}.")
        return Verdict(
            "switch for some",
            "marks",
            f"Where you search by plain vectors, switch to refined ones: {said}. The marks do not compare them with "
            "the index's text search, which may find more: judgments (--qrels) do.",
        )
    return Verdict("leave", "marks", f"Leave it as it is: {said}.")


def _by_titles(known: KnownQueries) -> Verdict:
    """An estimate, which never says "switch"."""
    found = known.titles
    if found is None or not len(found):
        why = "" if found is None else f" Titles say nothing, either: {found.problem}."
        return Verdict("not known", "nothing", f"Not known: nobody judged these queries. To know, {_JUDGE}.{why}")
    gain = compare_pairs(found.refined - found.plain, weights=known.weights[found.rows], seed=known.how.seed)
    shares = Shares.of(found.refined - found.plain, known.weights[found.rows], known.traffic)
    held = "" if found.held is None else f" ({found.held:,} of {found.documents:,} documents are in the memory)"
    doubt = known.doubtful or 0.0
    head = "A doubtful estimate" if doubt >= DOUBTFUL or gain.interval.mean < 0 else "An estimate"
    sentence = (
        f"Not known: nobody judged these queries. {head} that takes titles as true{held}: {points(gain.interval)} "
        f"points nDCG@{known.how.k} on {len(found):,} of {len(known.queries):,} queries; {shares}. Where titles are "
        "right, the estimate is too low, because half of what counts as right is hidden from the memory. "
        f"{doubt:.0%} of the memory's titles are doubtful. Before you switch, {_JUDGE}."
    )
    return Verdict("not known", "titles", sentence, gain, shares)


@dataclass(frozen=True)
class _Judged:
    """n judged queries: the way to search that is best today, and the best one with refined vectors."""

    known: KnownQueries
    now: ArmName
    then: ArmName
    difference: Figures
    weights: Figures
    tried: int  # ways with refined vectors, of which the best is taken

    @classmethod
    def of(cls, known: KnownQueries) -> _Judged:
        """Choose both ways by their weighted means."""
        weights = known.weights[known.rows]

        def best(arms: Sequence[ArmName]) -> ArmName:
            return max((arm for arm in arms if arm in known.values), key=lambda arm: float(known.values[arm] @ weights))

        now, then = best(_NOW), best(_THEN)
        tried = sum(arm in known.values for arm in _THEN)
        return cls(known, now, then, known.values[then] - known.values[now], weights, tried)

    def decide(self) -> Verdict:
        """The widest rule that surely gains."""
        whole = self._compare(SwitchRule(), self.tried)
        if whole.effect == "too few":
            sentence = (
                f"Not known: the results of {whole.changed:,} of {len(self.difference):,} judged queries are better or "
                f"worse, and {CHANGED} are needed. Judge more, or {_JUDGE.partition(',')[0]}.{self._words()}"
            )
            return Verdict("not known", "judgments", sentence, whole, self._shares(SwitchRule()))
        way = f"from {ARMS[self.now]} to {ARMS[self.then]}"
        for rule, gain, interval in self._rules(whole):
            everywhere = rule == SwitchRule()
            head = f"Switch {way}" if everywhere else f"Switch {way} for {rule}, and leave the others as they are"
            return Verdict(
                "switch" if everywhere else "switch for some",
                "judgments",
                self._sentence(head, interval, rule),
                gain,
                self._shares(rule),
                rule.settings,
            )
        why = f"{ARMS[self.then]} {'lose' if whole.effect == 'loses' else 'gain nothing that is sure'}"
        head = f"Leave it as it is: compared with {ARMS[self.now]}, {why}"
        more = f" About {whole.more:,} more judged queries would tell a difference of this size." if whole.more else ""
        sentence = self._sentence(head, whole.interval, SwitchRule()) + more
        return Verdict("leave", "judgments", sentence, whole, self._shares(SwitchRule()))

    def _sentence(self, head: str, gain: Interval, rule: SwitchRule) -> str:
        known = self.known
        return (
            f"{head}: {points(gain)} points nDCG@{known.how.k} on {len(known.rows):,} judged of "
            f"{len(known.queries):,} queries; {self._shares(rule)}.{self._words()}"
        )

    def _words(self) -> str:
        """What text search alone finds."""
        if "text" not in self.known.values:
            return ""
        found = {
            arm: percent(float(self.known.values[arm] @ self.weights / self.weights.sum()))
            for arm in ("text", "plain", "refined")
        }
        return (
            f" Text search alone finds {found['text']}, plain vectors alone {found['plain']}, refined vectors alone "
            f"{found['refined']}."
        )

    def _shares(self, rule: SwitchRule) -> Shares:
        followed = np.where(self._holds(rule), self.difference, 0.0)
        return Shares.of(followed, self.weights, self.known.traffic)

    def _holds(self, rule: SwitchRule) -> Flags:
        """(n,) whether each query is refined by the rule."""
        some = [self.known.queries[row] for row in self.known.rows.tolist()]
        held: Flags = np.isin([query.modality for query in some], rule.modalities)
        if rule.presence and self.known.presence is not None:
            held &= self.known.presence[self.known.rows] >= rule.presence
        return held

    def _compare(self, rule: SwitchRule, tried: int, some: Flags | None = None) -> Difference:
        """The difference of the queries that a rule refines, or of some of them."""
        held = self._holds(rule) if some is None else self._holds(rule) & some
        own, weights = (self.difference[held], self.weights[held]) if held.any() else (np.zeros(1), None)
        return compare_pairs(own, weights=weights, tried=tried, seed=self.known.how.seed)

    def _rules(self, whole: Difference) -> Iterator[tuple[SwitchRule, Difference, Interval]]:
        """Rules that surely gain, the widest first, and the gain over all queries if the rule is followed."""
        parts = [SwitchRule(("text",)), SwitchRule(("image",))]
        parts = parts if min(self._holds(part).sum() for part in parts) >= CHANGED else []
        if whole.sure and not any(self._compare(part, 1).effect == "loses" for part in parts):
            yield SwitchRule(), whole, whole.interval
        tried = self.tried * (len(parts) + 1)
        for part in parts:
            if (found := self._compare(part, tried)).sure:
                yield part, found, self._followed(part, np.ones(len(self.difference), np.bool_))
        yield from self._above(tried)

    def _followed(self, rule: SwitchRule, some: Flags) -> Interval:
        """The gain of some queries if the rule is followed: those that it leaves alone gain nothing."""
        gain = np.where(self._holds(rule), self.difference, 0.0)[some]
        return bootstrap(gain, weights=self.weights[some], seed=self.known.how.seed)

    def _above(self, tried: int) -> Iterator[tuple[SwitchRule, Difference, Interval]]:
        """The presence from which queries gain most, chosen on half of them, if it gains on the other half."""
        if self.known.presence is None:
            return
        values, far = self.known.presence[self.known.rows], self.known.moved[self.known.rows]
        moving = np.flatnonzero((far > 0) & np.isfinite(values))
        if len(moving) < 4 * CHANGED:
            return
        order = np.random.default_rng(self.known.how.seed).permutation(len(far))
        choose, confirm = (np.isin(np.arange(len(far)), half) for half in (order[::2], order[1::2]))
        bounds = np.round(np.quantile(values[moving], _PRESENCE), 2)  # a setting, as people write it
        gains = [float((self.difference * self.weights)[choose & (values >= bound)].sum()) for bound in bounds]
        rule = SwitchRule(presence=float(bounds[int(np.argmax(gains))]))
        if rule.presence > 0 and (found := self._compare(rule, tried, confirm)).sure:
            yield rule, found, self._followed(rule, confirm)
