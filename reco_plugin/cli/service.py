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
