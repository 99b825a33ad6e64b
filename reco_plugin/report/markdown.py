"""A table as GitHub Markdown, for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..evaluate.findings import Cell, CellKind, Table
from .cells import best_cells, format_cell, header


def markdown_table(table: Table) -> str:
    """Write a table with its title in bold above; the best cells are bold."""
    best = best_cells(table)
    lines = [
        _row(escape(header(column)) for column in table.columns),
        _row("---" if column.kind == "text" else "---:" for column in table.columns),
    ]
    for number, row in enumerate(table.rows):
        cells = ((column.key, _cell(row.get(column.key), column.kind)) for column in table.columns)
        lines.append(_row(f"**{text}**" if (number, key) in best else text for key, text in cells))
    title = f"**{escape(table.title)}**\n\n" if table.title else ""
    return title + "\n".join(lines)


def escape(text: str) -> str:
    r"""Escape text for Markdown, on one line.

    >>> print(escape("a|b <i> *c*"))
    a\|b &lt;i&gt; \*c\*
    """
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", prose(text))


def prose(text: str) -> str:
    """Escape HTML in sentences, but no Markdown."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def _cell(cell: Cell, kind: CellKind) -> str:
    text = format_cell(cell, kind)
    return escape(text) if isinstance(cell, str) else text


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
