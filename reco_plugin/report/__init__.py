"""Render findings: one self-contained HTML page, Markdown with charts beside it, and JSON.

``findings.json -> Run -> page (HTML) | document (Markdown, SVG) | JSON``. Nothing is measured here.
"""

from .markdown import markdown_cases, markdown_section
from .runs import Run, read_runs
from .thumbnails import Thumbnails
from .write import FORMATS, Addition, render_page, write_charts, write_report

__all__ = [
    "FORMATS",
    "Addition",
    "Run",
    "Thumbnails",
    "markdown_cases",
    "markdown_section",
    "read_runs",
    "render_page",
    "write_charts",
    "write_report",
]
