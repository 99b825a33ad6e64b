"""Versions of a memory: several collections or folders behind one name, one of them in use at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError, FingerprintMismatch, MemoryStoreError
from ..types import Fingerprint


@dataclass(frozen=True)
class Version:
    """One collection or folder behind the name."""

    name: str  # of the collection or folder
    number: int  # counts up from 1; 0 for a plain folder without other versions
    pairs: int | None  # how many it holds; None if not counted, or if another process has the folder open
    live: bool  # in use
    finished: bool  # completely built
    fingerprint: Fingerprint  # the encoder of its vectors


def version_name(name: str, number: int) -> str:
    """Name of a version.

    >>> version_name("reco", 3)
    'reco--v3'
    """
    return f"{name}--v{number}"


def version_number(name: str, version: str) -> int | None:
    """The number in a version's name; None if it is not a version of this name.

    >>> version_number("reco", "reco--v3"), version_number("reco", "shop--v3")
    (3, None)
    """
    start, _, number = version.rpartition("--v")
    return int(number) if start == name and number.isdecimal() else None


class Versions(ABC):
    """The versions of one memory: build a new one beside the one in use, swap atomically, roll back, prune."""

    def __init__(self, name: str, place: str, setting: str) -> None:
        """Keep the names; reads nothing yet.

        Args:
            name: of the link or alias to the version in use.
            place: where the versions are, for messages.
            setting: that chooses another memory, for messages.
        """
        self._name, self._place, self._setting = name, place, setting

    @abstractmethod
    def all(self) -> list[Version]:
        """All versions, oldest first."""

    @abstractmethod
    def begin(self, fingerprint: Fingerprint) -> str:
        """Begin an empty version, which is not in use yet; returns its name.

        Raises:
            FingerprintMismatch: the version in use is of another encoder, and so are its readers.
            MemoryStoreError: the name is a collection itself.
        """

    @abstractmethod
    def finish(self, name: str, pairs: int, fingerprint: Fingerprint, *, wait_s: float = 0.0) -> Version:
        """Verify a version that was built and closed, and mark it as finished.

        Args:
            name: of the version.
            pairs: how many it must hold.
            fingerprint: the expected encoder.
            wait_s: seconds to wait until a server has indexed it.

        Raises:
            MemoryStoreError: another number of pairs.
            FingerprintMismatch: another encoder.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the connection, if there is one."""

    def use(self, name: str) -> Version:
        """Put a version to use, atomically, without interrupting readers.

        Raises:
            ConfigError: there is no such version.
            FingerprintMismatch: it is of another encoder than the one in use.
            MemoryLocked: the first swap of a folder, while it is open.
            MemoryStoreError: it is not finished.
        """
        versions = self._known()
        wanted = next((version for version in versions if version.name == name), None)
        if wanted is None:
            known = ", ".join(version.name for version in versions) or "none"
            raise ConfigError(f"there is no version {name!r} of {self._place}: {known}")
        if not wanted.finished:
            raise MemoryStoreError(f"the building of {name!r} was not finished: build again, and prune it")
        self._refuse_other(versions, wanted.fingerprint)
        return self._swap(wanted, versions)

    def rollback(self) -> Version:
        """Go back to the newest finished version before the one in use.

        Raises:
            MemoryStoreError: there is none.
        """
        versions = self._known()
        live = next((version.number for version in versions if version.live), 0)
        older = [version for version in versions if version.finished and version.number < live]
        if not older:
            raise MemoryStoreError(f"there is no finished version of {self._name!r} before the one in use")
        return self.use(older[-1].name)

    def prune(self, keep: int = 1) -> list[str]:
        """Delete versions that are not in use, except the newest finished ones; returns their names.

        Args:
            keep: finished versions to keep besides the one in use.
        """
        idle = [version for version in self._known() if not version.live]
        finished = [version for version in idle if version.finished]
        kept = {version.name for version in finished[len(finished) - keep :]} if keep else set()
        return [version.name for version in idle if version.name not in kept and self._delete(version.name)]

    def find_unfinished(self, fingerprint: Fingerprint) -> str | None:
        """The newest unfinished version of the same encoder, or None."""
        begun = [each.name for each in self._known() if not each.finished and each.fingerprint == fingerprint]
        return begun[-1] if begun else None

    @abstractmethod
    def _known(self) -> list[Version]:
        """All versions, oldest first, without counting pairs where that takes long."""

    @abstractmethod
    def _swap(self, wanted: Version, versions: Sequence[Version]) -> Version:
        """Put one of these versions to use."""

    @abstractmethod
    def _delete(self, name: str) -> bool:
        """Delete a version; False if a process has it open."""

    def _refuse_other(self, versions: Sequence[Version], fingerprint: Fingerprint) -> None:
        """Refuse a version of another encoder than the one in use."""
        live = next((version for version in versions if version.live), None)
        if live is not None and (live.fingerprint.digest, live.fingerprint.dimension) != (
            fingerprint.digest,
            fingerprint.dimension,
        ):
            raise FingerprintMismatch(
                f"{live.name!r}, which is in use as {self._name!r}, is of encoder {live.fingerprint}, the other of "
                f"{fingerprint}: its readers use the old encoder. Build the new one under another name "
                f"({self._setting}), and start its readers with the new model"
            )

    @staticmethod
    def _check_holds(version: Version, pairs: int) -> None:
        """Refuse a version with another number of pairs."""
        if version.pairs != pairs:
            raise MemoryStoreError(
                f"{version.name!r} holds {version.pairs or 0:,} pairs, expected {pairs:,}: something else wrote to it, "
                "or a write was lost. It was not put to use; see `reco memory versions`, and build again"
            )
