"""The table of a record: its columns and cells, for the page and for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from .record import Line, Record
from .statistics import Interval, points

NOTHING = "–"
_EFFECTS = {"gains": "up", "loses": "down"}


class Cell(NamedTuple):
    """A cell, and how it looks: ``up`` for a sure gain, ``down`` for a sure loss."""

    text: str
    look: str = ""


def table_of(record: Record) -> tuple[list[str], list[list[Cell]]]:
    """Titles of the columns, and the rows; a column is left out where no line has it."""
    lines = record.lines
    titles = ["search", "queries", f"{record.metric}, %"]
    more = list(dict.fromkeys(name for line in lines for name in line.more))
    titles += [f"{name}, %" for name in more]
    changed, unknown = any(line.change for line in lines), any(line.unknown for line in lines)
    titles += ["change, points", "searches that gain", "lose"] if changed else []
    titles += ["where the memory holds no answer"] if unknown else []
    rows = []
    for line in lines:
        row = [Cell(line.name), Cell(f"{line.queries:,}"), Cell(_level(line.value))]
        row += [Cell(percent(line.more[name]) if name in line.more else NOTHING) for name in more]
        row += _change(line) if changed else []
        row += [Cell(NOTHING if line.unknown is None else points(line.unknown))] if unknown else []
        rows.append(row)
    return titles, rows


def _change(line: Line) -> list[Cell]:
    if line.change is None or line.shares is None:
        return [Cell(NOTHING)] * 3
    change = Cell(points(line.change.interval), _EFFECTS.get(line.change.effect, ""))
    return [change, Cell(f"{line.shares.gain:.1%}"), Cell(f"{line.shares.lose:.1%}")]


def percent(share: float) -> str:
    """Format a share in per cent, as in ``62.3``."""
    return f"{100 * share:.1f}"


def _level(value: Interval) -> str:
    mean, low, high = map(percent, value)
    return f"{mean} [{low}, {high}]"


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
    """For a terminal: the table, the notes, and the sentence at the end."""
    titles, rows = table_of(record)
    shown = [align(titles, [[cell.text for cell in row] for row in rows])] if rows else []
    notes = [textwrap.fill(note, 100, initial_indent="- ", subsequent_indent="  ") for note in record.notes]
    return "\n\n".join([*shown, "\n".join(notes), textwrap.fill(record.verdict.sentence, 100)]).strip()
