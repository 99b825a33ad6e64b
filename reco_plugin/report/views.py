"""Views for the templates: findings and cases with all figures formatted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..evaluate.findings import Case, Cell, Chart, Column, RankedCandidate, RetrievedPair, Section, Table
from ..evaluate.intervals import Interval
from .canvas import inline
from .cells import best_cells, direction, format_cell, header, mean_of
from .charts import chart_table, draw
from .headline import draw_headline, is_frozen, main_figures
from .runs import Run, section_key

Named: TypeAlias = tuple[str, str]
"""A name and a value, as text."""
HEADLINE = "Main figures before and after refinement, with their intervals"


@dataclass(frozen=True)
class CellView:
    """A cell: its text and bounds, kind and direction for the style, sort value, and share of a bar."""

    text: str
    bounds: str
    kind: str
    direction: str | None
    best: bool
    sort: float | None
    share: float | None


@dataclass(frozen=True)
class TableView:
    """A table; the first cell of a row is its header."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[bool, tuple[CellView, ...]], ...]


@dataclass(frozen=True)
class ChartView:
    """A chart: title, SVG element, and values."""

    title: str
    svg: str
    values: TableView


@dataclass(frozen=True)
class SectionView:
    """A section and its anchor."""

    anchor: str
    title: str
    about: str
    tables: tuple[TableView, ...]
    charts: tuple[ChartView, ...]


@dataclass(frozen=True)
class RunView:
    """A run, ready to render."""

    name: str
    key: str
    command: str
    summary: tuple[str, ...]
    setup: tuple[Named, ...]
    details: tuple[tuple[str, tuple[Named, ...]], ...]
    headline: str | None
    sections: tuple[SectionView, ...]
    sheets: tuple[CasesView, ...]


def view_run(run: Run) -> RunView:
    """Format the figures of a run and draw its charts."""
    found, figures = run.findings, main_figures(run.findings)
    return RunView(
        name=run.name,
        key=run.key,
        command=found.command,
        summary=found.summary,
        setup=tuple(plain_setup(found.setup)),
        details=tuple((name, tuple(lines)) for name, lines in setup_details(found.setup).items()),
        headline=inline(draw_headline(figures, run.key), HEADLINE) if figures else None,
        sections=tuple(_section(run, section) for section in found.sections),
        sheets=view_cases(run),
    )


def view_table(table: Table) -> TableView:
    """Format the cells of a table."""
    best = best_cells(table)
    return TableView(
        title=table.title,
        columns=tuple((header(column), column.kind) for column in table.columns),
        rows=tuple(
            (
                any(is_frozen(row.get(column.key)) for column in table.columns if column.kind == "text"),
                tuple(_cell(row.get(column.key), column, (number, column.key) in best) for column in table.columns),
            )
            for number, row in enumerate(table.rows)
        ),
    )


def plain_setup(setup: Mapping[str, Any]) -> list[Named]:
    """Names and values for the line of the setup: all but groups."""
    return [(key, _plain(value)) for key, value in setup.items() if not isinstance(value, dict)]


def setup_details(setup: Mapping[str, Any]) -> dict[str, list[Named]]:
    """Groups of names and values, such as versions and digests."""
    groups = {key: value for key, value in setup.items() if isinstance(value, dict)}
    return {key: [(str(name), _plain(value)) for name, value in group.items()] for key, group in groups.items()}


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_cell(value, "number") if isinstance(value, int | float | None) else str(value)


def _cell(cell: Cell, column: Column, best: bool) -> CellView:
    mean = mean_of(cell)
    share = min(max(mean, 0.0), 1.0) if mean is not None and column.kind == "percent" else None
    text = format_cell(mean if isinstance(cell, Interval) else cell, column.kind)
    bounds = format_cell(cell, column.kind).removeprefix(text).strip()
    return CellView(text, bounds, column.kind, direction(cell, column.kind), best, mean, share)


def _section(run: Run, section: Section) -> SectionView:
    anchor = f"{run.key}-{section_key(section)}"
    return SectionView(
        anchor=anchor,
        title=section.title,
        about=section.about,
        tables=tuple(view_table(table) for table in section.tables if table.columns),
        charts=tuple(_chart(chart, f"{anchor}-{number}") for number, chart in enumerate(section.charts, 1)),
    )


def _chart(chart: Chart, salt: str) -> ChartView:
    names = ", ".join(line.name for line in chart.lines)
    svg = inline(draw(chart, salt), f"Chart: {chart.title}. {chart.y_title} over {chart.x_title}: {names}")
    return ChartView(chart.title, svg, view_table(chart_table(chart)))


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
    ranked: tuple[RankedCandidate, ...]
    rank: int
    missing: bool


@dataclass(frozen=True)
class CaseView:
    """One query with its neighbours; shown as text alone where there is no picture."""

    name: str
    picture: str | None
    before: RankingView
    after: RankingView
    found: tuple[tuple[str, tuple[ShownView, ...]], ...]

    @property
    def pictured(self) -> bool:
        """Whether the query or a neighbour has a picture."""
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
    """Make two contact sheets, gains and harms; none where a run has no case.

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
        ("retrieved for the query", tuple(_show_pair(run, shown) for shown in case.neighbours)),
        ("retrieved for its class prompt", tuple(_show_pair(run, shown) for shown in case.prompt_neighbours)),
    )
    return CaseView(
        name=case.name,
        picture=run.picture_data(case.picture),
        before=_ranking("before", case.before, case.rank_before),
        after=_ranking("after", case.after, case.rank_after),
        found=tuple((title, shown) for title, shown in found if shown),
    )


def _ranking(title: str, ranked: tuple[RankedCandidate, ...], rank: int) -> RankingView:
    return RankingView(title, ranked, rank + 1, missing=not any(one.true for one in ranked))


def _show_pair(run: Run, shown: RetrievedPair) -> ShownView:
    return ShownView(
        picture=run.picture_data(shown.picture),
        caption=shown.caption,
        similarity=f"{shown.similarity:.2f}".replace("-", "−"),
        trust=f"{100 * shown.trust:.0f} %",
        percent=100 * min(max(shown.trust, 0.0), 1.0),
        state={True: "relevant", False: "other", None: "unknown"}[shown.relevant],
    )
