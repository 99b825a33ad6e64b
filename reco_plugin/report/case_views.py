"""What the templates show of cases: queries with what was retrieved, and their rankings before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluate.findings import Case, Ranked, Shown
from .runs import Run

GAINS = "Best gains"
HARMS = "Worst harms"
_AT_ONCE = 6  # cases of one kind that are open; the others are folded


@dataclass(frozen=True)
class ShownView:
    """A retrieved pair; ``state`` is relevant, other or unknown."""

    picture: str | None
    caption: str
    similarity: str
    trust: str
    percent: float
    state: str


@dataclass(frozen=True)
class RankingView:
    """The first candidates, and the true one's rank where it is not among them."""

    title: str
    ranked: tuple[Ranked, ...]
    rank: int
    missing: bool


@dataclass(frozen=True)
class CaseView:
    """One query with what was retrieved for it; without any picture, it is shown in words alone."""

    name: str
    picture: str | None
    before: RankingView
    after: RankingView
    found: tuple[tuple[str, tuple[ShownView, ...]], ...]

    @property
    def pictured(self) -> bool:
        """Whether anything of it has a picture."""
        return bool(self.picture or any(shown.picture for _, pairs in self.found for shown in pairs))


@dataclass(frozen=True)
class CasesView:
    """A contact sheet: some cases open, others folded."""

    anchor: str
    title: str
    about: str
    opened: tuple[CaseView, ...]
    folded: tuple[CaseView, ...]


def view_cases(run: Run) -> tuple[CasesView, ...]:
    """Two contact sheets of one form, gains and harms; none where a run has no case.

    Raises:
        DataError: a picture's name is not a plain file name.
    """
    found = run.findings
    if not found.gains and not found.harms:
        return ()
    rose = "Queries whose true candidate rose furthest, best first."
    fell = "Refinement is not free: queries whose true candidate fell furthest, worst first."
    return (
        _sheet(run, f"{run.key}-gains", GAINS, rose, found.gains),
        _sheet(run, f"{run.key}-harms", HARMS, fell, found.harms),
    )


def _sheet(run: Run, anchor: str, title: str, about: str, cases: Sequence[Case]) -> CasesView:
    views = tuple(_case(run, case) for case in cases)
    return CasesView(anchor, title, about, views[:_AT_ONCE], views[_AT_ONCE:])


def _case(run: Run, case: Case) -> CaseView:
    found = (
        ("retrieved for the query", tuple(_shown(run, shown) for shown in case.neighbours)),
        ("retrieved for its class prompt", tuple(_shown(run, shown) for shown in case.prompt_neighbours)),
    )
    return CaseView(
        name=case.name,
        picture=run.picture_data(case.picture),
        before=_ranking("before", case.before, case.rank_before),
        after=_ranking("after", case.after, case.rank_after),
        found=tuple((title, shown) for title, shown in found if shown),
    )


def _ranking(title: str, ranked: tuple[Ranked, ...], rank: int) -> RankingView:
    return RankingView(title, ranked, rank + 1, missing=not any(one.true for one in ranked))


def _shown(run: Run, shown: Shown) -> ShownView:
    return ShownView(
        picture=run.picture_data(shown.picture),
        caption=shown.caption,
        similarity=f"{shown.similarity:.2f}".replace("-", "−"),
        trust=f"{100 * shown.trust:.0f} %",
        percent=100 * min(max(shown.trust, 0.0), 1.0),
        state={True: "relevant", False: "other", None: "unknown"}[shown.relevant],
    )
