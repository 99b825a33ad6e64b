"""The version of a memory that a service has in use, and how another one takes its place.

The versions of a folder lie beside it, and a link leads to the one in use. A Qdrant server moves its alias itself.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from ..config import Settings
from ..errors import ConfigError, RecoError
from ..files import in_home
from ..memory import Memory, memory_of
from ..memory.versions import FolderVersions
from ..pairs import PairMemory
from .logs import LOGGER
from .note import Note

log = logging.getLogger(LOGGER)


class InUse(BaseModel):
    """The version in use."""

    name: str
    pairs: int
    state: str


class VersionInUse:
    """The version in use of the memory that this process has open; used where the memory is written, one at a time."""

    def __init__(self, settings: Settings, memory: PairMemory, wait: Callable[[], None]) -> None:
        """Keep what is needed to open another version.

        Args:
            settings: of the library; those of the memory name the place.
            memory: what is searched and written.
            wait: returns when no call works any more on the version before.
        """
        place = settings.memory
        self._settings, self._memory, self._wait = settings, memory, wait
        self._place = None if place == ":memory:" or "://" in place else in_home(place).absolute()
        self._said: str | None = None
        self.name, self.moves = uuid.uuid4().hex, 0
        """Of the service, and how often another version of its memory was put to use."""
        self.note: Note | None = None
        """What is left in the folder in use; None before the service listens."""

    @property
    def state(self) -> str:
        """Changes when another version of the memory is put to use, and when the service begins anew."""
        return f"{self.name}.{self.moves}"

    @property
    def in_folder(self) -> bool:
        """Whether the memory is a folder, which a process opens alone."""
        return self._place is not None

    def announce(self, note: Note) -> None:
        """Leave a note in the folder in use, so that commands find this service."""
        self.note = note
        self._leave_note()

    def leave(self) -> None:
        """Take the note away."""
        if self.note is not None and self._place is not None:
            self.note.remove(self._memory.location)
        self.note = None

    def use(self, name: str) -> InUse:
        """Put a finished version to use; no write is lost.

        Raises:
            ConfigError: no such version, or the memory is not in a folder.
            MemoryStoreError: it is not finished, or of another encoder, or cannot be opened.
        """
        if self._place is None:
            raise ConfigError("the memory of this service is no folder: `reco memory use` works on its server itself")
        versions = FolderVersions(self._place)
        folder = versions.find(name)
        if not self._is_open(folder):
            self._move(folder)
        if self.moved is not None or not self._place.is_symlink():
            versions.use(name)  # after the folder in use was closed, since the first time, it is renamed
        return InUse(name=name, pairs=len(self._memory), state=self.state)

    def follow(self) -> None:
        """Open the version that the link leads to, if it was moved; a failure is logged once, and is tried again."""
        if (moved := self.moved) is None:  # another call may have been first
            return
        try:
            self._move(moved)
        except (RecoError, OSError) as error:
            said = f"{moved} was put to use, and cannot be opened: {error}"
            if said != self._said:
                self._said = said
                log.warning("%s; the version before stays in use, and it is tried again", said)

    @property
    def moved(self) -> Path | None:
        """The folder that the link leads to, if it is another one than that in use."""
        place = self._place
        if place is None or not place.is_symlink():
            return None
        folder = place.parent / place.readlink()
        return None if self._is_open(folder) or not folder.is_dir() else folder

    def _move(self, folder: Path) -> None:
        """Open a version, give new requests to it, wait for the others, and close the one before."""
        memory = self._memory
        new = self._open(folder)
        if self.note is not None:
            self.note.remove(memory.location)
        before = memory.move_to(new)
        self.moves += 1
        self._leave_note()
        self._wait()
        before.close()
        self._said = None
        log.info("the memory in use is %s", folder.name, extra={"pairs": len(memory)})

    def _open(self, folder: Path) -> Memory:
        settings = self._settings.model_copy(update={"memory": str(folder)})
        return memory_of(settings, self._memory.searches.header.fingerprint, create=False)

    def _is_open(self, folder: Path) -> bool:
        return os.path.realpath(folder) == os.path.realpath(self._memory.location)

    def _leave_note(self) -> None:
        where = self._memory.location
        if self.note is not None and self._place is not None:
            try:
                self.note.write(where)
            except OSError as error:
                log.warning("commands will not find this service: %s cannot be written to: %s", where, error)
