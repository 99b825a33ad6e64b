"""Views for the templates: tables with all figures formatted, and the lines of the setup."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..evaluate.findings import Cell, Column, Section, Table
from ..measure.statistics import Interval
from .cells import best_cells, direction, format_cell, header, mean_of

Named: TypeAlias = tuple[str, str]
"""A name and a value, as text."""


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


def anchor_of(section: Section) -> str:
    """The anchor of a section.

    >>> anchor_of(Section(key="Do no harm/../x", title="", about=""))
    'do-no-harm-x'
    """
    return re.sub(r"[^a-z0-9]+", "-", section.key.casefold()).strip("-") or "section"


def is_frozen(cell: Cell) -> bool:
    """Whether a text cell names frozen CLIP."""
    return isinstance(cell, str) and cell.casefold().startswith("frozen")


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
