"""``reco report``: the page of evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders made by `reco eval study`.", show_default=False)],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to.", show_default="the run folder; of several, the first one's parent"),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the report.", show_default="names the runs")] = None,
    formats: Annotated[str, typer.Option(help="Some of html, md, json, separated by commas.")] = "html,md,json",
) -> None:
    """Draw one self-contained page of tables, charts and examples from one run, or compare several."""
    from ..report import read_runs, write_report

    wanted = [word.strip() for word in formats.split(",") if word.strip()]
    folder = out or (runs[0] if len(runs) == 1 else runs[0].resolve().parent)
    for path in write_report(read_runs(runs), folder, title=title, formats=wanted):
        typer.echo(path)
