"""Errors of commands: one line on stderr; exit code 1 for every RecoError, 130 for Ctrl-C."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TextIO, TypeVar

import typer

from ..errors import RecoError

P = ParamSpec("P")
R = TypeVar("R")


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command, below ``@app.command``: RecoError becomes ``error: …`` and exit code 1.

    Ctrl-C becomes ``interrupted: …``, with the text of :func:`keeps`, and exit code 130. Our warnings become
    ``warning: …`` lines on stderr. Any other exception is a defect and keeps its trace.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return command(*args, **kwargs)
            except RecoError as error:
                typer.echo(f"error: {_one_line(error)}", err=True)
                raise typer.Exit(1) from None
            except KeyboardInterrupt as stop:
                typer.echo(": ".join(filter(None, ("interrupted", _one_line(stop)))), err=True)
                raise typer.Exit(130) from None

    return run


@contextmanager
def keeps(what: str) -> Iterator[None]:
    """Make Ctrl-C inside the block say what is kept, and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(what) from None


def _one_line(message: object) -> str:
    return " ".join(str(message).splitlines())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if category.__module__ == "PIL.Image":  # of large images, about which our own limit decides
        return
    if category is UserWarning or category.__module__.startswith("reco_plugin."):  # ours
        typer.echo(f"warning: {_one_line(message)}", err=True)
    else:
        typer.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)
