"""A running `reco serve` that has the memory open: commands that change the memory go through it.

It is found by the note that it leaves in the memory's folder, or named by ``--service``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import Settings
from ..errors import ConfigError, FingerprintMismatch, MemoryLocked, RecoError, importing
from ..files import in_home
from ..memory import Memory, memory_of
from ..serve.note import answers, read_note
from ..types import Fingerprint

if TYPE_CHECKING:
    from ..client.memory import ServedMemory
    from ..reco import Reco

_CHANGES = (
    "which takes changes from its own user on its own machine, or with its admin key: give that as "
    "RECO_SERVE_ADMIN_KEY or --key-file (and start the service with one, if it has none), or stop the service"
)
SECOND = (
    "and such a folder is open once at a time: stop that service; "
    "several services share a Qdrant server: --memory grpc://localhost:6334"
)
"""What :func:`explain_lock` says to another service."""
READS = (
    "and such a folder is open once at a time: work with a copy, which that service gives meanwhile (reco memory copy "
    "MEMORY COPY, then --memory COPY), or stop the service"
)
"""The same to who only reads, and not through a service."""
TAKES = (
    "and such a folder is open once at a time: give it the pairs of a file (reco memory export FILE --memory SOURCE, "
    "then reco memory add FILE --memory MEMORY, which leaves what people said), or stop the service"
)
"""The same to who copies pairs into it."""
ServiceOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A running `reco serve`, whose memory is changed.",
        show_default="the one that has the folder open, if any",
    ),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the admin key of the service.", show_default="RECO_SERVE_ADMIN_KEY"),
]


@dataclass(frozen=True)
class ServiceOptions:
    """The service of a command."""

    service: ServiceOption = None
    key_file: KeyFileOption = None

    def check(self, memory: str | None) -> None:
        """Check that a command names one memory."""
        if self.service is not None and memory is not None:
            raise ConfigError(f"--service {self.service} and --memory {memory} both name the memory: give one of them")
        if self.service is not None and not self.service.startswith(("http://", "https://")):
            raise ConfigError(
                f"--service is the URL of a reco serve, as in http://localhost:8080, got {self.service!r}"
            )

    @property
    def key(self) -> str | None:
        """The admin key, of the file or of the setting."""
        if self.key_file is None:
            from ..serve.settings import load_serve_settings

            key = load_serve_settings().admin_key
            return key.get_secret_value() if key else None
        try:
            text = self.key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--key-file {self.key_file} cannot be read: {error}") from None
        if not text:
            raise ConfigError(f"--key-file {self.key_file} is empty: write the admin key into it")
        return text


def served_memory(settings: Settings, asked: ServiceOptions, fingerprint: Fingerprint | None) -> ServedMemory | None:
    """The memory behind the service that is named, or that has the folder of the settings open.

    Returns:
        None if no service answers for that folder: then a command opens it itself.
    """
    if asked.service is not None:
        return _open(asked.service, asked.key, None, fingerprint)
    if settings.memory == ":memory:" or "://" in settings.memory:
        return None
    note = read_note(folder := _folder(settings))
    if note is None:
        return None
    ways: list[dict[str, Any]] = [{"socket": note.socket}] if note.socket and answers(note.socket) else []
    if (key := asked.key) is not None:
        ways.append({"key": key})
    for way in ways:
        try:
            found = _open(note.url, way.get("key"), way.get("socket"), fingerprint, folder)
        except FingerprintMismatch:
            raise
        except RecoError:  # it is gone, or another one has its place; if it is there, the folder is locked
            continue
        if found.state.partition(".")[0] == note.name:
            return found
        found.close()
    return None


def open_here_or_served(settings: Settings, asked: ServiceOptions, fingerprint: Fingerprint | None) -> Memory:
    """An existing memory of the settings, through the service that has it open, if there is one."""
    if (served := served_memory(settings, asked, fingerprint)) is not None:
        return served
    try:
        return memory_of(settings, fingerprint, create=False)
    except MemoryLocked as error:
        raise explain_lock(error, settings) from error


def served_reco(settings: Settings, asked: ServiceOptions) -> Reco | None:
    """The model of the settings with the memory behind a service; None and errors as in :func:`served_memory`."""
    from ..api_encoder import load_model

    store = served_memory(settings, asked, load_model(settings.model).manifest.fingerprint)
    if store is None:
        return None
    from ..client.memory import ServedPairs
    from ..reco import Reco

    return Reco.of(settings, pairs_of=lambda encoder: ServedPairs(store, encoder))


def explain_lock(error: MemoryLocked, settings: Settings, way: str = _CHANGES) -> MemoryLocked:
    """The error for a folder that is open elsewhere, with the way on if that is a service."""
    note = None if "://" in settings.memory else read_note(_folder(settings))
    if note is None:
        return error
    process = f", process {note.process}," if note.process is not None else ""
    return MemoryLocked(f"the memory at {settings.memory!r} is open in the service at {note.url}{process} {way}")


@contextmanager
def explained_lock(settings: Settings, way: str) -> Iterator[None]:
    """Raise the error for a folder that is open elsewhere as :func:`explain_lock` has it."""
    try:
        yield
    except MemoryLocked as error:
        raise explain_lock(error, settings, way) from error


def _folder(settings: Settings) -> str:
    """The folder that the memory's name stands for now, through a link."""
    return os.path.realpath(in_home(settings.memory))


def _open(
    url: str, key: str | None, socket: str | None, fingerprint: Fingerprint | None, folder: str | None = None
) -> ServedMemory:
    with importing("httpx", "client", "a memory behind a service"):
        import httpx
    from ..client import Client
    from ..client.memory import PATIENCE, TIMEOUT_S, ServedMemory

    way: dict[str, Any] = {} if socket is None else {"transport": httpx.HTTPTransport(uds=socket)}
    base = url if socket is None else "http://localhost"
    client = Client(base, admin_key=key, timeout_s=TIMEOUT_S, retries=PATIENCE, **way)
    client.url = url  # for messages
    try:
        return ServedMemory.open(client, fingerprint, folder)
    except BaseException:
        client.close()
        raise
