"""``reco``: the command line. Commands are only named here: each is imported when it runs or shows its help."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import cached_property, wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, ParamSpec, TextIO, TypeVar

import typer
from typer.core import TyperCommand

from .. import __version__
from ..errors import RecoError, is_ours

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


class LateCommand(TyperCommand):
    """A command that is made when it runs or its parameters are asked for; its callback gives the function."""

    @cached_property
    def made(self) -> Any:
        """The command itself."""
        load: Any = self.callback
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(self.name, epilog=self.epilog)(reports_errors(load()))
        return typer.main.get_command(alone)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Of the command itself, which is what runs."""
        return self.made.make_context(info_name, args, parent=parent, **extra)

    def get_params(self, ctx: Any) -> list[Any]:
        """Of the command itself."""
        return list(self.made.get_params(ctx))


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
    if category.__module__ == "PIL.Image":  # of large images, about which our own limit decides
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
"""Words before the name of a command -> the group that lists it."""

COMMANDS = (
    Command(
        "demo",
        "demo:demo_command",
        "Classify drawings of things that CLIP never saw, before and after their pairs join the memory.",
        "reco demo --out demo",
    ),
    Command(
        "doctor",
        "doctor:doctor_command",
        "Show versions and settings, and check the model, the memory and one refinement. Keys are never shown.",
        "reco doctor --json",
    ),
    Command(
        "embed",
        "embed:embed_command",
        "Embed texts and images, refined through the memory by default; one vector each, unit-norm.",
        "reco embed --text 'a red fox' --image fox.jpg --memory ./memory"
        "\n\nreco embed --input queries.txt --out vectors.npy",
    ),
    Command(
        "serve",
        "serve:serve_command",
        "Serve the embedding APIs of OpenAI and others, /v1/refine, the memory, health and metrics over HTTP.",
        "reco serve --memory ./memory --port 8080",
    ),
    Command(
        "eval",
        "evaluate:eval_command",
        "Measure what refinement changes on your pictures, by side and direction, and write the page.",
        "reco eval photos/test --memory ./memory\n\nChoose a policy and write a model: reco eval photos --tune",
    ),
    Command(
        "compare",
        "compare:compare_command",
        "Search an index by real queries, plain and refined, and say what to do. The index is only read.",
        "reco compare 'postgresql://host/shop?table=products&text=title' --memory ./memory --queries log.csv",
    ),
    Command(
        "memory build",
        "memory_fill:build_command",
        "Build a memory from a source; an interrupted build resumes when you run it again.",
        "reco memory build catalogue.csv --memory ./memory --swap"
        "\n\nA table has the columns id, image and text; every other column becomes payload. See docs/sources.md.",
    ),
    Command(
        "memory add",
        "memory_fill:add_command",
        "Encode pairs and store them; an id that exists is replaced if its row changed.",
        "reco memory add catalogue.csv --memory ./memory",
    ),
    Command(
        "memory sync",
        "memory_fill:sync_command",
        "Make the memory match the source: add, replace, and delete pairs that are gone from the source.",
        "reco memory sync catalogue.csv --as catalogue --dry-run",
    ),
    Command(
        "memory remove",
        "memory:remove_command",
        "Delete pairs by id; an id that no pair has is named in a warning. Needs no model.",
        "reco memory remove fox-1 fox-2 --memory ./memory",
    ),
    Command(
        "memory search",
        "memory:search_command",
        "Find the pairs nearest to a text or an image, as a query would retrieve them.",
        "reco memory search 'a red fox' --k 5\n\nreco memory search --image fox.jpg --where '{\"shop\": \"de\"}'",
    ),
    Command(
        "memory info",
        "memory:info_command",
        "Show where a memory is, how many pairs it holds, their encoder, and what was learned. Needs no model.",
        "reco memory info --memory ./memory --json",
    ),
    Command(
        "memory copy",
        "memory_copy:copy_command",
        "Copy a memory to another one or to a file, or back from a file: pairs, feedback, and what was learned.",
        "reco memory copy ./memory grpc://localhost:6334\n\nreco memory copy ./memory backup.parquet",
    ),
    Command(
        "memory versions",
        "memory_versions:versions_command",
        "List the versions of a memory, put one to use, or delete old ones. Needs no model.",
        "reco memory versions --use memory--v3 --memory ./memory",
    ),
    Command(
        "memory feedback",
        "memory:feedback_command",
        "List feedback on answers, oldest first, or give it: a pair that is wrong for a query no longer moves it.",
        "reco memory feedback --not wolf-17 --image fox.jpg --by ann --memory ./memory",
    ),
    Command(
        "model export",
        "model:export_command",
        "Export an open_clip model to a model folder: ONNX graphs, tokenizer, manifest, Triton configuration.",
        "reco model export --model ViT-B-32 --pretrained laion2b_s34b_b79k --out my_model",
    ),
    Command(
        "model add",
        "model:add_command",
        "Make a model folder of ready ONNX towers, as optimum and transformers.js write them. Needs no torch.",
        "reco model add Xenova/clip-vit-base-patch32 --out my_model",
    ),
    Command(
        "model train",
        "model:train_command",
        "Train the paper's layer on your pairs, around a frozen encoder, by the paper's loss.",
        "reco model train catalogue.csv --model ViT-B-32 --pretrained laion2b_s34b_b79k --out runs/x",
    ),
)


for _command in COMMANDS:
    _command.add_to(GROUPS[_command.words.rpartition(" ")[0]])
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
    """Options before the name of a command."""


def main() -> None:
    """Entry point of the ``reco`` script."""
    completion = sys.argv[1:2] in (["--install-completion"], ["--show-completion"])
    try:
        app(prog_name="reco" if completion else None)  # a shell completes a name, not `python -m reco_plugin`
    except KeyboardInterrupt:  # before any command runs
        sys.exit(130)
