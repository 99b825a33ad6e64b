"""What clicks can say of two rankings, when one of them brought the clicks about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..evaluate.intervals import Interval, bootstrap, points
from ..values import counted
from .judgments import Clicks, Grades
from .measure import judge
from .queries import QueryLog
from .search import Rankings

WARNING = (
    "These clicks were brought about by plain results: what was not shown could not be clicked, and what stood on top "
    "was clicked more. Clicks as judgments said −15.7 points where the truth was +8: they cannot tell which is better"
)


@dataclass(frozen=True)
class ClickReport:
    """What clicks say of n queries that have some.

    Attributes:
        queries: n.
        clicks: on them.
        kept: share of clicked documents, of those that plain finds in its first k, that refined finds, too.
        as_judgments: nDCG@k refined minus plain with clicks as judgments: biased, see :data:`WARNING`.
        top: share of all clicks that were on the first three places; None where the log does not say places.
        never_shown: share of the first k refined results that no search had shown; None where the log does not say.
        among_shown: reciprocal rank of the first click, refined minus plain, both without what was never shown.
    """

    queries: int
    clicks: int
    kept: float | None
    as_judgments: Interval
    top: float | None
    never_shown: float | None
    among_shown: Interval | None

    def said(self) -> list[str]:
        """For people, a sentence each."""
        lines = [
            f"{counted(self.clicks, 'click')} on {self.queries:,} of the queries. {WARNING} (here "
            f"{points(self.as_judgments)})."
        ]
        if self.top is not None:
            lines.append(f"{self.top:.0%} of the clicks were on the first three places.")
        if self.kept is not None:
            lines.append(f"Refined results keep {self.kept:.0%} of the clicked documents that plain ones have.")
        if self.never_shown is not None:
            lines.append(f"{self.never_shown:.0%} of refined results were never shown, so nobody could click them.")
        if self.among_shown is not None:
            lines.append(
                "Among documents that were shown, the first click stands at "
                f"{points(self.among_shown)} points of reciprocal rank, refined minus plain; the top of plain was "
                "favoured there, too."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values; differences are shares."""
        return asdict(self) | {"warning": WARNING}


def report_clicks(clicks: Clicks, log: QueryLog, rankings: Rankings, k: int, seed: int) -> ClickReport | None:
    """Say what clicks can; None where no query has any."""
    grades: Sequence[Grades] = clicks.of(log.queries)
    rows = [row for row, clicked in enumerate(grades) if clicked]
    if not rows:
        return None
    plain, refined = rankings.ids("plain"), rankings.ids("refined")
    clicked = [grades[row] for row in rows]
    before, after = (judge([side[row] for row in rows], clicked, k)["ndcg"] for side in (plain, refined))
    had = [(id_, row) for row in rows for id_ in plain[row] if id_ in grades[row]]
    kept = float(np.mean([id_ in refined[row] for id_, row in had])) if had else None
    shown = {
        row: log.shown[log.queries[row].id] | grades[row].keys() for row in rows if log.queries[row].id in log.shown
    }
    never = [id_ not in seen for row, seen in shown.items() for id_ in refined[row]]
    among = None
    if shown:
        right = [grades[row] for row in shown]
        ranks = [
            judge([[id_ for id_ in side[row] if id_ in seen] for row, seen in shown.items()], right, k)["mrr"]
            for side in (plain, refined)
        ]
        among = bootstrap(ranks[1] - ranks[0], seed=seed)
    return ClickReport(
        len(rows), int(sum(sum(one.values()) for one in clicked)), kept, bootstrap(after - before, seed=seed),
        float(np.mean(np.array(clicks.positions) <= 3)) if clicks.positions else None,
        float(np.mean(never)) if never else None, among,
    )  # fmt: skip
