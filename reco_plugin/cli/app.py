"""The application ``reco``: the list of commands, each imported when it runs, and how errors are printed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import cached_property, wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TextIO, TypeVar

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


def _add(words: str, module: str, summary: str, example: str) -> None:
    """List a command in its group; its module, with ``NAME_command``, is imported when it runs or shows its help.

    ``summary`` repeats the first paragraph of the function's docstring, because lists of commands import no module.
    """
    group, _, name = words.rpartition(" ")

    def load() -> Callable[..., None]:
        command: Callable[..., None] = getattr(import_module(f".{module}", __package__), f"{name}_command")
        return command

    GROUPS[group].command(name, cls=LateCommand, short_help=summary, epilog=f"Example: {example}")(load)


_add(
    "demo",
    "demo",
    "Classify drawings of things that CLIP never saw, before and after their pairs join the memory.",
    "reco demo --out demo",
)
_add(
    "doctor",
    "doctor",
    "Show versions and settings, and check the model, the memory and one refinement. Keys are never shown.",
    "reco doctor --json",
)
_add(
    "embed",
    "embed",
    "Embed texts and images, refined through the memory by default; one vector each, unit-norm.",
    "reco embed --text 'a red fox' --image fox.jpg --memory ./memory"
    "\n\nreco embed --input queries.txt --out vectors.npy",
)
_add(
    "serve",
    "serve",
    "Serve the embedding APIs of OpenAI and others, /v1/refine, the memory, health and metrics over HTTP.",
    "reco serve --memory ./memory --port 8080",
)
_add(
    "eval",
    "evaluate",
    "Measure what refinement changes on your pictures, by side and direction, and write the page.",
    "reco eval photos/test --memory ./memory\n\nChoose a policy and write a model: reco eval photos --tune",
)
_add(
    "compare",
    "compare",
    "Search an index by real queries, plain and refined, and say what to do. The index is only read.",
    "reco compare 'postgresql://host/shop?table=products&text=title' --memory ./memory --queries log.csv",
)
_add(
    "clean",
    "clean",
    "List the captions that are probably wrong, with suggestions, and write a page to correct them by keys.",
    "reco clean catalogue.csv --model my_model\n\nreco clean --memory ./memory",
)
_add(
    "memory build",
    "memory_fill",
    "Build a memory from a source; an interrupted build resumes when you run it again.",
    "reco memory build catalogue.csv --memory ./memory --swap"
    "\n\nA table has the columns id, image and text; every other column becomes payload. See docs/sources.md.",
)
_add(
    "memory add",
    "memory_fill",
    "Encode pairs and store them; an id that exists is replaced if its row changed.",
    "reco memory add catalogue.csv --memory ./memory",
)
_add(
    "memory sync",
    "memory_fill",
    "Make the memory match the source: add, replace, and delete pairs that are gone from the source.",
    "reco memory sync catalogue.csv --as catalogue --dry-run",
)
_add(
    "memory remove",
    "memory",
    "Delete pairs by id; an id that no pair has is named in a warning. Needs no model.",
    "reco memory remove fox-1 fox-2 --memory ./memory",
)
_add(
    "memory search",
    "memory",
    "Find the pairs nearest to a text or an image, as a query would retrieve them.",
    "reco memory search 'a red fox' --k 5\n\nreco memory search --image fox.jpg --where '{\"shop\": \"de\"}'",
)
_add(
    "memory info",
    "memory",
    "Show where a memory is, how many pairs it holds, their encoder, and what was learned. Needs no model.",
    "reco memory info --memory ./memory --json",
)
_add(
    "memory copy",
    "memory_copy",
    "Copy a memory to another one or to a file, or back from a file: pairs, feedback, and what was learned.",
    "reco memory copy ./memory grpc://localhost:6334\n\nreco memory copy ./memory backup.parquet",
)
_add(
    "memory versions",
    "memory_versions",
    "List the versions of a memory, put one to use, or delete old ones. Needs no model.",
    "reco memory versions --use memory--v3 --memory ./memory",
)
_add(
    "memory feedback",
    "memory",
    "List feedback on answers, oldest first, or give it: a pair that is wrong for a query no longer moves it.",
    "reco memory feedback --not wolf-17 --image fox.jpg --by ann --memory ./memory",
)
_add(
    "model export",
    "model",
    "Export an open_clip model to a model folder: ONNX graphs, tokenizer, manifest, Triton configuration.",
    "reco model export --model ViT-B-32 --pretrained laion2b_s34b_b79k --out my_model",
)
_add(
    "model add",
    "model",
    "Make a model folder of ready ONNX towers, as optimum and transformers.js write them. Needs no torch.",
    "reco model add Xenova/clip-vit-base-patch32 --out my_model",
)
_add(
    "model train",
    "model",
    "Train the paper's layer on your pairs, around a frozen encoder, by the paper's loss.",
    "reco model train catalogue.csv --model ViT-B-32 --pretrained laion2b_s34b_b79k --out runs/x",
)

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
