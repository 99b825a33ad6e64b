"""What the commands on a memory have in common: opening it without a model, its options, and how results are told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .options import OpenOptions, memory_location

if TYPE_CHECKING:
    from ..config import Settings
    from ..memory import Memory
    from ..memory.server import Server
    from ..types import Records

T = TypeVar("T")

OptionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Option of the memory, as in shards=6 or quantization=scalar; repeat it. See docs/memory.md.",
    ),
]
CollectionOption = Annotated[
    str | None, typer.Option(help="Collection of a Qdrant server.", show_default="RECO_MEMORY_COLLECTION or reco")
]


@dataclass(frozen=True)
class Target(OpenOptions):
    """A memory that is filled, and the model that encodes what goes in."""

    collection: CollectionOption = None
    option: OptionOption = None


def memory_settings(
    memory: str | None = None, collection: str | None = None, options: list[str] | None = None
) -> Settings:
    """The settings with what a command was told about its memory.

    Raises:
        ConfigError: an unknown option, or a value that it cannot have.
    """
    from ..config import load_settings

    return load_settings(
        memory=memory_location(memory), memory_collection=collection, memory_options=parse_options(options)
    )


def parse_options(options: list[str] | None) -> dict[str, str] | None:
    """``NAME=VALUE`` of the command line; they win over the environment and the file, the others stay.

    Raises:
        ConfigError: no equals sign.
    """
    from ..errors import ConfigError

    for option in options or ():
        if "=" not in option:
            raise ConfigError(f"--option is NAME=VALUE, as in shards=6, got {option!r}")
    return dict(option.split("=", 1) for option in options) if options else None


def open_store(memory: str | None, collection: str | None = None) -> Memory:
    """The memory alone, whichever encoder made it; it must exist."""
    from ..memory import memory_of

    return memory_of(memory_settings(memory, collection), None, create=False)


def open_server(settings: Settings) -> Server:
    """The Qdrant server of the settings.

    Raises:
        ConfigError: the memory is no URL.
        MissingExtra: qdrant-client is not installed.
    """
    from ..errors import ConfigError
    from ..memory.opening import server_of

    if "://" not in settings.memory:
        raise ConfigError(
            f"attached collections need a Qdrant server, not {settings.memory!r}: give its URL, as in "
            "--memory grpc://localhost:6334"
        )
    return server_of(settings)


def shown(batches: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """The same batches with a progress bar on stderr, which counts pairs."""
    from ..progress import progress_bar

    with progress_bar(total=total, desc=what, unit="pair") as bar:
        for batch in batches:
            yield batch
            bar.update(batch if isinstance(batch, int) else _length(batch))


def say(result: Any, text: str, as_json: bool) -> None:
    """Print a result as JSON, or as text."""
    typer.echo(json.dumps(result, ensure_ascii=False, indent=2) if as_json else text)


def _length(batch: Any) -> int:
    records: Records = batch
    return len(records)
