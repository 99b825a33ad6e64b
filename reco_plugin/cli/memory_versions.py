"""``reco memory versions, use, rollback, prune``: several versions of a memory, one of them in use."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from ..config import Settings
from ..memory.versions import FolderVersions, Version, Versions
from .flags import Given, take_flags, takes
from .service import ServedFolderVersions, ServiceOptions, served_memory
from .shared import JsonOption, MemoryFlags, open_server, say


@takes(MemoryFlags)
def versions_command(*, given: Given, as_json: JsonOption = False) -> None:
    """List the versions of the memory. Needs no model."""
    with closing(_versions(given)) as versions:
        found = versions.all()
    lines = [
        f"{'*' if each.live else ' '} {each.name}  {_pairs(each)} of {each.fingerprint}"
        + ("" if each.finished else "  unfinished")
        for each in found
    ]
    say([describe(each) for each in found], "\n".join(lines) or "no versions", as_json)


@takes(MemoryFlags)
def use_command(
    name: Annotated[str, typer.Argument(help="Name of a version.")], *, given: Given, as_json: JsonOption = False
) -> None:
    """Put a finished version to use, atomically, without interrupting readers. Needs no model."""
    with closing(_versions(given)) as versions:
        _say_used(versions.use(name), as_json)


@takes(MemoryFlags)
def rollback_command(*, given: Given, as_json: JsonOption = False) -> None:
    """Go back to the version before the one in use. Needs no model."""
    with closing(_versions(given)) as versions:
        _say_used(versions.rollback(), as_json)


@takes(MemoryFlags)
def prune_command(
    *,
    given: Given,
    keep: Annotated[int, typer.Option(min=0, help="Finished versions to keep besides the one in use.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Delete versions that are not in use, except the newest finished ones. Needs no model."""
    with closing(_versions(given)) as versions:
        gone = versions.prune(keep)
    say({"deleted": gone}, f"deleted {', '.join(gone)}" if gone else "nothing to delete", as_json)


def _versions(given: Given) -> Versions:
    return open_versions_of(take_flags(MemoryFlags, given).settings)


def is_server(settings: Settings) -> bool:
    """Whether the memory is on a Qdrant server."""
    return "://" in settings.memory


def open_versions_of(settings: Settings, via: ServiceOptions | None = None) -> Versions:
    """The versions of the memory of the settings; of a folder that a service has open, the service swaps them."""
    if not is_server(settings):
        served = served_memory(settings, via or ServiceOptions(), None)
        return FolderVersions(settings.memory) if served is None else ServedFolderVersions(settings.memory, served)
    server = open_server(settings)
    from ..memory.server_versions import ServerVersions

    return ServerVersions(server, settings.memory_collection)


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
    return "open elsewhere, holds pairs" if version.pairs is None else f"{version.pairs:,} pairs"
