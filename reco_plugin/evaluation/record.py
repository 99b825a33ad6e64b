"""The record of a measurement. Its sentence, table, page and JSON show what is in it, and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from .statistics import Difference, Figures, Interval

Decision: TypeAlias = Literal["refine", "refine if the titles are right", "use", "leave", "not known"]
"""``use``: one way to search rather than another."""
Basis: TypeAlias = Literal["labels", "judgments", "marks", "titles", "nothing"]
"""What counts as right. Titles: judgments that equal the titles, or captions; a wrong title counts as right, too."""
MARKED = 30
"""Queries to mark on the page."""
SHOWN = 5
"""Queries side by side that gain most, and as many that lose most."""


@dataclass(frozen=True)
class Line:
    """One row of the table: queries of one kind, in each way that they were searched.

    Attributes:
        name: of the kind.
        queries: that were measured.
        values: way to search -> mean of the record's metric, each query once.
        change: of refined against plain vectors; None where nothing was refined.
        gain, lose: shares of the queries that gain and lose by it.
        traffic: the mean change where a query counts as often as it is searched for; None where all count alike.
        unknown: change where the memory holds nothing of what is searched for; None where that was not measured.
    """

    name: str
    queries: int
    values: Mapping[str, float]
    change: Difference | None = None
    gain: float = 0.0
    lose: float = 0.0
    traffic: float | None = None
    unknown: Interval | None = None


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
    """One decision.

    Attributes:
        decision: in a word.
        basis: what counts as right.
        sentence: for people: what to do, the gain, and what it rests on.
        gain: the difference that decides; None where nothing was measured.
        settings: what to set for it, as option -> value; empty where all stays as it is.
        query: the engine's own query of it; empty where it needs none.
    """

    decision: Decision
    basis: Basis
    sentence: str
    gain: Difference | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    query: str = ""


@dataclass(frozen=True)
class Record:
    """All that was measured.

    Attributes:
        title: of the page.
        command: that makes it again.
        setup: names and counts.
        verdicts: the answer, a decision each.
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
    verdicts: Sequence[Verdict]
    metric: str
    lines: Sequence[Line]
    notes: Sequence[str] = ()
    examples: Sequence[Example] = ()
    to_mark: Sequence[Example] = ()
    key: str = ""
    queries: Sequence[Mapping[str, Any]] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values: shares from 0 to 1, an interval as (mean, low, high). Single queries are in a file."""
        kept = replace(self, examples=(), to_mark=(), queries=())
        told = asdict(kept, dict_factory=lambda items: {name: _rounded(value) for name, value in items})
        return {name: value for name, value in told.items() if name not in ("examples", "to_mark", "queries")}


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
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
