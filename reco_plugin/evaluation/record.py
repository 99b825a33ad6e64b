"""The record of a measurement. Sentences, table, page and JSON show what it holds and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from .statistics import Difference, Figures, Interval

Decision: TypeAlias = Literal["refine", "refine if the titles are right", "use", "leave", "not known"]
"""``use`` recommends one way to search over another."""
Basis: TypeAlias = Literal["labels", "judgments", "marks", "titles", "nothing"]
"""What counts as relevant. ``titles``: captions, or judgments that equal them; a wrong title counts as right, too."""
MARKED = 30
"""Queries to mark on the page."""
SHOWN = 5
"""Examples with the largest gain, and as many with the largest loss."""


@dataclass(frozen=True)
class Line:
    """A row of the table: one kind of query.

    Attributes:
        values: way to search -> mean of the record's metric; each query counts once.
        change: refined minus plain vectors.
        gain, lose: shares of the queries that gain and lose.
        traffic: mean change weighted by search frequency; None if all weights are equal.
        unknown: change if the memory holds nothing about the answer; None if that was not measured.
    """

    name: str
    queries: int
    values: Mapping[str, float]
    change: Difference
    gain: float = 0.0
    lose: float = 0.0
    traffic: float | None = None
    unknown: Interval | None = None


@dataclass(frozen=True)
class ShownHit:
    """A result on the page; ``picture`` is a data URI, and ``right`` is None without judgments."""

    words: str
    picture: str | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Example:
    """A query with its first results, plain and refined.

    Attributes:
        picture: data URI of an image query.
        gain: of the record's metric; None without judgments.
        reason: why the query moved as far as it did, or stayed.
        swapped: whether the refined results stand on the left during blind marking.
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
    """One decision; ``sentence`` says what to do, the gain, and its basis.

    Attributes:
        gain: the difference that decides; None if nothing was measured.
        settings: option -> value to set.
        query: the engine's own query, if the decision needs one.
    """

    decision: Decision
    basis: Basis
    sentence: str
    gain: Difference | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    query: str = ""


@dataclass(frozen=True)
class Record:
    """All results of a measurement, made by the command line ``command``.

    Attributes:
        metric: of the lines.
        to_mark: queries to judge blind; empty if labels decide.
        key: hash of the queries to mark and their results; marks with another key are refused.
        queries: results of each query, JSON-like.
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
        """JSON-like values without single queries; shares are from 0 to 1, and an interval is (mean, low, high)."""
        summary = replace(self, examples=(), to_mark=(), queries=())
        values = asdict(summary, dict_factory=lambda items: {name: _rounded(value) for name, value in items})
        return {name: value for name, value in values.items() if name not in ("examples", "to_mark", "queries")}


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def pick_extremes(gains: Figures, most: int = SHOWN) -> list[int]:
    """Rows of the largest gains, then of the largest losses, among gains (n,).

    >>> import numpy as np
    >>> pick_extremes(np.array([0.0, 0.5, -0.2, 0.1]), 1)
    [1, 2]
    """
    order = sorted(range(len(gains)), key=lambda row: -float(gains[row]))
    best = [row for row in order if gains[row] > 0][:most]
    worst = [row for row in reversed(order) if gains[row] < 0][:most]
    return best + worst
