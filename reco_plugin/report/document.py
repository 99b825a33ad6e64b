"""The Markdown document of a report: the page's figures, with charts and pictures as files beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from .case_views import GAINS, HARMS
from .cells import with_minus
from .headline import main_figures, summary_table
from .markdown import PictureLink, escaped, markdown_cases, markdown_section, markdown_table, prose
from .runs import Run
from .views import HEADLINE, plain_setup, setup_details


def render_document(runs: Sequence[Run], title: str, prefixes: Sequence[str], folder: Path) -> str:
    """Write runs as one document.

    Args:
        runs: at least one; several are compared in a table first.
        title: of the document.
        prefixes: of each run's chart files.
        folder: that the document will stand in; pictures are linked from there.
    """
    parts = [f"# {escaped(title)}"]
    several = len(runs) > 1
    if several:
        parts.append(markdown_table(summary_table([run.findings for run in runs], [run.name for run in runs])))
    for run, prefix in zip(runs, prefixes, strict=True):
        if several:
            parts.append(f"## {escaped(run.name)}")
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
    parts += [" · ".join(f"{escaped(name)}: {escaped(value)}" for name, value in lines) for lines in groups if lines]
    parts.append(f"Made by\n\n{_fenced(found.command)}")
    parts += [markdown_section(section, prefix=prefix, level=level) for section in found.sections]
    for title, cases in ((GAINS, found.gains), (HARMS, found.harms)):
        if cases:
            parts += [f"{mark} {title}", markdown_cases(cases, link)]
    return parts


def _link(run: Run, folder: Path, name: str | None) -> str | None:
    path = run.picture(name)
    return None if path is None else quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())


def _fenced(command: str) -> str:
    fence = "```"
    while fence in command:
        fence += "`"
    return f"{fence}\n{command}\n{fence}"
