"""What commands share: flags of dataclasses, errors in a line, settings, progress.

A running `reco serve` that has the memory open is found by the note that it leaves in the memory's folder: commands
that change the memory go through it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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
from pydantic import BaseModel, SecretStr
from pydantic_settings import BaseSettings
from typer.models import OptionInfo

from ..errors import DataError, FingerprintMismatch, MemoryLocked, MemoryStoreError, RecoError
from ..files import in_home
from ..memory import Memory, memory_of
from ..options import options_of
from ..serve.note import read_note
from ..settings import Settings, load_settings, said_of
from ..types import Fingerprint, Records

if TYPE_CHECKING:
    from ..client.served_memory import ServedMemory
    from ..reco import Reco


@contextmanager
def keeps(what: str) -> Iterator[None]:
    """Make Ctrl-C inside the block say what is kept, and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(what) from None


Given: TypeAlias = dict[str, Any]
"""Name of a field -> value, of the flags that were given."""
T = TypeVar("T")


def takes(*kinds: type, but: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with a parameter ``given``: on the command line, the flags of these classes replace it.

    Args:
        kinds: dataclasses, pydantic models or records of options; if several have a name, the first one's flag counts.
        but: names of fields that are not flags of this command.
    """
    flags: dict[str, Parameter] = {}
    for flag in (flag for kind in kinds for flag in flags_of(kind) if flag.name not in but):
        flags.setdefault(flag.name, flag)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = signature(command, eval_str=True).parameters.values()
        parameters = [shown for one in own for shown in (flags.values() if one.name == "given" else [one])]

        @wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in flags}
            command(given={name: value for name, value in given.items() if value not in (None, [], ())}, **values)

        run.__signature__ = signature(run).replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def take_flags(kind: type[T], given: Given) -> T:
    """An object of this class, made from its flags, which are removed from ``given``."""
    return kind(**{name: given.pop(name) for name, *_ in _fields(kind) if name in given})


def flags_of(kind: type) -> Iterator[Parameter]:
    """The parameters that typer turns into flags; one that is not given is None, so the field's default applies."""
    for name, annotation, default, said in _fields(kind):
        if any(isinstance(each, OptionInfo) for each in get_args(annotation)[1:]):
            yield Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        elif said.get("description") and SecretStr not in _parts(annotation):
            yield _flag(name, annotation, default, dict(said))


def _fields(kind: Any) -> Iterator[tuple[str, Any, Any, Mapping[str, Any]]]:
    """Name, annotation, default and extras of each field; :data:`Parameter.empty` without a default."""
    if is_typeddict(kind):
        for name, (hint, option) in options_of(kind).items():
            said = {"min": option.min, "unset": option.unset}
            shown = {"description": option.description if option.unset else None}
            yield name, hint, None, shown | {word: value for word, value in said.items() if value is not None}
    elif issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            bounds = {} if issubclass(kind, BaseSettings) else _bounds(field.metadata)  # settings check their own
            default = Parameter.empty if field.is_required() else field.get_default()
            yield name, field.annotation, default, {"description": field.description, **bounds, **said_of(field)}
    else:
        hints = get_type_hints(kind, include_extras=True)
        for each in dataclasses.fields(kind):
            default = Parameter.empty if each.default is dataclasses.MISSING else each.default
            yield each.name, hints[each.name], default, {}


def _bounds(metadata: Collection[Any]) -> dict[str, Any]:
    return {
        name: getattr(each, word)
        for name, word in (("min", "ge"), ("max", "le"))
        for each in metadata
        if hasattr(each, word)
    }


def _flag(name: str, kind: Any, default: Any, said: dict[str, Any]) -> Parameter:
    flag = said.pop("flag", None)
    if flag is None:
        flag = f"--{name.replace('_', '-')}"
        flag = f"{flag}/--no-{flag[2:]}" if bool in _parts(kind) else flag
    shown = said.pop("unset", _show_default(default)) or False
    if repeated := [each for each in (kind, *get_args(kind)) if get_origin(each) in (list, tuple, dict)]:
        kind, said = list[get_args(repeated[0])[0]], {"metavar": "VALUE"} | said  # type: ignore[misc]
    option = typer.Option(flag, help=said.pop("description"), show_default=shown, **said)
    if default is Parameter.empty:
        return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, option])
    kind = kind if NoneType in get_args(kind) else kind | None
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, option], default=None)


def _show_default(default: Any) -> str:
    if isinstance(default, dict):
        return ", ".join(f"{key}={value}" for key, value in default.items())
    if isinstance(default, list):
        return "none"
    return "" if default in (None, (), Parameter.empty) else str(default)


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
    """Keep stdout for :func:`print_result` alone, as callback of every ``--json``: libraries print to stderr then."""
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
DEFAULT_MEMORY = "./memory"


def _names_memory(settings: Settings) -> bool:
    """Whether a flag, the environment or ``reco.toml`` names a memory."""
    return "memory" in settings.model_fields_set


@dataclass(frozen=True)
class MemoryFlags:
    """The memory of a command; None leaves it to the settings."""

    memory: MemoryOption = None

    @property
    def settings(self) -> Settings:
        """All settings with these flags; ``./memory`` where no memory is named.

        The library's own default, a memory in RAM, would be lost at the end of the command.
        """
        found = self._loaded
        return found if _names_memory(found) else found.model_copy(update={"memory": DEFAULT_MEMORY})

    @property
    def _loaded(self) -> Settings:
        return load_settings(memory=self.memory)

    @property
    def existing(self) -> Settings:
        """The same for a command that only reads: an empty memory in place of a mistyped name would hide the mistake.

        Raises:
            MemoryStoreError: there is no such folder.
        """
        settings = self.settings
        if (location := settings.memory) != ":memory:" and "://" not in location and not in_home(location).exists():
            raise MemoryStoreError(
                f"there is no memory at {location!r}. Check the location; build one: reco memory "
                f"build SOURCE --memory {location} (to sync into a new one, give --create); or make its folder, to "
                f"begin with an empty one: mkdir {location}"
            )
        return settings

    @property
    def served(self) -> Settings:
        """The same for a service, which makes ``./memory`` where no memory is named; errors as above."""
        return self.existing if _names_memory(self._loaded) else self.settings

    def open(self) -> Memory:
        """The memory of any encoder, without a model; it must exist. One that a service has open is read through it."""
        return open_here_or_served(self.settings, None)


@dataclass(frozen=True)
class OpenOptions(MemoryFlags):
    """The model and memory of a command; None leaves them to the settings."""

    model: ModelOption = None

    @property
    def _loaded(self) -> Settings:
        return load_settings(memory=self.memory, model=self.model)


def served_memory(settings: Settings, fingerprint: Fingerprint | None) -> ServedMemory | None:
    """The memory behind the service that has the folder of the settings open.

    Returns:
        None if no service answers for that folder: then a command opens it itself.
    """
    if settings.memory == ":memory:" or "://" in settings.memory:
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
        return None  # it is gone, or another one has its place; if it is there, the folder is locked


def open_here_or_served(settings: Settings, fingerprint: Fingerprint | None) -> Memory:
    """An existing memory of the settings, through the service that has it open, if there is one."""
    if (served := served_memory(settings, fingerprint)) is not None:
        return served
    with explained_lock(settings):
        return memory_of(settings, fingerprint, create=False)


@contextmanager
def explained_lock(settings: Settings) -> Iterator[None]:
    """Say which service has a folder open, where one has, and the ways on."""
    try:
        yield
    except MemoryLocked as error:
        note = None if "://" in settings.memory else read_note(_folder(settings))
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
    """The folder that the memory's name stands for now, through a link."""
    return os.path.realpath(in_home(settings.memory))


def reco_of(settings: Settings, **more: Any) -> Reco:
    """The model and memory of these settings, and of others by name; errors say which service has the folder open."""
    from ..reco import Reco, tell_fallback

    chosen = settings.model_copy(update=more)
    with explained_lock(chosen):
        reco = Reco.of(chosen)
    tell_fallback(chosen)
    return reco


def reco_here_or_served(settings: Settings) -> Reco:
    """The same to change the memory, too: through the service that has it open, if there is one."""
    from ..client.served_memory import ServedPairs
    from ..encoders.remote import load_model
    from ..reco import Reco, tell_fallback

    store = served_memory(settings, load_model(settings.model).manifest.fingerprint)
    if store is None:
        return reco_of(settings, on_memory_failure="fail")
    reco = Reco.of(settings, pairs_of=lambda encoder: ServedPairs(store, encoder))
    tell_fallback(settings)
    return reco


def with_progress(batches: Iterable[Records], total: int | None, what: str) -> Iterator[Records]:
    """The same batches with a progress bar on stderr that counts pairs."""
    from ..progress import progress_bar

    with progress_bar(total=total, desc=what, unit="pair") as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def say(result: Any, text: str, as_json: bool) -> None:
    """Print a result as JSON, or as text."""
    print_result(json.dumps(result, ensure_ascii=False, indent=2) if as_json else text)


def print_result(text: str) -> None:
    """Print to stdout, also where ``--json`` keeps it for results, with the control characters spelled out.

    Raises:
        DataError: it cannot be written, as to a full disk.
    """
    try:
        typer.echo("\n".join(map(on_one_line, text.split("\n"))), file=_STDOUT.get())
    except BrokenPipeError:  # whoever read it has enough, as `head`
        raise
    except OSError as error:
        raise DataError(f"the result cannot be written to standard output: {error.strerror or error}") from None


def on_one_line(text: str) -> str:
    """A text with its line breaks and control characters, but tabs, spelled out as in JSON.

    Captions, ids and payloads are of others, who could move the cursor or write to the terminal's title.
    """
    return _CONTROLS.sub(lambda found: json.dumps(found[0])[1:-1], text)
