"""Commands that are imported when they run or show their help, and whose errors are a line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property, wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, ParamSpec, TextIO, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand
from typer.models import ArgumentInfo, ParameterInfo

from ..errors import RecoError, is_ours

_TAKES = {bool: "", int: "N", float: "N", Path: "PATH"}
"""Type of a parameter -> word for its value; a flag has none."""
P = ParamSpec("P")
R = TypeVar("R")


class Command(NamedTuple):
    """A command, as its group lists it.

    Attributes:
        words: that are typed, as in ``memory info``.
        place: module of this package, and its function, as in ``memory:info_command``.
        says: first paragraph of the function's docstring, so that a list of commands imports none of them.
        example: a command line, with what is said below it.
    """

    words: str
    place: str
    says: str
    example: str

    def add_to(self, group: typer.Typer) -> None:
        """Add it to its group, without importing it."""

        def load() -> Callable[..., None]:
            module, _, function = self.place.partition(":")
            found: Callable[..., None] = getattr(import_module(f".{module}", __package__), function)
            return found

        name = self.words.rpartition(" ")[2]
        group.command(name, cls=LateCommand, short_help=self.says, epilog=f"Example: {self.example}")(load)


class _Command(TyperCommand):
    """A command that was loaded."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of the help; Typer would name the Python type of each argument."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        parameters: list[Any] = self.get_params(ctx)
        for one in parameters:
            argument = one.param_type_name == "argument"
            record = (one.metavar, one.help) if argument else one.get_help_record(ctx)
            if record is not None:
                sections["Arguments" if argument else "Options"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class LateCommand(TyperCommand):
    """A command that is made when it runs or its parameters are asked for; its callback gives the function."""

    @cached_property
    def made(self) -> Any:
        """The command itself."""
        load: Any = self.callback
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        function = load()
        _name_values(function)
        alone.command(self.name, cls=_Command, epilog=self.epilog)(reports_errors(function))
        return typer.main.get_command(alone)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Of the command itself, which is what runs."""
        return self.made.make_context(info_name, args, parent=parent, **extra)

    def get_params(self, ctx: Any) -> list[Any]:
        """Of the command itself."""
        return list(self.made.get_params(ctx))


def _name_values(function: Callable[..., None]) -> None:
    """Give each parameter without a ``metavar`` one, since Typer would name its Python type in the help."""
    for name, hint in get_type_hints(function, include_extras=True).items():
        for info in getattr(hint, "__metadata__", ()):
            if isinstance(info, ParameterInfo) and info.metavar is None:
                kinds = [hint.__origin__]
                for kind in kinds:  # grows: the parts of unions and lists, too
                    kinds += [part for part in get_args(kind) if get_origin(kind) is not Literal]
                choices = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
                words = [_TAKES[kind] for kind in kinds if kind in _TAKES]
                other = name.upper() if isinstance(info, ArgumentInfo) else "TEXT"
                info.metavar = "|".join(choices) or next(iter(words), other)


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose RecoError becomes ``error: …`` and exit code 1.

    Ctrl-C becomes ``interrupted: …``, with the text of :func:`keeps`, and exit code 130. Our warnings become
    ``warning: …`` lines on stderr. Any other exception is a defect and keeps its trace.

    A path that begins with ``~`` is in the home: a shell leaves the one of ``--out=~/run`` as it is.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return command(*args, **{name: _at_home(value) for name, value in kwargs.items()})
            except RecoError as error:
                typer.echo(f"error: {_one_line(error)}", err=True)
                raise typer.Exit(1) from None
            except KeyboardInterrupt as stop:
                typer.echo(": ".join(filter(None, ("interrupted", _one_line(stop)))), err=True)
                raise typer.Exit(130) from None

    return run


def _at_home(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_at_home, value))
    if not isinstance(value, Path):
        return value
    from ..files import in_home

    return in_home(value)


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
    if is_ours(category):
        typer.echo(f"warning: {_one_line(message)}", err=True)
    else:
        typer.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)
