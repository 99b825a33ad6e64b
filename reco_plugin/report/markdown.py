"""Findings as GitHub Markdown: a whole document, or tables, linked charts, and the cases as a table."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from ..evaluate.findings import Case, Cell, CellKind, RankedCandidate, RetrievedPair, Section, Table
from .headline import main_figures, summary_table
from .runs import Run, best_cells, format_cell, header, section_key, with_minus
from .views import GAINS, HARMS, HEADLINE, plain_setup, setup_details

PictureLink = Callable[[str | None], str | None]
"""Name of a picture -> its address in the document; None where there is none."""
_MARKS = {True: "✓", False: "✗", None: "?"}
_PICTURE_WIDTH = 72


def markdown_section(section: Section, *, prefix: str | None = "report", level: int = 2) -> str:
    """Write one section, without a trailing newline.

    Args:
        section: of the findings.
        prefix: of the charts that :func:`~reco_plugin.report.write_charts` wrote, as a path relative to the document,
            as in ``results/birds``; None leaves charts out.
        level: of the heading.
    """
    parts = [f"{'#' * level} {escape(section.title)}", prose(section.about)]
    parts += [markdown_table(table) for table in section.tables]
    if prefix is not None:
        for chart, name in zip(section.charts, chart_names(section, prefix), strict=True):
            parts.append(f"![{escape(chart.title)}]({name})\n\n*{escape(chart.title)}*")
    return "\n\n".join(part for part in parts if part)


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


def markdown_cases(cases: Sequence[Case], link: PictureLink = lambda name: None) -> str:
    """Write a table of cases: the query, its rank before and after, both rankings, and the neighbours."""
    lines = [_row(("query", "rank", "before", "after", "retrieved")), _row(["---"] * 5)]
    for case in cases:
        found = "<br>".join(_show_pair(shown, link) for shown in (*case.neighbours, *case.prompt_neighbours))
        ranks = f"{case.rank_before + 1:,} → {case.rank_after + 1:,}" + (f", {case.refined}" if case.refined else "")
        query = f"{_picture(link(case.picture), case.name)}{escape(case.name)}"
        lines.append(_row((query, ranks, _ranking(case.before), _ranking(case.after), found)))
    return "\n".join(lines)


def chart_names(section: Section, prefix: str) -> list[str]:
    """File names of the charts of a section: ``PREFIX-KEY-1.svg`` and so on."""
    return [f"{prefix}-{section_key(section)}-{number}.svg" for number in range(1, len(section.charts) + 1)]


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


def _ranking(ranked: Sequence[RankedCandidate]) -> str:
    lines = (f"{number}. {escape(one.name)} {one.similarity:.2f}" for number, one in enumerate(ranked, 1))
    return "<br>".join(f"**{line}** ✓" if one.true else line for line, one in zip(lines, ranked, strict=True))


def _show_pair(shown: RetrievedPair, link: PictureLink) -> str:
    figures = f"{shown.similarity:.2f}, caption fits by {shown.reliability:.2f}"
    picture = _picture(link(shown.picture), shown.caption)
    return f"{picture}{_MARKS[shown.relevant]} {escape(shown.caption)} ({figures})"


def _picture(address: str | None, words: str) -> str:
    if address is None:
        return ""
    alt = prose(words).replace('"', "&quot;").replace("|", "&#124;")
    return f'<img src="{address}" width="{_PICTURE_WIDTH}" alt="{alt}"><br>'


def render_document(runs: Sequence[Run], title: str, prefixes: Sequence[str], folder: Path) -> str:
    """Write runs as one document, which lies in ``folder``; several are compared in a table first.

    Each run has its prefix of chart files.
    """
    parts = [f"# {escape(title)}"]
    several = len(runs) > 1
    if several:
        parts.append(markdown_table(summary_table([run.findings for run in runs], [run.name for run in runs])))
    for run, prefix in zip(runs, prefixes, strict=True):
        if several:
            parts.append(f"## {escape(run.name)}")
        parts += _run(run, prefix, 2 + several, partial(_link, run, folder))
    return "\n\n".join(parts) + "\n"


def headline_name(prefix: str) -> str:
    """File name of the headline picture."""
    return f"{prefix}-headline.svg"


def _run(run: Run, prefix: str, level: int, link: PictureLink) -> list[str]:
    found, mark = run.findings, "#" * level
    parts = ["\n".join(f"- {prose(with_minus(sentence))}" for sentence in found.summary)] if found.summary else []
    if main_figures(found):
        parts.append(f"![{HEADLINE}]({headline_name(prefix)})")
    groups = [plain_setup(found.setup), *setup_details(found.setup).values()]
    parts += [" · ".join(f"{escape(name)}: {escape(value)}" for name, value in lines) for lines in groups if lines]
    parts.append(f"Made by\n\n{_fence(found.command)}")
    parts += [markdown_section(section, prefix=prefix, level=level) for section in found.sections]
    for title, cases in ((GAINS, found.gains), (HARMS, found.harms)):
        if cases:
            parts += [f"{mark} {title}", markdown_cases(cases, link)]
    return parts


def _link(run: Run, folder: Path, name: str | None) -> str | None:
    path = run.picture(name)
    return None if path is None else quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())


def _fence(command: str) -> str:
    fence = "```"
    while fence in command:
        fence += "`"
    return f"{fence}\n{command}\n{fence}"
