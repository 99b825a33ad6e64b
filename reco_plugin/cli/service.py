"""A running `reco serve` that has the memory open: commands that change the memory go through it.

It is found by the note that it leaves in the memory's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..config import Settings
from ..errors import FingerprintMismatch, MemoryLocked, RecoError, importing
from ..files import in_home
from ..memory import Memory, memory_of
from ..serve.note import answers, read_note
from ..types import Fingerprint

if TYPE_CHECKING:
    from ..client.memory import ServedMemory

_CHANGES = (
    "which takes changes from its own user on its own machine, or with its admin key: give that as "
    "RECO_SERVE_ADMIN_KEY (and start the service with one, if it has none), or stop the service"
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
    "and such a folder is open once at a time: give it the pairs of a file (reco memory copy SOURCE FILE, then reco "
    "memory add FILE --memory MEMORY, which leaves the feedback behind), or stop the service"
)
"""The same to who copies pairs into it."""


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
    from ..serve.settings import load_serve_settings

    ways: list[dict[str, Any]] = [{"socket": note.socket}] if note.socket and answers(note.socket) else []
    if (key := load_serve_settings().admin_key) is not None:
        ways.append({"key": key.get_secret_value()})
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


def open_here_or_served(settings: Settings, fingerprint: Fingerprint | None) -> Memory:
    """An existing memory of the settings, through the service that has it open, if there is one."""
    if (served := served_memory(settings, fingerprint)) is not None:
        return served
    try:
        return memory_of(settings, fingerprint, create=False)
    except MemoryLocked as error:
        raise explain_lock(error, settings) from error


def explain_lock(error: MemoryLocked, settings: Settings, way: str = _CHANGES) -> MemoryLocked:
    """The error for a folder that is open elsewhere, with the way on if that is a service."""
    note = None if "://" in settings.memory else read_note(_folder(settings))
    if note is None:
        return error
    process = f", process {note.process}," if note.process is not None else ""
    return MemoryLocked(f"the memory at {settings.memory!r} is open in the service at {note.url}{process} {way}")


@contextmanager
def explained_lock(settings: Settings, way: str = _CHANGES) -> Iterator[None]:
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
