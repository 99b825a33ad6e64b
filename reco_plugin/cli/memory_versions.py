"""``reco memory versions``: list the versions of a memory, put one to use, delete old ones."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, MemoryTimeout
from ..memory.opening import server_of
from ..memory.versions import FolderVersions, Version, Versions
from ..settings import Settings
from ..values import counted
from .shared import JsonOption, MemoryFlags, MemoryOption, is_server, keeps, say, served_memory

if TYPE_CHECKING:
    from ..client.served_memory import ServedMemory

_ATTEMPTS = 20
"""Requests to a service to put a version to use; a large version opens slowly, and a request may time out."""


def versions_command(
    *,
    use: Annotated[str | None, typer.Option(metavar="NAME", help="Put this version to use, atomically.")] = None,
    previous: Annotated[bool, typer.Option("--previous", help="Go back to the version before the one in use.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete versions that are not in use, except the newest finished one.")
    ] = False,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a memory, put one to use, or delete old ones. Needs no model."""
    if (use is not None) + previous + prune > 1:
        raise ConfigError("--use, --previous and --prune do different things: give one of them")
    flags = MemoryFlags(memory)
    if use is not None or previous:
        version = _use(flags, use)
        say(describe(version), f"{version.name} is in use: {_pairs(version)}", as_json)
        return
    with closing(open_versions_of(flags.settings)) as versions:
        found = versions.all()
        if not found:
            raise ConfigError(f"there is no memory {versions.place}: check --memory, or run reco memory build --help")
        gone = versions.prune() if prune else []
    if prune:
        say({"deleted": gone}, f"deleted {', '.join(gone)}" if gone else "nothing to delete", as_json)
        return
    lines = [
        f"{'*' if one.live else ' '} {one.name}  {_pairs(one)} of {one.fingerprint}"
        + ("" if one.finished else "  unfinished")
        for one in found
    ]
    say([describe(one) for one in found], "\n".join(lines), as_json)


def _use(flags: MemoryFlags, name: str | None) -> Version:
    """Put a version to use (None: the previous one), and copy the feedback of the one in use to it."""
    from ..signals.opinions import add_opinions

    with closing(open_versions_of(flags.settings)) as versions:
        before = next((one for one in versions.all() if one.live), None)
        header = None if before is None else before.header
        version = versions.rollback() if name is None else versions.use(name)
        served = isinstance(versions, ServedFolderVersions)
    if before is not None and header is not None and header.said and version.name != before.name and not served:
        left = f"{version.name} is in use, without the feedback of {before.name}"
        with keeps(left), closing(flags.open()) as store:
            add_opinions(store, header.said.values())
    return version


def open_versions_of(settings: Settings) -> Versions:
    """Open the versions of a memory; if a service has its folder open, the service swaps them."""
    if not is_server(settings):
        served = served_memory(settings, None)
        return FolderVersions(settings.memory) if served is None else ServedFolderVersions(settings.memory, served)
    server = server_of(settings)
    from ..memory.server_versions import ServerVersions

    return ServerVersions(server, settings.memory_collection)


class ServedFolderVersions(FolderVersions):
    """Versions of a folder that a service has open; the service puts them to use."""

    def __init__(self, place: str, memory: ServedMemory) -> None:
        super().__init__(place)
        self._memory = memory

    def close(self) -> None:
        """Close the connections."""
        self._memory.close()

    def use(self, name: str) -> Version:
        """Let the service put a version to use."""
        wanted = self.usable(name)
        for tried in range(_ATTEMPTS):
            try:
                pairs = self._memory.use(wanted.name)
                break
            except MemoryTimeout:  # the service goes on opening the version
                if tried == _ATTEMPTS - 1:
                    raise
        return replace(wanted, count=lambda: pairs, live=True)


def describe(version: Version) -> dict[str, Any]:
    """A version as JSON values."""
    return {
        "name": version.name,
        "pairs": version.pairs,
        "live": version.live,
        "finished": version.finished,
        "encoder": version.fingerprint.name,
    }


def _pairs(version: Version) -> str:
    return "open elsewhere, holds pairs" if version.pairs is None else counted(version.pairs, "pair")
