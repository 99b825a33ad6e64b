"""Write a report's files, each atomically; its page is one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigError, need
from ..evaluate.findings import Section
from ..files import as_data_error, whole_file
from . import views
from .charts import draw, standalone, stylesheet
from .headline import draw_headline, main_figures, summary_table
from .markdown import chart_names, headline_name, render_document
from .runs import Run, with_minus

if TYPE_CHECKING:
    from jinja2 import Environment

FORMATS = ("html", "md", "json")
_STEM = "report"


def write_report(
    runs: Sequence[Run], out: Path, *, title: str | None = None, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write ``report.html``, ``report.md`` with its charts, and ``report.json`` (of several runs, a list).

    Args:
        runs: at least one, as :func:`~reco_plugin.report.read_runs` gives them.
        out: folder to write to; created when missing.
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
    with as_data_error(f"{out} cannot be made"):
        out.mkdir(parents=True, exist_ok=True)
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
    return [
        _write(folder / name, standalone(draw(chart, name), chart.title))
        for name, chart in zip(names, section.charts, strict=True)
    ]


def _write_run_charts(run: Run, out: Path, prefix: str) -> list[Path]:
    figures = main_figures(run.findings)
    head = []
    if figures:
        head = [_write(out / headline_name(prefix), standalone(draw_headline(figures, prefix), run.name))]
    return head + [path for section in run.findings.sections for path in write_charts(section, out, prefix)]


def _write(path: Path, text: str) -> Path:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


_FIGURE = re.compile(r"(?<![\w.,-])[+−]?\d[\d,]*(?:\.\d+)?(?: ± [\d.]+)?(?:\s?%|\s?points?\b|(?= \[))")
_CODE = re.compile(r"`([^`]+)`")


class Addition(NamedTuple):
    """What another page has beside a report: a template that extends ``page.html``, with a style and a script."""

    package: str  # that holds the folder ``templates``
    name: str  # of the files there, without suffix
    values: Mapping[str, Any]  # for the template


def render_page(runs: Sequence[Run], title: str, addition: Addition | None = None) -> str:
    """Render runs as one page; several are compared in a table at the top."""
    need("jinja2", "the HTML page", "report")
    from markupsafe import Markup

    own = addition or Addition(__package__, "page", {})
    style, script = _template(__package__, "page.css"), _template(__package__, "page.js")
    if addition:
        style += _template(own.package, f"{own.name}.css")
        script += _template(own.package, f"{own.name}.js")
    matrix = summary_table([run.findings for run in runs], [run.name for run in runs])
    return (
        _environment(own.package)
        .get_template(f"{own.name}.html")
        .render(
            title=title,
            runs=runs,
            views=views,
            matrix=views.view_table(matrix) if len(runs) > 1 else None,
            style=Markup(stylesheet() + style),  # noqa: S704 - our own files
            script=Markup(script),  # noqa: S704
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            **own.values,
        )
    )


@cache
def _environment(package: str) -> Environment:
    """What reads the templates of this package and of another one, compiled once each."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup, escape

    def prose(text: str) -> Markup:
        return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped first

    def bold_figures(text: str) -> Markup:
        return Markup("").join(
            Markup("<b>{}</b>").format(part) if number % 2 else escape(part)
            for number, part in enumerate(re.split(f"({_FIGURE.pattern})", with_minus(text)))
        )

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(each, "templates") for each in (__package__, package)]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": prose, "bold_figures": bold_figures}
    return environment


def _template(package: str, name: str) -> str:
    return (files(package) / "templates" / name).read_text(encoding="utf-8")
