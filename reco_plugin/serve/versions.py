"""Another version of the memory, put to use while requests are answered: none is lost.

The versions of a folder lie beside it, and a link leads to the one in use. When the link is moved, or a command asks
for it over HTTP, the service opens that version, gives new requests to it, and closes the one before when the requests
that began with it have been answered. A Qdrant server moves its alias itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from ..errors import ConfigError, RecoError
from ..memory import Memory, memory_of
from ..memory.versions import FolderVersions
from .edge import Edge
from .failures import Failure, Refused
from .logs import LOGGER
from .note import Note
from .routes import answering_in, openai_shape
from .schemas import ERRORS, Strict

log = logging.getLogger(LOGGER)
_EVERY_S = 1.0
_LOOK_S = 0.01


class UseVersion(Strict):
    """A version of the memory."""

    name: str = Field(min_length=1)


class InUse(BaseModel):
    """The version in use."""

    name: str
    pairs: int
    state: str


class ServedVersions:
    """The versions of the memory of one service, if it is a folder."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        place = edge.embedder.reco.settings.memory
        self._place = None if place == ":memory:" or "://" in place else Path(place).expanduser().absolute()
        self._said: str | None = None
        self.note: Note | None = None
        """What is left in the folder in use; None before the service listens."""

    @property
    def in_folder(self) -> bool:
        """Whether the memory is a folder, which a process opens alone."""
        return self._place is not None

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Follow the link while the block runs."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while self._place is not None:
            await asyncio.sleep(_EVERY_S)
            if (moved := self._moved()) is not None:
                try:
                    await self._edge.writing.run(self._follow)
                except (Refused, RecoError, OSError) as error:
                    self._tell(f"{moved} was put to use, and cannot be opened: {error}")

    def announce(self, note: Note) -> None:
        """Leave a note in the folder in use, so that commands find this service."""
        self.note = note
        self._leave_note()

    def leave(self) -> None:
        """Take the note away."""
        if self.note is not None and self._place is not None:
            self.note.remove(self._edge.embedder.reco.memory.location)
        self.note = None

    def use(self, name: str) -> InUse:
        """Put a finished version to use; called where the memory is written, so that no write is lost.

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
        if self._moved() is not None or not self._place.is_symlink():
            versions.use(name)  # after the folder in use was closed, since the first time, it is renamed
        memory = self._edge.embedder.reco.memory
        return InUse(name=name, pairs=len(memory), state=self._edge.memory_state)

    def _follow(self) -> None:
        if (moved := self._moved()) is not None:  # another call may have been first
            self._move(moved)

    def _move(self, folder: Path) -> None:
        """Open a version, give new requests to it, wait for the others, and close the one before."""
        memory = self._edge.embedder.reco.memory
        new = self._open(folder)
        if self.note is not None:
            self.note.remove(memory.location)
        before = memory.move_to(new)
        self._edge.moves += 1
        self._leave_note()
        moment = time.perf_counter()
        latest = moment + self._edge.settings.deadline_s  # after which nobody waits for an answer
        while self._edge.pool.has_begun_before(moment) and time.perf_counter() < latest:
            time.sleep(_LOOK_S)
        before.close()
        self._said = None
        log.info("the memory in use is %s", folder.name, extra={"pairs": len(memory)})

    def _open(self, folder: Path) -> Memory:
        reco = self._edge.embedder.reco
        settings = reco.settings.model_copy(update={"memory": str(folder), "memory_kind": "auto"})
        return memory_of(settings, reco.memory.searches.header.fingerprint, create=False)

    def _moved(self) -> Path | None:
        """The folder that the link leads to, if it is another one than that in use."""
        place = self._place
        if place is None or not place.is_symlink():
            return None
        folder = place.parent / place.readlink()
        return None if self._is_open(folder) or not folder.is_dir() else folder

    def _is_open(self, folder: Path) -> bool:
        return os.path.realpath(folder) == os.path.realpath(self._edge.embedder.reco.memory.location)

    def _leave_note(self) -> None:
        where = self._edge.embedder.reco.memory.location
        if self.note is not None and self._place is not None:
            try:
                self.note.write(where)
            except OSError as error:
                log.warning("commands will not find this service: %s cannot be written to: %s", where, error)

    def _tell(self, said: str) -> None:
        """Log a failure once, though it is tried again."""
        if said != self._said:
            self._said = said
            log.warning("%s; the version before stays in use, and it is tried again", said)


def router(edge: Edge, versions: ServedVersions) -> APIRouter:
    """The route; the key check decides who may use it."""
    routes = APIRouter(
        prefix="/v1/memory",
        route_class=answering_in(openai_shape),
        tags=["memory"],
        responses=ERRORS | {403: {**ERRORS[401], "description": "no admin key is set"}},
    )

    @routes.post("/use")
    async def use_version(request: Request, body: UseVersion) -> InUse:
        """Put a finished version of a memory in folders to use; no request is lost."""

        def use() -> InUse:
            try:
                return versions.use(body.name)
            except RecoError as error:  # who may ask for this may read why not
                raise Refused(Failure(409, "version_not_usable", str(error), "name")) from error

        return await edge(request).write(use)

    return routes
