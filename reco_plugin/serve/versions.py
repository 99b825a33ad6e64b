"""Another version of the memory, put to use while requests are answered: none is lost.

When the link to a folder is moved, or a command asks for it over HTTP, the service opens that version, gives new
requests to it, and closes the one before when the requests that began with it have been answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import APIRouter, Request, Response
from pydantic import Field

from ..errors import RecoError
from .edge import Edge
from .failures import Failure, Refused
from .in_use import InUse, VersionInUse
from .routes import memory_routes
from .schemas import Strict

_EVERY_S = 1.0


class UseVersion(Strict):
    """A version of the memory."""

    name: str = Field(min_length=1)


@asynccontextmanager
async def followed(edge: Edge) -> AsyncIterator[None]:
    """Follow the link to the memory's folder while the block runs, where this process has it open."""
    watching = asyncio.create_task(_watch(edge, edge.in_use))
    try:
        yield
    finally:
        watching.cancel()


async def _watch(edge: Edge, in_use: VersionInUse) -> None:
    while in_use.in_folder:
        await asyncio.sleep(_EVERY_S)
        if in_use.moved is not None:
            with suppress(Refused):  # the queue is full: the next time
                await edge.writing.run(in_use.follow)


def router(edge: Edge) -> APIRouter:
    """The route; the key check decides who may use it."""
    routes = memory_routes()

    @routes.post("/use", response_model=InUse)
    async def use_version(request: Request, body: UseVersion) -> Response:
        """Put a finished version of a memory in folders to use; no request is lost."""

        def use() -> InUse:
            try:
                return edge.in_use.use(body.name)
            except RecoError as error:  # who may ask for this may read why not
                raise Refused(Failure(409, "version_not_usable", str(error), "name")) from error

        return await edge(request).write(use)

    return routes
