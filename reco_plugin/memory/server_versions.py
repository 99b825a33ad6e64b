"""Versions of a memory on a server, behind an alias: the collection of the settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from qdrant_client import models

from ..types import Fingerprint
from .collection import (
    BUILD_KEY,
    ServedState,
    collection_of_alias,
    count_pairs,
    create_alias,
    make_collection,
    read_collection,
    version_numbers,
)
from .connection import Server
from .versions import Version, Versions, version_name

T = TypeVar("T")


class ServerVersions(Versions):
    """The versions that an alias can point to."""

    def __init__(self, server: Server, alias: str) -> None:
        super().__init__(alias, f"{alias!r} at {server.location!r}", "RECO_MEMORY_COLLECTION")
        self._client, self._server = server.connect(), server

    def all(self) -> list[Version]:
        """All versions, oldest first."""
        client, name, live = self._client, self._name, self._live()
        numbers = self._run("read", lambda: version_numbers(client, name))
        return [self._read(number, live) for number in numbers]

    def close(self) -> None:
        """Release the connection."""
        self._client.close()

    def begin(self, fingerprint: Fingerprint) -> str:
        """Create an empty collection; see :meth:`Versions.begin`."""
        client, name, options = self._client, super().begin(fingerprint), self._server.options
        unfinished = {BUILD_KEY: {"finished": False}}
        self._run("build", lambda: make_collection(client, name, fingerprint, options, **unfinished), write=True)
        return name

    def finish(self, name: str, pairs: int, *, wait_s: float = 0.0) -> Version:
        """See :meth:`Versions.finish`."""
        end = time.monotonic() + wait_s
        while self._run("verify", lambda: self._client.get_collection(name)).status == models.CollectionStatus.YELLOW:
            if time.monotonic() >= end:
                break
            time.sleep(0.5)
        return super().finish(name, pairs)

    def _mark_finished(self, name: str) -> None:
        finished = {BUILD_KEY: {"finished": True}}
        self._run("verify", lambda: self._client.update_collection(name, metadata=finished), write=True)

    def _swap(self, wanted: Version) -> None:
        operations: list[Any] = [create_alias(wanted.name, self._name)]
        if self._live() is not None:
            drop = models.DeleteAlias(alias_name=self._name)
            operations.insert(0, models.DeleteAliasOperation(delete_alias=drop))
        self._run("swap", lambda: self._client.update_collection_aliases(operations), write=True)

    def _delete(self, name: str) -> bool:
        self._run("prune", lambda: self._client.delete_collection(name), write=True)
        return True

    def _run(self, doing: str, action: Callable[[], T], *, write: bool = False) -> T:
        return self._server.run(doing, lambda _: action(), write=write)

    def _live(self) -> str | None:
        return self._run("read", lambda: collection_of_alias(self._client, self._name))

    def _read(self, number: int, live: str | None) -> Version:
        client, name = self._client, version_name(self._name, number)
        made_by = self._run("read", lambda: read_collection(client, name, self._server.location, None))
        metadata = self._run("read", lambda: client.get_collection(name)).config.metadata or {}
        header = ServedState(self._server, lambda: client, name).read(None, lambda: made_by)
        finished = (metadata.get(BUILD_KEY) or {}).get("finished") is not False
        pairs = self._run("read", lambda: count_pairs(client, name))
        return Version(name, number, name == live, finished, header, lambda: pairs)
