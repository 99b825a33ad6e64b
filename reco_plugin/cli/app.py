"""The application ``reco``: the list of commands, each imported when it runs, and how errors are printed."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Callable
from functools import cached_property, wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TextIO, TypeVar, cast

import typer
from typer.core import TyperCommand

from .. import __version__
from ..errors import RecoError, is_ours

P = ParamSpec("P")
R = TypeVar("R")


class LateCommand(TyperCommand):
    """A command whose callback loads the function; it is loaded when the command runs or shows its parameters."""

    @cached_property
    def made(self) -> Any:
        """The command, made from its function."""
        load: Any = self.callback
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(self.name, epilog=self.epilog)(reports_errors(load()))
        return typer.main.get_command(single)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Make the context of the command, which then runs."""
        return self.made.make_context(info_name, args, parent=parent, **extra)

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first paragraph of the function's docstring, from its source: lists of commands import nothing."""
        module = cast(Any, self.callback).__module__
        source = cast(Any, find_spec(module)).loader.get_source(module)
        functions = (one for one in ast.parse(source).body if isinstance(one, ast.FunctionDef))
        texts = (ast.get_docstring(one) for one in functions if one.name == f"{self.name}_command")
        return " ".join((next(texts) or "").partition("\n\n")[0].split())

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the command."""
        return list(self.made.get_params(ctx))


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print a RecoError of a command as ``error: …`` and exit with 1; expand a leading ``~`` in its paths.

    Ctrl-C prints ``interrupted: …`` with the text of :func:`keeps`, and exits with 130. Our warnings become lines
    ``warning: …`` on stderr. Any other exception is a defect and prints its trace.
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
    from .shared import on_one_line

    return on_one_line(" ".join(str(message).splitlines()))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if category.__module__ == "PIL.Image":  # of large images, for which we have our own limit
        return
    if is_ours(category):
        typer.echo(f"warning: {_one_line(message)}", err=True)
    else:
        typer.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)


app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Refine CLIP embeddings through a memory of image-text pairs, without touching CLIP or your index.",
    epilog="Start with: reco demo",
)
memory_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Build, fill, search and move memories of image-text pairs."
)
model_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Make model folders: export, add or train.")
GROUPS = {"": app, "memory": memory_app, "model": model_app}
"""Words before the name of a command -> its group."""


def _add(words: str, module: str, example: str) -> None:
    """List a command in its group; its module is imported when it runs or shows its help."""
    group, _, name = words.rpartition(" ")

    def load() -> Callable[..., None]:
        command: Callable[..., None] = getattr(import_module(f".{module}", __package__), f"{name}_command")
        return command

    load.__module__ = f"{__package__}.{module}"
    GROUPS[group].command(name, cls=LateCommand, epilog=f"Example: {example}")(load)


COMMANDS = {
    "demo": ("demo", "reco demo --out demo"),
    "doctor": ("doctor", "reco doctor --json"),
    "embed": (
        "embed",
        "reco embed --text 'a red fox' --image fox.jpg\n\nreco embed --input queries.txt --out vectors.npy",
    ),
    "serve": ("serve", "reco serve --memory ./memory --port 8080"),
    "eval": (
        "evaluate",
        "reco eval photos/test --memory ./memory\n\nChoose a policy and write a model: reco eval photos --tune",
    ),
    "compare": (
        "compare",
        "reco compare 'postgresql://host/shop?table=products&text=title' --memory ./memory --queries log.csv",
    ),
    "clean": ("clean", "reco clean catalogue.csv --model my_model\n\nreco clean --memory ./memory"),
    "memory build": (
        "memory_fill",
        "reco memory build catalogue.csv --memory ./memory --swap"
        "\n\nA table has the columns id, image and text; every other column becomes payload. See docs/sources.md.",
    ),
    "memory add": ("memory_fill", "reco memory add catalogue.csv --memory ./memory"),
    "memory sync": ("memory_fill", "reco memory sync catalogue.csv --as catalogue --dry-run"),
    "memory remove": ("memory", "reco memory remove fox-1 fox-2 --memory ./memory"),
    "memory search": (
        "memory",
        "reco memory search 'a red fox' --k 5\n\nreco memory search --image fox.jpg --where '{\"shop\": \"de\"}'",
    ),
    "memory info": ("memory", "reco memory info --memory ./memory --json"),
    "memory copy": (
        "memory_copy",
        "reco memory copy ./memory grpc://localhost:6334\n\nreco memory copy ./memory backup.parquet",
    ),
    "memory versions": ("memory_versions", "reco memory versions --use memory--v3 --memory ./memory"),
    "memory feedback": ("memory", "reco memory feedback --not wolf-17 --image fox.jpg --by ann --memory ./memory"),
    "model export": ("model", "reco model export --model ViT-B-32 --pretrained laion2b_s34b_b79k --out my_model"),
    "model add": ("model", "reco model add Xenova/clip-vit-base-patch32 --out my_model"),
    "model train": (
        "model",
        "reco model train catalogue.csv --model ViT-B-32 --pretrained laion2b_s34b_b79k --out runs/x",
    ),
}
"""Words of a command -> the module with its ``NAME_command``, and examples."""

for _words, (_module, _example) in COMMANDS.items():
    _add(_words, _module, _example)
for _name in ("memory", "model"):
    app.add_typer(GROUPS[_name], name=_name)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reco-plugin {__version__}")
        raise typer.Exit


@app.callback()
def reco_command(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version, and end."),
    ] = False,
) -> None:
    """Take options before the name of a command."""


def main() -> None:
    """Entry point of the ``reco`` script."""
    completion = sys.argv[1:2] in (["--install-completion"], ["--show-completion"])
    try:
        app(prog_name="reco" if completion else None)  # a shell completes a name, not `python -m reco_plugin`
    except KeyboardInterrupt:  # before any command runs
        sys.exit(130)
