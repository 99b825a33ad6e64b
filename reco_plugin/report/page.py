"""The HTML page: one file that loads nothing, readable without its script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files

from ..data.extras import need
from .cells import with_minus
from .headline import summary_table
from .palette import stylesheet
from .runs import Run
from .views import view_run, view_table

_FIGURE = re.compile(r"(?<![\w.,-])[+−]?\d[\d,]*(?:\.\d+)?(?:\s?%|\s?points?\b|(?= \[))")
_CODE = re.compile(r"`([^`]+)`")


def render_page(runs: Sequence[Run], title: str) -> str:
    """Render runs as one page; several are compared in a matrix at the top.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
        DataError: a picture's name is not a plain file name.
    """
    need("jinja2", "the HTML page", "report")
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup, escape

    def prose(text: str) -> Markup:
        return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped first

    def bold_figures(text: str) -> Markup:
        return Markup("").join(
            Markup("<b>{}</b>").format(part) if number % 2 else escape(part)
            for number, part in enumerate(re.split(f"({_FIGURE.pattern})", with_minus(text)))
        )

    environment = Environment(
        loader=PackageLoader("reco_plugin.report", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": prose, "bold_figures": bold_figures}
    script = _template("page.js")
    matrix = summary_table([run.findings for run in runs], [run.name for run in runs])
    return environment.get_template("page.html").render(
        title=title,
        runs=[view_run(run) for run in runs],
        matrix=view_table(matrix) if len(runs) > 1 else None,
        style=Markup(stylesheet() + _template("page.css")),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _template(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")
