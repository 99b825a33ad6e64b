"""Opens memories: the location says which kind."""

from __future__ import annotations

import gc
import os
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..defaults import COLLECTION
from ..errors import ConfigError, MemoryLocked, MemoryStoreError, importing
from ..files import in_home
from ..types import Fingerprint
from .base import Memory
from .checks import NO_SERVER, SERVERS

if TYPE_CHECKING:
    from ..settings import MemoryOptions, Settings
    from .connection import Server


def open_memory(
    location: str | os.PathLike[str] | None,
    fingerprint: Fingerprint | None,
    *,
    create: bool = True,
    collection: str = COLLECTION,
    api_key: str | None = None,
    options: MemoryOptions | None = None,
    later: bool = False,
) -> Memory:
    """Open the memory at a location, or create one there.

    Args:
        location: a folder, the URL of a Qdrant server, or ``:memory:`` (also None) for one in RAM only.
        fingerprint: encoder of the model in use; None opens an existing memory of any encoder.
        create: create the memory if there is none.
        collection: name of the collection on a Qdrant server, or an alias of one.
        api_key: key of the Qdrant server.
        options: connection, search and creation; those of a server are ignored elsewhere.
        later: ask a server nothing yet; the first call does, and raises what this would.

    Raises:
        ConfigError: a URL that is no server's.
        MissingExtra: the package that the place needs is not installed.
        FingerprintMismatch: another encoder built the memory.
        MemoryLocked: it is open elsewhere.
        MemoryUnavailable: the server cannot be reached.
        MemoryStoreError: there is none and ``create`` is False, or it cannot be read.
    """
    from ..settings import MemoryOptions

    place = ":memory:" if location is None else os.fspath(location)
    options = options or MemoryOptions()
    match _kind_at(place):
        case "exact":
            from .exact import ExactMemory

            return ExactMemory.open(fingerprint)
        case "edge":
            with _importing("edge"):
                from .edge import EdgeMemory
            folder = str(_resolve_link(in_home(place)))
            try:
                return EdgeMemory.open(folder, fingerprint, options, create=create)
            except MemoryLocked:
                gc.collect()  # one that was dropped without close() holds its folder until Python looks for cycles
            return EdgeMemory.open(folder, fingerprint, options, create=create)
    with _importing("qdrant"):
        from .connection import Server
        from .qdrant_server import QdrantMemory
    memory = QdrantMemory(Server.parse(place, api_key, options), fingerprint, collection, create=create)
    if not later:
        try:
            memory.open()
        except BaseException:
            memory.close()
            raise
    return memory


def memory_of(
    settings: Settings, fingerprint: Fingerprint | None, *, create: bool = True, later: bool = False
) -> Memory:
    """Open the memory of the settings; arguments and errors as in :func:`open_memory`."""
    return open_memory(
        settings.memory,
        fingerprint,
        create=create,
        collection=settings.memory_collection,
        api_key=_key_of(settings),
        options=settings.memory_options,
        later=later,
    )


def check_package(settings: Settings) -> None:
    """Refuse a memory that could not be made at the place of the settings.

    Raises:
        ConfigError: a URL that is no server's.
        MissingExtra: the package that the place needs is not installed.
    """
    if (kind := _kind_at(settings.memory)) != "exact":
        with _importing(kind):
            import_module(f".{kind}", __package__)


def server_of(settings: Settings) -> Server:
    """The Qdrant server of the settings.

    Raises:
        ConfigError: the memory is not a server's URL.
        MissingExtra: qdrant-client is not installed.
    """
    with _importing("qdrant"):
        from .connection import Server
    return Server.parse(settings.memory, _key_of(settings), settings.memory_options)


def _importing(kind: str) -> AbstractContextManager[None]:
    """What a kind imports is in an extra, which the error names where it is missing."""
    return importing("qdrant-edge-py" if kind == "edge" else "qdrant-client", kind, f"a memory of kind {kind!r}")


def _key_of(settings: Settings) -> str | None:
    """The key of the memory's server."""
    return settings.memory_api_key.get_secret_value() if settings.memory_api_key else None


def _resolve_link(place: Path) -> Path:
    """The folder that a link, also one to a link, points to now: a memory stays open there when one is replaced."""
    while place.is_symlink():
        version = place.parent / place.readlink()
        if not version.exists():
            raise MemoryStoreError(
                f"{str(place)!r} stands for {version.name!r}, which is gone: put another version to use (reco memory "
                "versions), or remove the link"
            )
        place = version
    return place


def _kind_at(place: str) -> str:
    """The engine of a place: exact in RAM, edge in a folder, qdrant behind a URL."""
    if "://" not in place:
        return "exact" if place == ":memory:" else "edge"
    if not place.startswith(SERVERS) or "@" in place:
        raise ConfigError(NO_SERVER)
    return "qdrant"
