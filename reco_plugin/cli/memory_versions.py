"""Versions of a memory, in use and before, and what a running service does with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import Settings
from ..errors import ConfigError, MemoryTimeout
from ..memory.opening import server_of
from ..memory.versions import FolderVersions, Version, Versions
from ..values import counted
from .service import ServiceOptions, served_memory
from .shared import (
    Given,
    JsonOption,
    MemoryFlags,
    keeps,
    say,
    take_flags,
    takes,
)

if TYPE_CHECKING:
    from ..client.memory import ServedMemory

_PATIENCE = 20
"""Deadlines of the service that putting a version to use may take: a large one opens slowly."""


@takes(MemoryFlags)
def versions_command(*, given: Given, as_json: JsonOption = False) -> None:
    """List the versions of the memory. Needs no model."""
    with closing(_versions(given)) as versions:
        found = _known(versions)
    lines = [
        f"{'*' if each.live else ' '} {each.name}  {_pairs(each)} of {each.fingerprint}"
        + ("" if each.finished else "  unfinished")
        for each in found
    ]
    say([describe(each) for each in found], "\n".join(lines), as_json)


@takes(MemoryFlags)
def use_command(
    name: Annotated[str, typer.Argument(help="Name of a version.")], *, given: Given, as_json: JsonOption = False
) -> None:
    """Put a finished version to use, atomically, without interrupting readers. Needs no model."""
    _say_used(_use(take_flags(MemoryFlags, given), lambda versions: versions.use(name)), as_json)


@takes(MemoryFlags)
def rollback_command(*, given: Given, as_json: JsonOption = False) -> None:
    """Go back to the version before the one in use. Needs no model."""
    _say_used(_use(take_flags(MemoryFlags, given), lambda versions: versions.rollback()), as_json)


@takes(MemoryFlags)
def prune_command(
    *,
    given: Given,
    keep: Annotated[int, typer.Option(min=0, help="Finished versions to keep besides the one in use.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Delete versions that are not in use, except the newest finished ones. Needs no model."""
    with closing(_versions(given)) as versions:
        _known(versions)
        gone = versions.prune(keep)
    say({"deleted": gone}, f"deleted {', '.join(gone)}" if gone else "nothing to delete", as_json)


def _use(asked: MemoryFlags, change: Callable[[Versions], Version]) -> Version:
    """Put another version to use, with what people said of the one before; a service brings that over itself."""
    from ..opinions import bring_over

    with closing(open_versions_of(asked.settings)) as versions:
        before = next((each for each in versions.all() if each.live), None)
        known = None if before is None else versions.header_of(before)
        version = change(versions)
        served = isinstance(versions, ServedFolderVersions)
    if before is not None and known is not None and known.said and version.name != before.name and not served:
        left = f"{version.name} is in use, without what people said of {before.name}"
        with keeps(left), closing(asked.open()) as store:
            bring_over(known, store)
    return version


def _versions(given: Given) -> Versions:
    return open_versions_of(take_flags(MemoryFlags, given).settings)


def _known(versions: Versions) -> list[Version]:
    """All versions.

    Raises:
        ConfigError: there is no memory.
    """
    if found := versions.all():
        return found
    raise ConfigError(f"there is no memory {versions.place}: check --memory, or build one: reco memory build --help")


def is_server(settings: Settings) -> bool:
    """Whether the memory is on a Qdrant server."""
    return "://" in settings.memory


def open_versions_of(settings: Settings, via: ServiceOptions | None = None) -> Versions:
    """The versions of the memory of the settings; of a folder that a service has open, the service swaps them."""
    if not is_server(settings):
        served = served_memory(settings, via or ServiceOptions(), None)
        return FolderVersions(settings.memory) if served is None else ServedFolderVersions(settings.memory, served)
    server = server_of(settings)
    from ..memory.server_versions import ServerVersions

    return ServerVersions(server, settings.memory_collection)


class ServedFolderVersions(FolderVersions):
    """Versions of a folder that a service has open, and puts to use itself."""

    def __init__(self, place: str, memory: ServedMemory) -> None:
        super().__init__(place)
        self._memory = memory

    def check_swap(self) -> None:
        """Nothing to check: the service closes the version before."""

    def close(self) -> None:
        """Close the connections."""
        self._memory.close()

    def use(self, name: str) -> Version:
        """Let the service put it to use."""
        wanted = self._usable(name)
        for tried in range(_PATIENCE):
            try:
                pairs = self._memory.use(wanted.name)
                break
            except MemoryTimeout:  # it goes on meanwhile, and to ask again is no harm
                if tried == _PATIENCE - 1:
                    raise
        return replace(wanted, pairs=pairs, live=True)


def describe(version: Version) -> dict[str, object]:
    """A version, JSON-like."""
    return {
        "name": version.name,
        "pairs": version.pairs,
        "live": version.live,
        "finished": version.finished,
        "encoder": version.fingerprint.name,
    }


def _say_used(version: Version, as_json: bool) -> None:
    say(describe(version), f"{version.name} is in use: {_pairs(version)}", as_json)


def _pairs(version: Version) -> str:
    return "open elsewhere, holds pairs" if version.pairs is None else counted(version.pairs, "pair")
