"""Shared by the commands: options, opening a memory without a model, progress, and printing results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..config import Settings, load_settings
from ..errors import ConfigError, MemoryStoreError
from ..memory import Memory, memory_of
from ..memory.header import HEADER_NAME
from ..memory.opening import server_of
from ..types import Fingerprint, Records
from ..values import nearest
from .service import ServiceOptions, open_here_or_served

if TYPE_CHECKING:
    from ..memory.server import Server

T = TypeVar("T", int, Records)

ModelOption = Annotated[
    Path | None,
    typer.Option(
        help="Model folder made by `reco export`.",
        show_default="RECO_MODEL or ./triton_models, else the quickstart model",
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(help="Memory: a folder, or the URL of a Qdrant server.", show_default="RECO_MEMORY or ./memory"),
]
CollectionOption = Annotated[
    str | None, typer.Option(help="Collection of a Qdrant server.", show_default="RECO_MEMORY_COLLECTION or reco")
]
OptionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Option of the memory, as in shards=6 or quantization=scalar; repeat it. See docs/memory.md.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]

_DEFAULT_MEMORY = "./memory"


@dataclass(frozen=True)
class OpenOptions:
    """The model and memory of a command; None leaves them to the settings."""

    model: ModelOption = None
    memory: MemoryOption = None


@dataclass(frozen=True)
class Target(OpenOptions):
    """A memory to fill, and the model that encodes its pairs."""

    collection: CollectionOption = None
    option: OptionOption = None


def memory_location(given: str | None) -> str:
    """The memory of a command: its option, then the settings, then ``./memory``.

    The library's own default, a memory in RAM, would be lost at the end of the command.
    """
    settings = load_settings(memory=given)
    return settings.memory if "memory" in settings.model_fields_set else _DEFAULT_MEMORY


def existing_memory(given: str | None) -> str:
    """The same for a command that only reads: creating an empty memory would hide a mistyped name."""
    location = memory_location(given)
    if _is_missing(location):
        raise MemoryStoreError(
            f"there is no memory at {location!r}{_beside(location)}. Check the location, or make one: "
            "reco memory add --help"
        )
    return location


def served_memory(given: str | None) -> str:
    """The memory of a service: one that is named must be there, or at least its folder; ``./memory`` is made.

    A mistyped name would be served, empty and ready.
    """
    location = memory_location(given)
    if "memory" in load_settings(memory=given).model_fields_set and _is_missing(location):
        raise MemoryStoreError(
            f"there is no memory at {location!r}{_beside(location)}. Check the location; build one: reco memory build "
            f"SOURCE --memory {location}; or make its folder, to begin with an empty one: mkdir {location}"
        )
    return location


def _is_missing(location: str) -> bool:
    return location != ":memory:" and "://" not in location and not Path(location).expanduser().exists()


def _beside(location: str) -> str:
    """A memory of a similar name in the same folder, whose name may have been meant; empty if there is none."""
    folder = Path(location).expanduser()
    others = sorted(header.parent.name for header in folder.parent.glob(f"*/{HEADER_NAME}"))
    near = nearest(folder.name, others)
    return f" (did you mean {str(Path(location).with_name(near[0]))!r}?)" if near else ""


def memory_settings(
    memory: str | None = None, collection: str | None = None, options: list[str] | None = None
) -> Settings:
    """The settings with a command's options of its memory.

    Raises:
        ConfigError: an unknown option, or an invalid value.
    """
    return load_settings(
        memory=memory_location(memory), memory_collection=collection, memory_options=parse_options(options)
    )


def parse_options(options: list[str] | None) -> dict[str, str] | None:
    """``NAME=VALUE`` of the command line; these override the environment and the file.

    Raises:
        ConfigError: no equals sign.
    """
    for option in options or ():
        if "=" not in option:
            raise ConfigError(f"--option is NAME=VALUE, as in shards=6, got {option!r}")
    return dict(option.split("=", 1) for option in options) if options else None


def open_store(memory: str | None, collection: str | None = None) -> Memory:
    """The memory of any encoder, without a model; it must exist. One that a service has open is read through it."""
    return open_here_or_served(memory_settings(memory, collection), ServiceOptions(), None)


def open_copy(settings: Settings, fingerprint: Fingerprint) -> Memory:
    """The memory to copy pairs of this encoder to, made if there is none; a kind in the settings is the source's."""
    return memory_of(settings.model_copy(update={"memory_kind": "auto"}), fingerprint)


def open_server(settings: Settings) -> Server:
    """The Qdrant server of the settings.

    Raises:
        ConfigError: the memory is no URL.
        MissingExtra: qdrant-client is not installed.
    """
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
            bar.update(batch if isinstance(batch, int) else len(batch))


def say(result: Any, text: str, as_json: bool) -> None:
    """Print a result as JSON, or as text."""
    typer.echo(json.dumps(result, ensure_ascii=False, indent=2) if as_json else text)
