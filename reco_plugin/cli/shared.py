"""Shared parts of commands: flags made of classes of options, model and memory of a command, progress and output.

While a `reco serve` has a memory's folder open, commands reach the memory through that service; a note in the folder
names it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    TextIO,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings
from typer.models import OptionInfo

from ..errors import DataError, FingerprintMismatch, MemoryLocked, MemoryStoreError, RecoError
from ..files import in_home
from ..memory import Memory, memory_of
from ..options import options_of
from ..serve.note import read_note
from ..settings import CommandOptions, Settings, flag_options, load_settings
from ..types import Fingerprint, Records
from ..values import counted

if TYPE_CHECKING:
    from ..client.served_memory import ServedMemory
    from ..memory import Header
    from ..reco import Reco


@contextmanager
def keeps(what: str) -> Iterator[None]:
    """Let Ctrl-C inside the block print what is kept, and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(what) from None


Given: TypeAlias = dict[str, Any]
"""Name of a field -> value, for the flags that the user gave."""
T = TypeVar("T")


_BOUNDS = {"ge": "min", "le": "max"}


def takes(*kinds: type, but: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter ``given`` by the flags of classes of options.

    Args:
        kinds: dataclasses, pydantic models or TypedDicts; if several have a name, the flag of the first one counts.
        but: names of fields that are not flags of this command.
    """
    flags: dict[str, Parameter] = {}
    for flag in (flag for kind in kinds for flag in flags_of(kind) if flag.name not in but):
        flags.setdefault(flag.name, flag)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters: list[Parameter] = []
        for parameter in signature(command, eval_str=True).parameters.values():
            parameters += flags.values() if parameter.name == "given" else [parameter]

        @wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in flags}
            command(given={name: value for name, value in given.items() if value not in (None, [], ())}, **values)

        run.__signature__ = signature(run).replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def take_flags(kind: type[T], given: Given) -> T:
    """Make an object of a class from its flags, and remove them from ``given``."""
    return kind(**{name: given.pop(name) for name in signature(kind).parameters if name in given})


def flags_of(kind: Any) -> Iterator[Parameter]:
    """Parameters for typer: the flags of a dataclass of typer options, or of the fields with a description.

    The latter are None if they are not given.
    """
    if is_typeddict(kind):
        for name, (hint, option) in options_of(kind).items():
            if option.unset:
                yield _flag(name, hint, help=option.description, show_default=option.unset, min=option.min)
    elif issubclass(kind, CommandOptions | BaseSettings):
        for name, field in kind.model_fields.items():
            if field.description and SecretStr not in _parts(field.annotation):
                options = {"help": field.description, **flag_options(field)}
                if issubclass(kind, CommandOptions):  # settings check their bounds themselves
                    options |= {
                        bound: getattr(each, word)
                        for word, bound in _BOUNDS.items()
                        for each in field.metadata
                        if hasattr(each, word)
                    }
                default = None if field.is_required() else field.get_default()
                options["show_default"] = options.pop("unset", None) or _show_default(default)
                yield _flag(name, field.annotation, is_required=field.is_required(), **options)
    else:
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if any(isinstance(part, OptionInfo) for part in get_args(hint)[1:]):
                yield signature(kind).parameters[name].replace(annotation=hint, kind=Parameter.KEYWORD_ONLY)


def _flag(name: str, kind: Any, *, flag: str | None = None, is_required: bool = False, **options: Any) -> Parameter:
    if flag is None:
        flag = f"--{name.replace('_', '-')}"
        flag = f"{flag}/--no-{flag[2:]}" if bool in _parts(kind) else flag
    if repeated := [each for each in (kind, *get_args(kind)) if get_origin(each) in (list, tuple, dict)]:
        kind, options = list[get_args(repeated[0])[0]], {"metavar": "VALUE"} | options  # type: ignore[misc]
    kind = kind if is_required or NoneType in get_args(kind) else kind | None
    hint: Any = Annotated[kind, typer.Option(flag, **options)]
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=hint, default=Parameter.empty if is_required else None)


def _show_default(default: Any) -> str | bool:
    if isinstance(default, dict):
        return ", ".join(f"{key}={value}" for key, value in default.items()) or False
    if isinstance(default, list):
        return "none"
    return False if default in (None, ()) else str(default)


def _parts(annotation: Any) -> set[Any]:
    """A type and all its parts."""
    return {annotation}.union(*map(_parts, get_args(annotation)))


ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|URL",
        help="The model folder, as `reco model export` and `reco model add` write it; the address of an API; or "
        "quickstart.",
        show_default="RECO_MODEL or ./triton_models, else the quickstart model",
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="MEMORY",
        help="The memory: a folder, or the URL of a Qdrant server with its collection and options, as in "
        "'grpc://host:6334?collection=shop&search_ef=64'.",
        show_default="RECO_MEMORY or ./memory",
    ),
]


_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_STDOUT: ContextVar[TextIO | None] = ContextVar("stdout", default=None)


def claim_stdout(wanted: bool) -> bool:
    """Reserve stdout for :func:`print_result`, as callback of ``--json``; what libraries print goes to stderr."""
    _STDOUT.set(sys.stdout if wanted else None)
    if wanted:
        sys.stdout = sys.stderr
    return wanted


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.", callback=claim_stdout)
]

AllowPrivateUrls = Annotated[
    bool, typer.Option("--allow-private-urls", help="Also fetch pictures from private addresses.")
]
KOption = Annotated[int, typer.Option("--k", metavar="N", min=1, help="Return this many results.")]


def is_server(settings: Settings) -> bool:
    """Whether the memory is on a Qdrant server."""
    return "://" in settings.memory


@dataclass(frozen=True)
class MemoryFlags:
    """The memory of a command; None takes that of the settings."""

    memory: MemoryOption = None

    @property
    def settings(self) -> Settings:
        """All settings with these flags; the default memory is ``./memory``, since RAM ends with the command."""
        settings = self._loaded
        if "memory" in settings.model_fields_set:
            return settings
        return settings.model_copy(update={"memory": "./memory"})

    @property
    def _loaded(self) -> Settings:
        return load_settings(memory=self.memory)

    @property
    def existing(self) -> Settings:
        """All settings with these flags, for a command that must not create the memory.

        Raises:
            MemoryStoreError: the memory's folder does not exist.
        """
        settings = self.settings
        if (location := settings.memory) != ":memory:" and not is_server(settings) and not in_home(location).exists():
            raise MemoryStoreError(
                f"there is no memory at {location!r}. Check the location; build one: reco memory "
                f"build SOURCE --memory {location} (to sync into a new one, give --create); or make its folder, to "
                f"begin with an empty one: mkdir {location}"
            )
        return settings

    @property
    def served(self) -> Settings:
        """All settings with these flags, for a service, which creates the default memory only; errors as above."""
        return self.existing if "memory" in self._loaded.model_fields_set else self.settings

    def open(self) -> Memory:
        """Open the existing memory of any encoder, without a model, or through the service that has it open."""
        return open_here_or_served(self.settings, None)


@dataclass(frozen=True)
class OpenOptions(MemoryFlags):
    """The model and memory of a command; None takes those of the settings."""

    model: ModelOption = None

    @property
    def _loaded(self) -> Settings:
        return load_settings(memory=self.memory, model=self.model)


def served_memory(settings: Settings, fingerprint: Fingerprint | None) -> ServedMemory | None:
    """Connect to the service that has the memory's folder open; None if no service answers for that folder."""
    if settings.memory == ":memory:" or is_server(settings):
        return None
    note = read_note(folder := _folder(settings))
    if note is None:
        return None
    from ..client import Client
    from ..client.served_memory import PATIENCE, TIMEOUT_S, ServedMemory

    client = Client(note.url, admin_key=note.token, timeout_s=TIMEOUT_S, retries=PATIENCE)
    try:
        return ServedMemory(client, fingerprint, folder)
    except RecoError as error:
        client.close()
        if isinstance(error, FingerprintMismatch):
            raise
        return None  # the service is gone, or another one has its port; if it runs, the folder is locked


def open_here_or_served(settings: Settings, fingerprint: Fingerprint | None) -> Memory:
    """Open an existing memory, through the service that has it open if there is one."""
    if (served := served_memory(settings, fingerprint)) is not None:
        return served
    with explained_lock(settings):
        return memory_of(settings, fingerprint, create=False)


@contextmanager
def explained_lock(settings: Settings) -> Iterator[None]:
    """Explain a locked folder: which service has it open, and what to do."""
    try:
        yield
    except MemoryLocked as error:
        note = None if is_server(settings) else read_note(_folder(settings))
        if note is None:
            raise
        process = "" if note.process is None else f", process {note.process}"
        raise MemoryLocked(
            f"the memory at {settings.memory!r} is open in the service at {note.url}{process}, and such a folder is "
            "open once at a time. Commands that change it reach the service if its own user runs them on its machine; "
            "for others, work with a copy (reco memory copy MEMORY COPY) or stop the service. "
            "Several services share a Qdrant server: --memory grpc://localhost:6334"
        ) from error


def _folder(settings: Settings) -> str:
    """The memory's folder, with links resolved."""
    return os.path.realpath(in_home(settings.memory))


def reco_of(settings: Settings, **replaced: Any) -> Reco:
    """Open the model and memory of settings, some replaced; an error names the service that locks the folder."""
    from ..reco import Reco, tell_fallback

    chosen = settings.model_copy(update=replaced)
    with explained_lock(chosen):
        reco = Reco.of(chosen)
    tell_fallback(chosen)
    return reco


def reco_here_or_served(settings: Settings) -> Reco:
    """Open the model and memory to change the memory, through the service that has it open if there is one."""
    from ..encoders.remote import load_model

    store = served_memory(settings, load_model(settings.model).manifest.fingerprint)
    if store is None:
        return reco_of(settings, on_memory_failure="fail")
    from ..client.served_memory import ServedPairs
    from ..reco import Reco, tell_fallback

    reco = Reco.of(settings, pairs_of=lambda encoder: ServedPairs(store, encoder))
    tell_fallback(settings)
    return reco


def with_progress(batches: Iterable[Records], total: int | None, what: str) -> Iterator[Records]:
    """Show a progress bar on stderr that counts the pairs of batches."""
    from ..progress import progress_bar

    with progress_bar(total=total, desc=what, unit="pair") as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def say(result: Any, text: str, as_json: bool) -> None:
    """Print a result, as JSON or as text."""
    print_result(json.dumps(result, ensure_ascii=False, indent=2) if as_json else text)


def print_result(text: str) -> None:
    """Print a result to stdout, with control characters escaped.

    Raises:
        DataError: the output cannot be written, for example to a full disk.
    """
    try:
        typer.echo("\n".join(map(on_one_line, text.split("\n"))), file=_STDOUT.get())
    except BrokenPipeError:  # the reader stopped, as `head` does
        raise
    except OSError as error:
        raise DataError(f"the result cannot be written to standard output: {error.strerror or error}") from None


def on_one_line(text: str) -> str:
    """Escape line breaks and control characters except tabs, which could control the terminal."""
    return _CONTROLS.sub(lambda match: json.dumps(match[0])[1:-1], text)


def calibration_lines(header: Header, pairs: int) -> list[str]:
    """From how many pairs a memory of ``pairs`` pairs has learned; empty if it has not."""
    if not (learned := header.calibration.get("pairs", 0)):
        return []
    lines = [f"calibrated on {counted(learned, 'pair')}"]
    if not learned / 2 < pairs < learned * 2:
        lines.append(f"and {pairs:,} are there now: run reco memory build --relearn")
    return lines
