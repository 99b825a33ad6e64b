"""Figures as text: per cent and points have one decimal, bytes and times readable units, missing ones an en dash."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, TypeAlias

from ..evaluate.findings import Cell, CellKind, Column, Table
from ..measure.statistics import Interval

NOTHING = "–"
Direction: TypeAlias = Literal["up", "down", "unsure"]
_UNITS: dict[str, str] = {"percent": "%", "points": "points"}
_EXACT_BELOW, _MINUTE_MS = 1000.0, 60_000.0


def format_cell(cell: Cell, kind: CellKind) -> str:
    """Format a cell, without its unit where the header has it (per cent, points).

    >>> format_cell(0.4949, "percent"), format_cell(-0.014, "points"), format_cell(None, "count")
    ('49.5', '−1.4', '–')
    >>> from reco_plugin.measure.statistics import Interval
    >>> format_cell(Interval(0.02, 0.009, 0.031), "points")
    '+2.0 [+0.9, +3.1]'
    >>> format_cell(1536, "bytes"), format_cell(0.25, "milliseconds"), format_cell(8756, "count")
    ('1.5 KiB', '250 µs', '8,756')
    """
    if cell is None:
        return NOTHING
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Interval):
        mean, low, high = (format_cell(value, kind) for value in cell)
        return f"{mean} [{low}, {high}]"
    return _WRITERS[kind](float(cell)).replace("-", "−")


def header(column: Column) -> str:
    """The title of a column, with the unit of its cells unless the title has it.

    >>> header(Column(key="top1", title="top-1", kind="percent")), header(Column(key="gain", title="gain in points"))
    ('top-1, %', 'gain in points')
    """
    unit = _UNITS.get(column.kind)
    return column.title if unit is None or unit in column.title else f"{column.title}, {unit}".lstrip(", ")


def with_minus(text: str) -> str:
    """Replace hyphens before figures by minus signs.

    >>> with_minus("top-1: -0.6 [-1.7, +0.0] points")
    'top-1: −0.6 [−1.7, +0.0] points'
    """
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def mean_of(cell: Cell) -> float | None:
    """The number of a cell, the mean of an interval; None for text and missing cells."""
    if cell is None or isinstance(cell, str):
        return None
    return float(cell.mean if isinstance(cell, Interval) else cell)


def direction(cell: Cell, kind: CellKind) -> Direction | None:
    """Whether a difference is a gain, a loss, or neither because its interval holds 0; None for other cells."""
    if kind != "points" or (mean := mean_of(cell)) is None:
        return None
    low, high = (cell.low, cell.high) if isinstance(cell, Interval) else (mean, mean)
    if low > 0:
        return "up"
    return "down" if high < 0 else "unsure"


def best_cells(table: Table) -> frozenset[tuple[int, str]]:
    """Row number and key of the highest cells of the ``best`` columns; equal formatted values are equally best."""
    kinds = {column.key: column.kind for column in table.columns}
    found: set[tuple[int, str]] = set()
    for key in (key for key in table.best if key in kinds):
        means = {row: mean for row, cells in enumerate(table.rows) if (mean := mean_of(cells.get(key))) is not None}
        if means:
            top = format_cell(max(means.values()), kinds[key])
            found |= {(row, key) for row, mean in means.items() if format_cell(mean, kinds[key]) == top}
    return frozenset(found)


def _format_points(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= _EXACT_BELOW or value == int(value) else f"{value:.3g}"


def _milliseconds(value: float) -> str:
    if value and abs(value) < 1:
        return f"{1000 * value:.3g} µs"
    if abs(value) >= _MINUTE_MS:
        return f"{value / _MINUTE_MS:.1f} min"
    return f"{value / 1000:.3g} s" if abs(value) >= 1000 else f"{value:.3g} ms"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.3g} {unit}" if unit == "B" or abs(value) < 100 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


_WRITERS: dict[str, Callable[[float], str]] = {
    "text": lambda value: f"{value:.6g}",
    "count": lambda value: f"{value:,.0f}",
    "percent": lambda value: f"{100 * value:.1f}",
    "points": _format_points,
    "number": _number,
    "milliseconds": _milliseconds,
    "bytes": _bytes,
}
