"""Views for the templates: tables with all figures formatted, charts as elements, and the lines of the setup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from ..evaluate.findings import Case, Cell, Chart, Column, Section, Table
from ..measure.statistics import Interval
from .charts import chart_table, draw, inline
from .headline import draw_headline, is_frozen, main_figures
from .runs import Run, best_cells, direction, format_cell, header, mean_of, section_key

Named: TypeAlias = tuple[str, str]
"""A name and a value, as text."""
HEADLINE = "Main figures before and after refinement, with their intervals"
GAINS = "Best gains"
HARMS = "Worst harms"


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
    """A table; a row says whether it is frozen CLIP's, and its first cell is its header."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[bool, tuple[CellView, ...]], ...]


class Sheet(NamedTuple):
    """A contact sheet: the cases of one kind."""

    anchor: str
    title: str
    about: str
    cases: tuple[Case, ...]


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


def view_chart(chart: Chart, salt: str) -> str:
    """Draw a chart as an element of the page; ``salt`` is distinct in it."""
    names = ", ".join(line.name for line in chart.lines)
    return inline(draw(chart, salt), f"Chart: {chart.title}. {chart.y_title} over {chart.x_title}: {names}")


def view_values(chart: Chart) -> TableView:
    """Format the values of a chart."""
    return view_table(chart_table(chart))


def view_headline(run: Run) -> str | None:
    """Draw the main figures of a run as an element of the page; None where it has none."""
    figures = main_figures(run.findings)
    return inline(draw_headline(figures, run.key), HEADLINE) if figures else None


def view_cases(run: Run) -> tuple[Sheet, ...]:
    """Make two contact sheets, gains and harms; none where a run has no case."""
    found = run.findings
    if not found.gains and not found.harms:
        return ()
    rose = "Queries whose true candidate rose furthest, best first."
    fell = "Refinement is not free: queries whose true candidate fell furthest, worst first."
    return (
        Sheet(f"{run.key}-gains", GAINS, rose, found.gains),
        Sheet(f"{run.key}-harms", HARMS, fell, found.harms),
    )


def anchor_of(run: Run, section: Section) -> str:
    """The anchor of a section."""
    return f"{run.key}-{section_key(section)}"


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
