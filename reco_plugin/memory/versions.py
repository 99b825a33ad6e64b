"""Versions of a memory on a server: build a new one beside the one in use, swap atomically, go back, tidy up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qdrant_client import QdrantClient, models

from ..errors import MemoryStoreError
from ..types import Fingerprint
from .collection import (
    aliased,
    create_alias,
    make_collection,
    read_collection,
    version_numbers,
)
from .header import Header, check_fingerprint
from .server import Server
from .version import (
    Version,
    before,
    check_holds,
    check_same_encoder,
    check_usable,
    newest_unfinished,
    prunable,
    version_name,
    version_number,
)

BUILD_KEY = "reco_build"
"""Key in a collection's metadata that says whether its building was finished."""


class Versions:
    """The versions of one memory; its alias is the name of the memory's collection in the settings."""

    def __init__(self, client: QdrantClient, server: Server, alias: str) -> None:
        self._client, self._server, self._alias = client, server, alias
        self._patience = server.patience

    def all(self) -> list[Version]:
        """All versions, the oldest first."""
        client = self._client
        with self._said("read") as run:
            live = run(lambda: aliased(client, self._alias))
            return [
                self._read(version_name(self._alias, number), live=live)
                for number in run(lambda: version_numbers(client, self._alias))
            ]

    def begin(self, fingerprint: Fingerprint) -> str:
        """Make an empty version, which nothing reads yet; returns the collection's name.

        Raises:
            FingerprintMismatch: the version in use is of another encoder, which its readers would go on using.
            MemoryStoreError: the alias cannot be one, because a collection has its name.
        """
        client = self._client
        with self._said("build") as run:
            live = run(lambda: aliased(client, self._alias))
            if live is None and run(lambda: client.collection_exists(self._alias)):
                raise MemoryStoreError(
                    f"{self._alias!r} at {self._server.location!r} is a collection itself, not an alias that could be "
                    "swapped. Build under another name (RECO_MEMORY_COLLECTION), and let readers use that"
                )
            if live is not None:
                self._refuse_other([self._read(live, live=live)], fingerprint)
            name = version_name(self._alias, 1 + max(run(lambda: version_numbers(client, self._alias)), default=0))
            unfinished = {BUILD_KEY: {"finished": False}}
            run(lambda: make_collection(client, name, Header(fingerprint), self._server.options, **unfinished))
            return name

    def finish(self, name: str, pairs: int, fingerprint: Fingerprint, *, wait_s: float = 0.0) -> Version:
        """Verify a version that was built and mark it as finished.

        Args:
            name: of the collection.
            pairs: how many it must hold.
            fingerprint: the encoder that must have made it.
            wait_s: seconds to wait until the server has indexed it.

        Raises:
            MemoryStoreError: another number of pairs.
            FingerprintMismatch: another encoder.
        """
        with self._said("verify") as run:
            self._wait_for_index(name, wait_s, run)
            version = self._read(name, live=None)
            check_fingerprint(version.fingerprint, fingerprint, f"{self._server.location} (collection {name})")
            check_holds(version, pairs)
            run(lambda: self._client.update_collection(name, metadata={BUILD_KEY: {"finished": True}}), write=True)
            return self._read(name, live=None)

    def use(self, name: str) -> Version:
        """Let the alias stand for a version, in one step that readers do not notice.

        Raises:
            ConfigError: there is no such version.
            FingerprintMismatch: it is of another encoder than the one in use.
            MemoryStoreError: its building was not finished.
        """
        versions = self.all()
        wanted = check_usable(versions, name, f"{self._alias!r} at {self._server.location!r}")
        self._refuse_other(versions, wanted.fingerprint)
        drop = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self._alias))
        operations: list[Any] = [
            *([drop] if any(version.live for version in versions) else []),
            create_alias(name, self._alias),
        ]
        with self._said("swap") as run:
            run(lambda: self._client.update_collection_aliases(operations), write=True)
            return self._read(name, live=name)

    def rollback(self) -> Version:
        """Go back to the newest finished version before the one in use.

        Raises:
            MemoryStoreError: there is none.
        """
        return self.use(before(self.all(), self._alias).name)

    def prune(self, keep: int = 1) -> list[str]:
        """Delete versions that are not in use but for the newest finished ones; returns their names.

        Args:
            keep: finished versions to keep besides the one in use.
        """
        gone = prunable(self.all(), keep)
        with self._said("prune") as run:
            for name in gone:
                run(lambda name=name: self._client.delete_collection(name), write=True)
        return gone

    def unfinished(self, fingerprint: Fingerprint) -> str | None:
        """The newest version whose building was interrupted, by the same encoder; None where there is none."""
        return newest_unfinished(self.all(), fingerprint)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    @contextmanager
    def _said(self, doing: str) -> Iterator[Callable[..., Any]]:
        """Hands out what runs a call of this doing, with patience and our errors."""
        patience = self._patience
        yield lambda action, write=False: patience.run(doing, lambda _: action(), write=write)

    def _read(self, name: str, *, live: str | None) -> Version:
        client = self._client
        with self._said("read") as run:
            header = run(lambda: read_collection(client, name, self._server.location, None)).header
            metadata = run(lambda: client.get_collection(name)).config.metadata or {}
            pairs = run(lambda: client.count(name, exact=True)).count
        finished = metadata.get(BUILD_KEY, {}).get("finished") is not False
        number = version_number(self._alias, name) or 0
        return Version(name, number, pairs, name == live, finished, header.fingerprint)

    def _refuse_other(self, versions: list[Version], fingerprint: Fingerprint) -> None:
        check_same_encoder(versions, fingerprint, self._alias, "RECO_MEMORY_COLLECTION")

    def _wait_for_index(self, name: str, wait_s: float, run: Callable[..., Any]) -> None:
        end = time.monotonic() + wait_s
        while (status := run(lambda: self._client.get_collection(name)).status) != models.CollectionStatus.GREEN:
            if status == models.CollectionStatus.RED:
                raise MemoryStoreError(f"{name!r} is in status red, an error of the server: see its log")
            if time.monotonic() >= end:
                return
            time.sleep(0.5)


def open_versions(server: Server, alias: str) -> Versions:
    """The versions of the memory that is reached by this alias."""
    return Versions(server.connect(), server, alias)
