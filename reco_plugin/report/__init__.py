"""Render findings: one self-contained HTML page, Markdown with charts beside it, and JSON.

``findings.json -> Run -> page (HTML) | document (Markdown, SVG) | JSON``. Nothing is measured here.
"""

from .markdown import markdown_cases, markdown_section
from .runs import Run, read_runs
from .write import FORMATS, write_charts, write_report

__all__ = ["FORMATS", "Run", "markdown_cases", "markdown_section", "read_runs", "write_charts", "write_report"]
