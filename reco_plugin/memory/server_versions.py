"""Versions of a memory on a server, behind an alias: the collection of the settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from qdrant_client import models

from ..errors import MemoryStoreError
from ..types import Fingerprint
from .collection import (
    BUILD_KEY,
    ServedState,
    collection_of_alias,
    count_pairs,
    create_alias,
    is_finished,
    make_collection,
    read_collection,
    version_numbers,
)
from .server import Server
from .versions import Version, Versions, version_name, version_number

T = TypeVar("T")


class ServerVersions(Versions):
    """The versions that an alias can point to."""

    def __init__(self, server: Server, alias: str) -> None:
        super().__init__(alias, f"{alias!r} at {server.location!r}", "RECO_MEMORY_COLLECTION")
        self._client, self._server = server.connect(), server

    def all(self, *, counted: bool = True) -> list[Version]:
        """All versions, oldest first."""
        client, name = self._client, self._name
        live = self._run("read", lambda: collection_of_alias(client, name))
        numbers = self._run("read", lambda: version_numbers(client, name))
        return [self._read(version_name(name, number), live) for number in numbers]

    def check_swap(self) -> None:
        """Nothing to check: an alias moves at any time."""

    def close(self) -> None:
        """Release the connection."""
        self._client.close()

    def begin(self, fingerprint: Fingerprint) -> str:
        """Create an empty collection; see :meth:`Versions.begin`."""
        client, alias, name = self._client, self._name, super().begin(fingerprint)
        live = self._run("build", lambda: collection_of_alias(client, alias))
        if live is None and self._run("build", lambda: client.collection_exists(alias)):
            raise MemoryStoreError(
                f"{self.place} is a collection itself, not an alias that could be swapped. Build under another name "
                "(RECO_MEMORY_COLLECTION), and let readers use that"
            )
        options, unfinished = self._server.options, {BUILD_KEY: {"finished": False}}
        self._run("build", lambda: make_collection(client, name, fingerprint, options, **unfinished), write=True)
        return name

    def finish(self, name: str, pairs: int, fingerprint: Fingerprint, *, wait_s: float = 0.0) -> Version:
        """See :meth:`Versions.finish`."""
        end = time.monotonic() + wait_s
        while self._run("verify", lambda: self._client.get_collection(name)).status == models.CollectionStatus.YELLOW:
            if time.monotonic() >= end:
                break
            time.sleep(0.5)
        return super().finish(name, pairs, fingerprint)

    def _mark_finished(self, name: str) -> None:
        finished = {BUILD_KEY: {"finished": True}}
        self._run("verify", lambda: self._client.update_collection(name, metadata=finished), write=True)

    def _swap(self, wanted: Version) -> None:
        operations: list[Any] = [create_alias(wanted.name, self._name)]
        if self._run("swap", lambda: collection_of_alias(self._client, self._name)) is not None:
            drop = models.DeleteAlias(alias_name=self._name)
            operations.insert(0, models.DeleteAliasOperation(delete_alias=drop))
        self._run("swap", lambda: self._client.update_collection_aliases(operations), write=True)

    def _delete(self, name: str) -> bool:
        self._run("prune", lambda: self._client.delete_collection(name), write=True)
        return True

    def _run(self, doing: str, action: Callable[[], T], *, write: bool = False) -> T:
        return self._server.run(doing, lambda _: action(), write=write)

    def _read(self, name: str, live: str | None) -> Version:
        client, number = self._client, version_number(self._name, name) or 0
        made_by = self._run("read", lambda: read_collection(client, name, self._server.location, None))
        metadata = self._run("read", lambda: client.get_collection(name)).config.metadata or {}
        pairs = self._run("read", lambda: count_pairs(client, name))
        header = ServedState(self._server, lambda: client, name).read(lambda: made_by)
        return Version(name, number, pairs, name == live, is_finished(metadata), header)
