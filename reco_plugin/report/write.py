"""The page of findings: one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import need
from ..evaluate.findings import Findings
from . import views
from .cells import with_minus
from .colours import stylesheet

if TYPE_CHECKING:
    from jinja2 import Environment

_FIGURE = re.compile(r"(?<![\w.,-])[+−]?\d[\d,]*(?:\.\d+)?(?: ± [\d.]+)?(?:\s?%|\s?points?\b|(?= \[))")
_CODE = re.compile(r"`([^`]+)`")


class Addition(NamedTuple):
    """What another page has beside a report: a template that extends ``page.html``, with a style and a script."""

    package: str  # that holds the folder ``templates``
    name: str  # of the files there, without suffix
    values: Mapping[str, Any]  # for the template


def render_page(found: Findings, title: str, addition: Addition | None = None) -> str:
    """Render findings as one page.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    need("jinja2", "the HTML page", "report")
    from markupsafe import Markup

    own = addition or Addition(__package__, "page", {})
    style, script = _template(__package__, "page.css"), _template(__package__, "page.js")
    if addition:
        style += _template(own.package, f"{own.name}.css")
        script += _template(own.package, f"{own.name}.js")
    return (
        _environment(own.package)
        .get_template(f"{own.name}.html")
        .render(
            title=title,
            found=found,
            views=views,
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
