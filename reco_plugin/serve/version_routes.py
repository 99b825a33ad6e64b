"""``/v1/memory/versions``: the versions of a memory in folders, and how another one is put to use; no request is lost.

The versions lie beside the memory's folder, and a link leads to the one in use. The service opens another one, gives
new requests to it, and closes the one before when the requests that began with it have been answered. A Qdrant server
moves its alias itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from ..errors import ConfigError, RecoError
from ..files import in_home
from ..memory import memory_of
from ..memory.versions import FolderVersions
from ..reco import Reco
from .failures import Failure, Refused
from .logs import LOGGER
from .note import Note
from .routing import life_of, memory_routes
from .schemas import Strict

if TYPE_CHECKING:
    from .app_state import Edge

log = logging.getLogger(LOGGER)
T = TypeVar("T")


class VersionBody(BaseModel):
    """One version."""

    name: str
    pairs: int | None
    """None while another process has it open."""
    live: bool
    """Whether it is in use."""
    finished: bool


class VersionList(BaseModel):
    """All versions, oldest first."""

    data: list[VersionBody]


class UseVersion(Strict):
    """The version to use."""

    name: str = Field(min_length=1)


class VersionInUse:
    """The version in use of the memory that this process has open; used where the memory is written, one at a time."""

    def __init__(self, reco: Reco, wait: Callable[[], None]) -> None:
        """Keep what is needed to open another version; ``wait`` returns when no call works on the one before."""
        self._reco, self._memory, self._wait = reco, reco.memory, wait
        place = reco.settings.memory
        self._place = None if place == ":memory:" or "://" in place else in_home(place).absolute()
        self._note: Note | None = None

    @property
    def in_folder(self) -> bool:
        """Whether the memory is a folder, which a process opens alone."""
        return self._place is not None

    def announce(self, note: Note) -> None:
        """Leave a note in the folder in use, so that commands find this service."""
        self._note = note
        self._leave_note()

    def leave(self) -> None:
        """Take the note away."""
        if self._note is not None:
            self._note.remove(self._memory.location)
        self._note = None

    def all(self) -> VersionList:
        """The versions of the memory.

        Raises:
            ConfigError: the memory is not in a folder.
        """
        found = [
            VersionBody(name=one.name, pairs=one.pairs, live=one.live, finished=one.finished)
            for one in self._versions.all()
        ]
        for one in found:
            one.pairs = len(self._memory) if one.live else one.pairs
        return VersionList(data=found)

    def use(self, name: str) -> VersionBody:
        """Put a finished version to use; no write is lost.

        Raises:
            ConfigError: no such version, or the memory is not in a folder.
            MemoryStoreError: it is not finished, or of another encoder, or cannot be opened.
        """
        versions, memory = self._versions, self._memory
        folder = versions.folder(versions.usable(name).name)
        if os.path.realpath(folder) != os.path.realpath(memory.location):
            self._move(folder)
            versions.use(name)  # after the folder in use was closed: the first time, it is renamed
        return VersionBody(name=name, pairs=len(memory), live=True, finished=True)

    @property
    def _versions(self) -> FolderVersions:
        if self._place is None:
            raise ConfigError(
                "the memory of this service is no folder: `reco memory versions --use` works on a server itself"
            )
        return FolderVersions(self._place)

    def _move(self, folder: Path) -> None:
        """Open a version, give new requests to it, wait for the others, and close the one before."""
        memory = self._memory
        settings = self._reco.settings.model_copy(update={"memory": str(folder)})
        new = memory_of(settings, memory.searches.header.fingerprint, create=False)
        if self._note is not None:
            self._note.remove(memory.location)
        before = memory.move_to(new)
        self._leave_note()
        self._wait()
        before.close()
        log.info("the memory in use is %s", folder.name, extra={"pairs": len(memory)})

    def _leave_note(self) -> None:
        if self._note is None:
            return
        try:
            self._note.write(where := self._memory.location)
        except OSError as error:
            log.warning("commands will not find this service: %s cannot be written to: %s", where, error)


def router(edge: Edge) -> APIRouter:
    """The routes."""
    routes = memory_routes()

    @routes.get("/versions", response_model=VersionList)
    async def list_versions(request: Request) -> Response:
        """All versions of a memory in folders."""
        return await life_of(request).reply(lambda: _explained(edge.in_use.all))

    @routes.post("/versions", response_model=VersionBody)
    async def use_version(request: Request, body: UseVersion) -> Response:
        """Put a finished version to use; no request is lost."""
        return await life_of(request).write(lambda: _explained(lambda: edge.in_use.use(body.name)))

    return routes


def _explained(call: Callable[[], T]) -> T:
    """The result of a call, or why there is none: who may do this may read it."""
    try:
        return call()
    except RecoError as error:
        raise Refused(Failure(409, "version_not_usable", str(error))) from error
