"""Write a report's files, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..data.files import whole_file
from ..errors import ConfigError, DataError
from ..evaluate.findings import Section
from .bars import draw_headline
from .charts import draw
from .headline import main_figures
from .markdown import chart_names, headline_name, render_document
from .page import render_page
from .runs import Run

FORMATS = ("html", "md", "json")
_STEM = "report"


def write_report(
    runs: Sequence[Run], out: Path, *, title: str | None = None, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write ``report.html``, ``report.md`` with its charts, and ``report.json`` (of several runs, a list).

    Args:
        runs: at least one, as :func:`~reco_plugin.report.read_runs` gives them.
        out: folder to write to; made when it is not there.
        title: of page and document; by default it names the runs.
        formats: of ``html``, ``md`` and ``json``.

    Returns:
        The files written: page, document, its charts, JSON.

    Raises:
        ConfigError: no run, no format, or an unknown one.
        MissingExtra: jinja2 or matplotlib is not installed.
        DataError: a picture's name is not a plain file name, or a file cannot be written.
    """
    if not runs:
        raise ConfigError("a report needs at least one run")
    if (unknown := [one for one in formats if one not in FORMATS]) or not formats:
        raise ConfigError(f"format {', '.join(unknown) or '(none)'} is not known: give some of {', '.join(FORMATS)}")
    _make(out)
    title = title or f"What refinement changes: {', '.join(run.name for run in runs)}"
    files: list[Path] = []
    if "html" in formats:
        files.append(_write(out / f"{_STEM}.html", render_page(runs, title)))
    if "md" in formats:
        prefixes = [_STEM] if len(runs) == 1 else [f"{_STEM}-{run.key}" for run in runs]
        files.append(_write(out / f"{_STEM}.md", render_document(runs, title, prefixes, out)))
        for run, prefix in zip(runs, prefixes, strict=True):
            files += _write_run_charts(run, out, prefix)
    if "json" in formats:
        found = [run.findings.model_dump(mode="json") for run in runs]
        text = json.dumps(found[0] if len(found) == 1 else found, indent=1, ensure_ascii=False)
        files.append(_write(out / f"{_STEM}.json", text + "\n"))
    return files


def write_charts(section: Section, folder: Path, prefix: str) -> list[Path]:
    """Draw the charts of a section as ``PREFIX-KEY-1.svg`` and so on; returns their paths, in order.

    Raises:
        MissingExtra: matplotlib is not installed.
        DataError: a file cannot be written.
    """
    names = chart_names(section, prefix)
    return [_write(folder / name, draw(chart, name)) for name, chart in zip(names, section.charts, strict=True)]


def _write_run_charts(run: Run, out: Path, prefix: str) -> list[Path]:
    figures = main_figures(run.findings)
    head = [_write(out / headline_name(prefix), draw_headline(figures, prefix))] if figures else []
    return head + [path for section in run.findings.sections for path in write_charts(section, out, prefix)]


def _write(path: Path, text: str) -> Path:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}") from None
