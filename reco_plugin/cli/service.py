"""A running `reco serve` that has the memory open: commands that change the memory go through it.

It is found by the note that it leaves in the memory's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..config import Settings
from ..errors import FingerprintMismatch, MemoryLocked, RecoError
from ..files import in_home
from ..memory import Memory, memory_of
from ..serve.note import read_note
from ..types import Fingerprint

if TYPE_CHECKING:
    from ..client.memory import ServedMemory

_CHANGES = (
    "which takes changes from its own user on its own machine: run this as that user there, send them over HTTP with a "
    "key that may write, or stop the service"
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
    from ..client import Client
    from ..client.memory import PATIENCE, TIMEOUT_S, ServedMemory

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
