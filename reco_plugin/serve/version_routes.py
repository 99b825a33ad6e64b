"""``/v1/memory/versions``: list the versions of a memory in folders, and switch between them.

The versions lie beside the memory's folder, which is a link to the live one. To switch, the service opens the other
version, sends new requests to it, and closes the old one when the requests that use it have ended, so that none is
lost. A Qdrant server moves its alias itself.
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
from .auth import MEMORY_PATH
from .failures import Failure, Refused
from .logs import LOGGER
from .note import Note
from .routing import context_of, own_routes
from .schemas import Strict

if TYPE_CHECKING:
    from .app_state import AppState

log = logging.getLogger(LOGGER)
T = TypeVar("T")


class VersionBody(BaseModel):
    """One version."""

    name: str
    pairs: int | None
    """Number of pairs; null while another process has it open."""
    live: bool
    """Whether this service uses it."""
    finished: bool


class VersionList(BaseModel):
    """All versions, oldest first."""

    data: list[VersionBody]


class UseVersion(Strict):
    """The version to use."""

    name: str = Field(min_length=1)


class LiveVersion:
    """The version of the memory that this process serves. Used by one write at a time."""

    def __init__(self, reco: Reco, wait: Callable[[], None]) -> None:
        """Open nothing yet; ``wait`` returns when no call uses the version before."""
        self._reco, self._memory, self._wait = reco, reco.memory, wait
        location = reco.settings.memory
        self._folder = None if location == ":memory:" or "://" in location else in_home(location).absolute()
        self._note: Note | None = None

    @property
    def is_folder(self) -> bool:
        """Whether the memory is a folder, which only one process can open."""
        return self._folder is not None

    def remove_note(self) -> None:
        """Remove the note."""
        if self._note is not None:
            self._note.remove(self._memory.location)
        self._note = None

    def versions(self) -> VersionList:
        """List the versions of the memory."""
        data = list[VersionBody]()
        for one in self._versions.all():
            pairs = len(self._memory) if one.live else one.pairs
            data.append(VersionBody(name=one.name, pairs=pairs, live=one.live, finished=one.finished))
        return VersionList(data=data)

    def switch(self, name: str) -> VersionBody:
        """Switch to a finished version; no write is lost."""
        versions, memory = self._versions, self._memory
        folder = versions.folder(versions.usable(name).name)
        if os.path.realpath(folder) != os.path.realpath(memory.location):
            self._open(folder)
            versions.use(name)  # after the old folder was closed: the first time, it is renamed
        return VersionBody(name=name, pairs=len(memory), live=True, finished=True)

    @property
    def _versions(self) -> FolderVersions:
        if self._folder is None:
            raise ConfigError(
                "the memory of this service is no folder: `reco memory versions --use` works on a server itself"
            )
        return FolderVersions(self._folder)

    def _open(self, folder: Path) -> None:
        """Open a version, send new requests to it, wait for the others, and close the old version."""
        memory = self._memory
        settings = self._reco.settings.model_copy(update={"memory": str(folder)})
        new = memory_of(settings, memory.searches.header.fingerprint, create=False)
        if self._note is not None:
            self._note.remove(memory.location)
        old = memory.move_to(new)
        self.write_note()
        self._wait()
        old.close()
        log.info("the memory in use is %s", folder.name, extra={"pairs": len(memory)})

    def write_note(self, note: Note | None = None) -> None:
        """Leave the note, or a new one, in the live folder: commands find this service by it."""
        self._note = note or self._note
        if self._note is None:
            return
        try:
            self._note.write(folder := self._memory.location)
        except OSError as error:
            log.warning("commands will not find this service: %s cannot be written to: %s", folder, error)


def router(state: AppState) -> APIRouter:
    """Make the routes."""
    routes = own_routes("memory", MEMORY_PATH)

    @routes.get("/versions", response_model=VersionList)
    async def list_versions(request: Request) -> Response:
        """List all versions of a memory in folders."""
        return await context_of(request).read(lambda: _with_reason(state.live_version.versions))

    @routes.post("/versions", response_model=VersionBody)
    async def use_version(request: Request, body: UseVersion) -> Response:
        """Switch to a finished version; no request is lost."""
        return await context_of(request).write(lambda: _with_reason(lambda: state.live_version.switch(body.name)))

    return routes


def _with_reason(call: Callable[[], T]) -> T:
    """Run a call. An error is shown in full: a caller with this right may read it."""
    try:
        return call()
    except RecoError as error:
        raise Refused(Failure(409, "version_not_usable", str(error))) from error
