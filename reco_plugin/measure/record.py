"""The record of a measurement. Its sentence, table, page and JSON show what is in it, and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .statistics import Difference, Figures, Interval

Decision: TypeAlias = Literal["switch", "switch for some", "leave", "not known"]
Basis: TypeAlias = Literal["labels", "judgments", "marks", "titles", "nothing"]
"""What counts as right. Titles give an estimate only, which never says "switch"."""
MARKED = 30
"""Queries to mark on the page."""
SHOWN = 5
"""Queries side by side that gain most, and as many that lose most."""


@dataclass(frozen=True)
class Shares:
    """Shares of the searches, by traffic; they sum to 1."""

    gain: float
    lose: float
    stay: float
    unmeasured: float = 0.0

    @classmethod
    def of(cls, difference: Figures, weights: Figures, traffic: float | None = None) -> Shares:
        """Shares of n queries with these differences and weights, (n,); ``traffic`` is the weight of all queries."""
        whole = float(weights.sum()) if traffic is None else traffic
        gain, lose, stay = (
            float(weights[where].sum()) / whole for where in (difference > 0, difference < 0, difference == 0)
        )
        return cls(gain, lose, stay, max(0.0, 1.0 - gain - lose - stay))

    def of_all(self, what: str = "searches") -> str:
        """In words."""
        rest = f", {self.unmeasured:.0%} were not measured" if self.unmeasured >= 0.005 else ""
        return f"{self.gain:.0%} of the {what} gain, {self.lose:.0%} lose, {self.stay:.0%} stay{rest}"

    def __str__(self) -> str:
        return self.of_all()


@dataclass(frozen=True)
class Line:
    """One row of the table: one way to search.

    Attributes:
        name: of the way.
        queries: that were measured.
        value: mean of the record's metric.
        change: against the same way with plain vectors; None where it is that.
        shares: of searches that gain and lose by it; None likewise.
        unknown: change where the memory holds nothing of what is asked for; None where that was not measured.
        more: other figures by their names, as shares.
    """

    name: str
    queries: int
    value: Interval
    change: Difference | None = None
    shares: Shares | None = None
    unknown: Interval | None = None
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ShownHit:
    """One result on the page: its words, its picture as a data URI, and whether it is right; None: not known."""

    words: str
    picture: str | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Example:
    """One query with its first results, plain and refined.

    Attributes:
        id, name: of the query.
        picture: of a query that is one.
        plain, refined: first results.
        gain: refined minus plain, of the record's metric; None where nothing is known to be right.
        reason: why it moved as far as it did, or stays.
        swapped: whether refined stands on the left where the query is marked blind.
    """

    id: str
    name: str
    plain: Sequence[ShownHit]
    refined: Sequence[ShownHit]
    picture: str | None = None
    gain: float | None = None
    reason: str = ""
    swapped: bool = False


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        decision: in a word.
        basis: what counts as right.
        sentence: for people: what to do, the gain, what it rests on, what share of the searches gains.
        gain: the difference that decides; None where nothing was measured.
        shares: of the searches.
        settings: what to set for it, as option -> value; empty where all stays as it is.
    """

    decision: Decision
    basis: Basis
    sentence: str
    gain: Difference | None = None
    shares: Shares | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """All that was measured.

    Attributes:
        title: of the page.
        command: that makes it again.
        setup: names and counts.
        verdict: the answer.
        metric: of the lines.
        lines: the table.
        notes: what a reader has to know, a sentence each.
        examples: queries that gain most and lose most.
        to_mark: queries whose marks would settle it; empty where labels do.
        key: of the queries to mark and of their results: marks must have it.
        queries: of each query, what was found.
    """

    title: str
    command: str
    setup: Mapping[str, Any]
    verdict: Verdict
    metric: str
    lines: Sequence[Line]
    notes: Sequence[str] = ()
    examples: Sequence[Example] = ()
    to_mark: Sequence[Example] = ()
    key: str = ""
    queries: Sequence[Mapping[str, Any]] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values: shares from 0 to 1, an interval as (mean, low, high). Single queries are in a file."""
        left_out = ("examples", "to_mark", "queries")
        told = {name: value for name, value in vars(self).items() if name not in left_out}
        return _plain(told)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        value = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value


def pick(gains: Figures, most: int = SHOWN) -> list[int]:
    """Rows of the queries that gain most, and of those that lose most, among gains (n,).

    >>> import numpy as np
    >>> pick(np.array([0.0, 0.5, -0.2, 0.1]), 1)
    [1, 2]
    """
    order = sorted(range(len(gains)), key=lambda row: -float(gains[row]))
    best = [row for row in order if gains[row] > 0][:most]
    worst = [row for row in reversed(order) if gains[row] < 0][:most]
    return best + worst
