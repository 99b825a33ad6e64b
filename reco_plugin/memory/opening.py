"""Opens memories: the location says which kind; now or lazily."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..defaults import COLLECTION
from ..errors import ConfigError, FingerprintMismatch, MemoryLocked, MemoryStoreError, importing
from ..files import in_home
from ..types import Fingerprint, Neighbours, Search
from .base import Memory
from .checks import NO_SERVER, SERVERS
from .header import Header

if TYPE_CHECKING:
    from ..config import MemoryOptions, Settings
    from .server import Server


def open_memory(
    location: str | os.PathLike[str] | None,
    fingerprint: Fingerprint | None,
    *,
    create: bool = True,
    collection: str = COLLECTION,
    api_key: str | None = None,
    options: MemoryOptions | None = None,
) -> Memory:
    """Open the memory at a location, or create one there.

    Args:
        location: a folder, the URL of a Qdrant server, or ``:memory:`` (also None) for one in RAM only.
        fingerprint: encoder of the model in use; None opens an existing memory of any encoder.
        create: create the memory if there is none.
        collection: name of the collection on a Qdrant server, or an alias of one.
        api_key: key of the Qdrant server.
        options: connection, search and creation. A memory in RAM ignores them, so that it works with a server's
            settings.

    Raises:
        ConfigError: a URL that is no server's, or options that a folder does not have.
        MissingExtra: the package that the place needs is not installed.
        FingerprintMismatch: another encoder built the memory.
        MemoryLocked: it is open elsewhere.
        MemoryUnavailable: the server cannot be reached.
        MemoryStoreError: there is none and ``create`` is False, or it cannot be read.
    """
    from ..config import MemoryOptions

    place = ":memory:" if location is None else os.fspath(location)
    if place != ":memory:" and not _is_url(place):
        place = str(_resolve_link(in_home(place)))
    options = options or MemoryOptions()
    try:
        return _open(place, fingerprint, options, create=create, collection=collection, api_key=api_key)
    except MemoryLocked:
        gc.collect()  # one that was dropped without close() holds its folder until Python looks for cycles
    return _open(place, fingerprint, options, create=create, collection=collection, api_key=api_key)


def _open(
    place: str,
    fingerprint: Fingerprint | None,
    options: MemoryOptions,
    *,
    create: bool,
    collection: str,
    api_key: str | None,
) -> Memory:
    """Open the memory at a place; errors as in :func:`open_memory`."""
    match _kind_at(place):
        case "exact":
            from .exact import ExactMemory

            return ExactMemory.open(fingerprint)
        case "edge":
            with _importing("edge"):
                from .edge import EdgeMemory
            return EdgeMemory.open(place, fingerprint, options, create=create)
    with _importing("qdrant"):
        from .qdrant import QdrantMemory
        from .server import Server
    server = Server.parse(place, api_key, options)
    return QdrantMemory.open(server, fingerprint, create=create, collection=collection)


def _importing(kind: str) -> AbstractContextManager[None]:
    """What a kind imports is in an extra, which the error names where it is missing."""
    if kind == "edge":
        return importing("qdrant-edge-py", "edge", "a memory of kind 'edge'")
    return importing("qdrant-client", "qdrant", "a memory of kind 'qdrant'")


def check_package(settings: Settings) -> None:
    """Refuse a memory that could not be made at the place of the settings.

    Raises:
        ConfigError: a URL that is no server's.
        MissingExtra: the package that the place needs is not installed.
    """
    if (kind := _kind_at(settings.memory)) != "exact":
        with _importing(kind):
            import_module(f".{kind}", __package__)


def memory_of(settings: Settings, fingerprint: Fingerprint | None, *, create: bool = True) -> Memory:
    """Open the memory of the settings; arguments and errors as in :func:`open_memory`."""
    return open_memory(
        settings.memory,
        fingerprint,
        create=create,
        collection=settings.memory_collection,
        api_key=_key_of(settings),
        options=settings.memory_options,
    )


class LazyMemory:
    """A memory that cannot be reached yet: the first call that reaches it opens it.

    Concurrent calls share one attempt. A memory of another encoder is refused from then on, also by :attr:`header`,
    without another attempt.
    """

    def __init__(self, connect: Callable[[], Memory], *, kind: str, location: str, fingerprint: Fingerprint) -> None:
        """Keep what is needed later; ``connect`` opens the memory, and refuses one of another encoder."""
        self.kind, self.location = kind, location
        self._connect, self._expected = connect, Header(fingerprint)
        self._opening, self._attempts = threading.Lock(), 0
        self._store: Memory | None = None
        self._error: MemoryStoreError | None = None
        self._closed = threading.Event()

    @property
    def header(self) -> Header:
        """Fingerprint and calibration; only the expected fingerprint until the memory is open. Makes no request.

        Raises:
            FingerprintMismatch: the memory was reached, and is of another encoder.
        """
        self._refuse_other()
        return self._expected if self._store is None else self._store.header

    @property
    def keeps_time(self) -> bool:
        """As of the memory; not before it is open, since opening has other limits."""
        return bool(getattr(self._store, "keeps_time", False))

    def search(self, search: Search) -> Neighbours:
        """Search with queries (B, D), see :meth:`reco_plugin.memory.Searches.search`."""
        return self.ensure_open().search(search)

    def ensure_open(self) -> Memory:
        """The memory, opened now if it was not yet.

        Raises:
            FingerprintMismatch: it is of another encoder.
            MemoryStoreError: it cannot be reached yet, or was closed before.
        """
        before, store = self._attempts, self._store
        if store is not None:
            return store
        with self._opening:
            store = self._store
            if store is not None:
                return store
            self._refuse_other()
            if self._attempts != before and self._error is not None:  # another call tried while this one waited
                raise type(self._error)(str(self._error))
            if self._closed.is_set():
                raise MemoryStoreError(f"the memory at {self.location!r} is closed: open it again")
            try:
                self._store = store = self._connect()
            except MemoryStoreError as error:
                self._error = error
                raise
            finally:
                self._attempts += 1
            if self._closed.is_set():
                store.close()
            return store

    def answers(self) -> bool:
        """Whether it can be opened, or answers as the memory says."""
        try:
            return bool(getattr(self.ensure_open(), "answers", lambda: True)())
        except FingerprintMismatch:
            return True
        except MemoryStoreError:
            return False

    def reconnect(self) -> None:
        """Open it, or as the memory does; errors as in :meth:`ensure_open`."""
        if self._store is None:
            self.ensure_open()
        elif hasattr(self._store, "reconnect"):
            self._store.reconnect()

    def close(self) -> None:
        """Release the store; one that is being opened is closed once it is open."""
        self._closed.set()
        if self._store is not None:
            self._store.close()

    def _refuse_other(self) -> None:
        if isinstance(self._error, FingerprintMismatch):
            raise FingerprintMismatch(str(self._error))


def server_of(settings: Settings) -> Server:
    """The Qdrant server of the settings.

    Raises:
        ConfigError: the memory is not a server's URL.
        MissingExtra: qdrant-client is not installed.
    """
    with importing("qdrant-client", "qdrant", "a memory on a Qdrant server"):
        from .server import Server
    return Server.parse(settings.memory, _key_of(settings), settings.memory_options)


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


def _is_url(place: str) -> bool:
    return "://" in place


def _kind_at(place: str) -> str:
    """The engine of a place: exact in RAM, edge in a folder, qdrant behind a URL."""
    if not _is_url(place):
        return "exact" if place == ":memory:" else "edge"
    if not place.startswith(SERVERS) or "@" in place:
        raise ConfigError(NO_SERVER)
    return "qdrant"
