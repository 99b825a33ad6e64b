"""Shared by the commands: options, opening a memory without a model, progress, and printing results."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar

import typer

from ..config import Settings, load_settings, split_address
from ..defaults import COLLECTION
from ..errors import ConfigError, MemoryStoreError
from ..memory import Memory, memory_of
from ..memory.header import HEADER_NAME
from ..memory.opening import server_of
from ..types import Fingerprint, Records
from ..values import nearest
from .service import ServiceOptions, open_here_or_served

if TYPE_CHECKING:
    from ..memory.server import Server
    from ..reco import Reco

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
    typer.Option(
        help="Memory: a folder, or the URL of a Qdrant server, as in 'grpc://host:6334?collection=shop&search_ef=128'.",
        show_default="RECO_MEMORY or ./memory",
    ),
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


_STDOUT: ContextVar[TextIO | None] = ContextVar("stdout", default=None)


def claim_stdout(wanted: bool) -> bool:
    """Keep stdout for :func:`print_result` alone, as callback of every ``--json``, to the end of the process.

    What libraries print, and what they and their processes write to file descriptor 1, goes to stderr.
    """
    _STDOUT.set(None)
    if wanted:
        results = sys.stdout
        try:
            descriptor = results.fileno()
        except OSError:  # a stream of Python's, as in tests
            _STDOUT.set(results)
        else:
            results.flush()
            _STDOUT.set(open(os.dup(descriptor), "w", encoding=results.encoding, errors=results.errors))  # noqa: SIM115, PTH123
            os.dup2(sys.stderr.fileno(), descriptor)
        sys.stdout = sys.stderr
    return wanted


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.", callback=claim_stdout)
]

DEFAULT_MEMORY = "./memory"


@dataclass(frozen=True)
class MemoryFlags:
    """The memory of a command; None leaves it to the settings."""

    memory: MemoryOption = None
    collection: CollectionOption = None
    option: OptionOption = None

    @property
    def settings(self) -> Settings:
        """All settings with this memory; ``./memory`` where none is named.

        The library's own default, a memory in RAM, would be lost at the end of the command.

        Raises:
            ConfigError: an unknown option, or an invalid value.
        """
        given = {"memory_collection": self.collection, "memory_options": parse_options(self.option)}
        found = load_settings(memory=self.memory, **given)
        return found if "memory" in found.model_fields_set else load_settings(memory=DEFAULT_MEMORY, **given)

    @property
    def existing(self) -> Settings:
        """The same for a command that only reads: creating an empty memory would hide a mistyped name.

        Raises:
            MemoryStoreError: there is no such folder.
        """
        settings = self.settings
        if _is_missing(location := settings.memory):
            raise MemoryStoreError(
                f"there is no memory at {location!r}{_beside(location)}. Check the location, or make one: "
                "reco memory add --help"
            )
        return settings

    @property
    def served(self) -> Settings:
        """The same for a service: a memory that is named must be there, or at least its folder; ``./memory`` is made.

        A mistyped name would be served, empty and ready.

        Raises:
            MemoryStoreError: there is no such folder.
        """
        settings = self.settings
        named = "memory" in load_settings(memory=self.memory).model_fields_set
        if named and _is_missing(location := settings.memory):
            raise MemoryStoreError(
                f"there is no memory at {location!r}{_beside(location)}. Check the location; build one: reco memory "
                f"build SOURCE --memory {location}; or make its folder, to begin with an empty one: mkdir {location}"
            )
        return settings

    @property
    def address(self) -> str | None:
        """The memory with its collection and options as one text; None where no flag was given."""
        options = (parse_options(self.option) or {}) | ({"collection": self.collection} if self.collection else {})
        if not options:
            return self.memory
        place, before = split_address(self.memory or self.settings.memory)
        said = "&".join(f"{name}={value}" for name, value in (before | options).items())
        return f"{place}?{said}"

    def open(self) -> Memory:
        """The memory of any encoder, without a model; it must exist. One that a service has open is read through it."""
        return open_here_or_served(self.settings, ServiceOptions(), None)


@dataclass(frozen=True)
class OpenOptions(MemoryFlags):
    """The model and memory of a command; None leaves them to the settings."""

    model: ModelOption = None


def _is_missing(location: str) -> bool:
    return location != ":memory:" and "://" not in location and not Path(location).expanduser().exists()


def _beside(location: str) -> str:
    """A memory of a similar name in the same folder, whose name may have been meant; empty if there is none."""
    folder = Path(location).expanduser()
    others = sorted(header.parent.name for header in folder.parent.glob(f"*/{HEADER_NAME}"))
    near = nearest(folder.name, others)
    return f" (did you mean {str(Path(location).with_name(near[0]))!r}?)" if near else ""


def reco_of(model: Path | None, settings: Settings, **more: Any) -> Reco:
    """The model with the memory of these settings, and other settings by name."""
    from ..reco import Reco

    place: dict[str, Any] = {name: getattr(settings, name) for name in ("memory_collection", "memory_options")}
    return Reco.open(model, settings.memory, **(place | more))


def spell(settings: Settings) -> str:
    """The memory as a flag to paste."""
    named = settings.memory_collection != COLLECTION and "://" in settings.memory
    return f"--memory {settings.memory}" + (f" --collection {settings.memory_collection}" if named else "")


def parse_options(options: list[str] | None) -> dict[str, str] | None:
    """``NAME=VALUE`` of the command line; these override the environment and the file.

    Raises:
        ConfigError: no equals sign.
    """
    for option in options or ():
        if "=" not in option:
            raise ConfigError(f"--option is NAME=VALUE, as in shards=6, got {option!r}")
    return dict(option.split("=", 1) for option in options) if options else None


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
    print_result(json.dumps(result, ensure_ascii=False, indent=2) if as_json else text)


def print_result(text: str) -> None:
    """Print to stdout, also where ``--json`` keeps it for results."""
    typer.echo(text, file=_STDOUT.get())
