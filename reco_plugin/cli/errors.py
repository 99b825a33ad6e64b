"""Errors of commands: one line on stderr; exit code 1 for every RecoError, 130 for Ctrl-C."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, ParamSpec, TextIO, TypeVar

import typer
from typer.core import TyperGroup

from ..errors import RecoError
from ..values import in_words

_INVALID = re.compile(r"Invalid value for (?:argument )?'(?P<flag>[^']+)': (?P<why>.*)")
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


class Commands(TyperGroup):
    """The commands, of which a mistake in the flags ends as any other: ``error: …`` in one line, and exit code 1."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line, and exit."""
        run = partial(super().main, args, prog_name, complete_var, windows_expand_args=windows_expand_args, **extra)
        if not standalone_mode:
            return run(standalone_mode=False)
        try:
            code = run(standalone_mode=False)
        except typer.Abort:  # a question that was not answered
            typer.echo("Aborted.", err=True)
            code = 1
        except Exception as error:
            if not hasattr(error, "format_message"):  # not of the flags
                raise
            helped = type(error).__name__ == "NoArgsIsHelpError"  # its message is the help, or that is shown already
            typer.echo(error.format_message() if helped else f"error: {_of_flags(error)}", err=True)
            code = 2 if helped else 1
        raise SystemExit(code if isinstance(code, int) else 0)


def _of_flags(error: Any) -> str:
    """What is wrong with the flags, and where they are listed."""
    said = _one_line(error.format_message())
    if invalid := _INVALID.fullmatch(said):
        said = f"{invalid['flag']} {in_words(invalid['why'])}"
    path = getattr(getattr(error, "ctx", None), "command_path", None)
    return f"{said.rstrip('.')}; its flags: {path} --help" if path else said


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
