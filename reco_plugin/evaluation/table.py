"""The table of a record: its columns and cells, for the page and for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from .record import Line, Record
from .statistics import points

NO_VALUE = "–"
_EFFECTS = {"gains": "up", "loses": "down"}


class Cell(NamedTuple):
    """A cell; its look is ``up`` for a significant gain and ``down`` for a significant loss."""

    text: str
    look: str = ""


def table_of(record: Record) -> tuple[list[str], list[list[Cell]]]:
    """Column titles and rows; columns without any value are left out."""
    lines = record.lines
    ways = list(dict.fromkeys(way for line in lines for way in line.values))
    columns = [(f"{way}, %", [_share(line.values.get(way)) for line in lines]) for way in ways]
    columns.append(("change, points", [_change(line) for line in lines]))
    columns.append(("by traffic", [_points(line.traffic) for line in lines]))
    columns.append(("gain, %", [_share(line.gain) for line in lines]))
    columns.append(("lose, %", [_share(line.lose) for line in lines]))
    unknown = [NO_VALUE if line.unknown is None else points(line.unknown) for line in lines]
    columns.append(("where the memory holds no answer", [Cell(text) for text in unknown]))
    kept = [(title, cells) for title, cells in columns if any(cell.text != NO_VALUE for cell in cells)]
    rows = [
        [Cell(line.name), Cell(f"{line.queries:,}"), *(cells[row] for _, cells in kept)]
        for row, line in enumerate(lines)
    ]
    return ["queries", "measured", *(title for title, _ in kept)], rows


def _share(value: float | None) -> Cell:
    return Cell(NO_VALUE if value is None else f"{100 * value:.1f}")


def _points(value: float | None) -> Cell:
    return Cell(NO_VALUE if value is None else f"{100 * value:+.1f}")


def _change(line: Line) -> Cell:
    return Cell(points(line.change.interval), _EFFECTS.get(line.change.effect, ""))


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, all others to the right.

    >>> print(align(["variant", "top-1"], [["frozen", "62.3"], ["both", "63.0"]]))
    variant  top-1
    -------  -----
    frozen    62.3
    both      63.0
    """
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))])
        for first, *others in lines
    )


def render(record: Record) -> str:
    """Format a record for a terminal: the table, the notes, and the decisions last."""
    titles, rows = table_of(record)
    shown = [f"{record.metric}:\n{align(titles, [[cell.text for cell in row] for row in rows])}"] if rows else []
    shown.append(
        "\n".join(textwrap.fill(one, 100, initial_indent="- ", subsequent_indent="  ") for one in record.notes)
    )
    for verdict in record.verdicts:
        shown.append(textwrap.fill(verdict.sentence, 100))
        shown += [textwrap.indent(verdict.query, "    ")] if verdict.query else []
    return "\n\n".join(shown).strip()
