"""Shared by the commands on a memory: opening it without a model, its options, and printing results."""

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
    """A memory to fill, and the model that encodes its pairs."""

    collection: CollectionOption = None
    option: OptionOption = None


def memory_settings(
    memory: str | None = None, collection: str | None = None, options: list[str] | None = None
) -> Settings:
    """The settings with a command's options of its memory.

    Raises:
        ConfigError: an unknown option, or an invalid value.
    """
    from ..config import load_settings

    return load_settings(
        memory=memory_location(memory), memory_collection=collection, memory_options=parse_options(options)
    )


def parse_options(options: list[str] | None) -> dict[str, str] | None:
    """``NAME=VALUE`` of the command line; these override the environment and the file.

    Raises:
        ConfigError: no equals sign.
    """
    from ..errors import ConfigError

    for option in options or ():
        if "=" not in option:
            raise ConfigError(f"--option is NAME=VALUE, as in shards=6, got {option!r}")
    return dict(option.split("=", 1) for option in options) if options else None


def open_store(memory: str | None, collection: str | None = None) -> Memory:
    """The memory of any encoder, without a model; it must exist."""
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


def with_progress(batches: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """The same batches with a progress bar on stderr that counts pairs."""
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
