"""Versions of a memory on a server, behind an alias: the collection of the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from qdrant_client import models

from ..errors import MemoryStoreError
from ..types import Fingerprint
from .collection import (
    BUILD_KEY,
    collection_of_alias,
    create_alias,
    delete_beside,
    is_finished,
    make_collection,
    read_collection,
    version_numbers,
)
from .header import Header, check_fingerprint
from .kept_served import KeptOnServer
from .server import Server
from .versions import Version, Versions, version_name, version_number

_INDEXED = models.CollectionStatus.GREEN
T = TypeVar("T")


class ServerVersions(Versions):
    """The versions that an alias can point to."""

    def __init__(self, server: Server, alias: str) -> None:
        super().__init__(alias, f"{alias!r} at {server.location!r}", "RECO_MEMORY_COLLECTION")
        self._client, self._server = server.connect(), server

    def all(self) -> list[Version]:
        """All versions, oldest first."""
        client, name = self._client, self._name
        live = self._run("read", lambda: collection_of_alias(client, name))
        numbers = self._run("read", lambda: version_numbers(client, name))
        return [self._read(version_name(name, number), live=live) for number in numbers]

    def begin(self, fingerprint: Fingerprint) -> str:
        """Create an empty collection; see :meth:`Versions.begin`."""
        client, alias = self._client, self._name
        live = self._run("build", lambda: collection_of_alias(client, alias))
        if live is None and self._run("build", lambda: client.collection_exists(alias)):
            raise MemoryStoreError(
                f"{self.place} is a collection itself, not an alias that could be swapped. Build under another name "
                "(RECO_MEMORY_COLLECTION), and let readers use that"
            )
        if live is not None:
            self._refuse_other([self._read(live, live=live)], fingerprint)
        name = version_name(alias, 1 + max(self._run("build", lambda: version_numbers(client, alias)), default=0))
        header, options, unfinished = Header(fingerprint), self._server.options, {BUILD_KEY: {"finished": False}}
        self._run("build", lambda: make_collection(client, name, header, options, **unfinished), write=True)
        self._run("build", lambda: delete_beside(client, name), write=True)  # of one that was deleted by hand
        return name

    def header_of(self, version: Version) -> Header:
        """See :meth:`Versions.header_of`."""
        kept = KeptOnServer(self._server.patience.run, lambda: self._client, version.name, self._server.location)
        return kept.read(None).header

    def check_swap(self) -> None:
        """Nothing to check: an alias moves at any time."""

    def finish(self, name: str, pairs: int, fingerprint: Fingerprint, *, wait_s: float = 0.0) -> Version:
        """See :meth:`Versions.finish`."""
        self._wait_for_index(name, wait_s)
        version = self._read(name, live=None)
        check_fingerprint(version.fingerprint, fingerprint, f"{self._server.location} (collection {name})")
        self._check_holds(version, pairs)
        finished = {BUILD_KEY: {"finished": True}}
        self._run("verify", lambda: self._client.update_collection(name, metadata=finished), write=True)
        return self._read(name, live=None)

    def close(self) -> None:
        """Release the connection."""
        self._client.close()

    def _swap(self, wanted: Version, versions: Sequence[Version]) -> Version:
        operations: list[Any] = [create_alias(wanted.name, self._name)]
        if any(version.live for version in versions):
            drop = models.DeleteAlias(alias_name=self._name)
            operations.insert(0, models.DeleteAliasOperation(delete_alias=drop))
        self._run("swap", lambda: self._client.update_collection_aliases(operations), write=True)
        return self._read(wanted.name, live=wanted.name)

    def _delete(self, name: str) -> bool:
        self._run("prune", lambda: delete_beside(self._client, name), write=True)  # first: a name may come again
        self._run("prune", lambda: self._client.delete_collection(name), write=True)
        return True

    def _run(self, doing: str, action: Callable[[], T], *, write: bool = False) -> T:
        return self._server.patience.run(doing, lambda _: action(), write=write)

    def _read(self, name: str, *, live: str | None) -> Version:
        client = self._client
        header = self._run("read", lambda: read_collection(client, name, self._server.location, None)).header
        metadata = self._run("read", lambda: client.get_collection(name)).config.metadata or {}
        pairs = self._run("read", lambda: client.count(name, exact=True)).count
        number = version_number(self._name, name) or 0
        return Version(name, number, pairs, name == live, is_finished(metadata), header.fingerprint)

    def _wait_for_index(self, name: str, wait_s: float) -> None:
        end = time.monotonic() + wait_s
        while (status := self._run("verify", lambda: self._client.get_collection(name)).status) != _INDEXED:
            if status == models.CollectionStatus.RED:
                raise MemoryStoreError(f"{name!r} is in status red, an error of the server: see its log")
            if time.monotonic() >= end:
                return
            time.sleep(0.5)
