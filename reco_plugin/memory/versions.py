"""Versions of a memory: several collections or folders behind one name, one of them in use at a time."""

from __future__ import annotations

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, FingerprintMismatch, MemoryLocked, MemoryStoreError
from ..files import PARTIAL, in_home, sync_folder
from ..fingerprint import are_one_encoder
from ..types import Fingerprint
from .header import Header, read_header
from .kept import read_whole_header
from .opening import open_memory

_WAITS = "not-in-use-yet"
"""File in the folder of a version that was built to be put to use, and was not yet."""


@dataclass(frozen=True)
class Version:
    """One collection or folder behind the name."""

    name: str  # of the collection or folder
    number: int  # counts up from 1; 0 for a plain folder without other versions
    pairs: int | None  # how many it holds; None if not counted, or if another process has the folder open
    live: bool  # in use
    finished: bool  # completely built
    fingerprint: Fingerprint  # the encoder of its vectors
    waits: bool = False  # finished by a build that was to put it to use, and did not


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
        """Keep the name of the link or alias; for messages, its place and the setting that chooses another memory."""
        self._name, self.place, self._setting = name, place, setting

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

        ``wait_s`` are seconds to wait until a server has indexed it.

        Raises:
            MemoryStoreError: another number of pairs.
            FingerprintMismatch: another encoder.
        """

    @abstractmethod
    def header_of(self, version: Version) -> Header:
        """Header of a version, with what was learned and said of it."""

    @abstractmethod
    def check_swap(self) -> None:
        """Check, before a long build, that a version could be put to use.

        Raises:
            MemoryLocked: the first swap of a folder, while it is open.
            ConfigError: a folder is in the way.
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
        return self._swap(self._usable(name, versions), versions)

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
        """Delete versions that are not in use, except the newest ``keep`` finished ones; returns their names."""
        idle = [version for version in self._known() if not version.live]
        finished = [version for version in idle if version.finished]
        kept = {version.name for version in finished[len(finished) - keep :]} if keep else set()
        return [version.name for version in idle if version.name not in kept and self._delete(version.name)]

    def in_use(self, fingerprint: Fingerprint) -> Version | None:
        """The version in use, perhaps without a count of its pairs; None if there is none yet.

        Raises:
            FingerprintMismatch: it is of another encoder than a new version would be.
        """
        versions = self._known()
        self._refuse_other(versions, fingerprint)
        return next((version for version in versions if version.live), None)

    def find_unfinished(self, fingerprint: Fingerprint) -> Version | None:
        """The newest version of the same encoder that is unfinished, or waits to be put to use; None without one."""
        versions = self._known()
        live = max((each.number for each in versions if each.live), default=0)
        begun = [each for each in versions if not each.finished or (each.waits and each.number > live)]
        return next((each for each in reversed(begun) if are_one_encoder(each.fingerprint, fingerprint)), None)

    def _usable(self, name: str, versions: Sequence[Version]) -> Version:
        wanted = next((version for version in versions if version.name == name), None)
        if wanted is None:
            known = ", ".join(version.name for version in versions) or "none"
            raise ConfigError(f"there is no version {name!r} of {self.place}: {known}")
        if not wanted.finished:
            raise MemoryStoreError(f"the building of {name!r} was not finished: build again, and prune it")
        self._refuse_other(versions, wanted.fingerprint)
        return wanted

    def _known(self) -> list[Version]:
        """All versions, oldest first, without counting pairs where that takes long."""
        return self.all()

    @abstractmethod
    def _swap(self, wanted: Version, versions: Sequence[Version]) -> Version:
        """Put one of these versions to use."""

    @abstractmethod
    def _delete(self, name: str) -> bool:
        """Delete a version; False if a process has it open."""

    def _refuse_other(self, versions: Sequence[Version], fingerprint: Fingerprint) -> None:
        """Refuse a version of another encoder than the one in use."""
        live = next((version for version in versions if version.live), None)
        if live is not None and not are_one_encoder(live.fingerprint, fingerprint):
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


class FolderVersions(Versions):
    """Folders ``NAME--v2`` and so on, and ``NAME`` a link to the one in use, replaced atomically.

    A version that is being built is called ``NAME--v2.partial`` and renamed when it is finished. A process that has
    ``NAME`` open resolved the link when opening, and continues with its version.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._link = in_home(place)
        if not self._link.name.strip("."):
            raise ConfigError(f"versions lie beside their memory's folder: give its name, not --memory {place}")
        super().__init__(self._link.name, repr(str(self._link)), "--memory")

    def all(self) -> list[Version]:
        """All versions, oldest first; a plain folder of the name has number 0.

        Raises:
            ConfigError: the name is a link of somebody's, to a folder that is no version of it.
        """
        return self._versions(counted=True)

    def begin(self, fingerprint: Fingerprint) -> str:
        """The name of a new version; the caller creates its folder, :meth:`folder`."""
        versions = self._known()
        self._refuse_other(versions, fingerprint)
        taken = [self._number(name) or 0 for name in self._names()]
        plain = [1 for version in versions if not version.number]  # becomes version 1 at the first swap
        return version_name(self._name, 1 + max(taken + plain, default=0))

    def folder(self, name: str) -> Path:
        """Where a version is, or is being built."""
        finished = self._link.with_name(name)
        return finished if finished.exists() else self._partial(name)

    def find(self, name: str) -> Path:
        """The folder of a version that can be put to use; errors as in :meth:`Versions.use`."""
        return self.folder(self._usable(name, self._known()).name)

    def finish(self, name: str, pairs: int, fingerprint: Fingerprint, *, wait_s: float = 0.0) -> Version:
        """See :meth:`Versions.finish`; the folder gets its final name here."""
        with closing(open_memory(self.folder(name), fingerprint, create=False)) as memory:
            version = Version(name, self._number(name) or 0, memory.count(), False, True, memory.header.fingerprint)
        self._check_holds(version, pairs)
        (self.folder(name) / _WAITS).touch()  # until it is put to use, so that a build is not done twice
        if not self._link.with_name(name).exists():
            self._partial(name).rename(self._link.with_name(name))
            sync_folder(self._link.parent)
        return version

    def header_of(self, version: Version) -> Header:
        """See :meth:`Versions.header_of`; the folder may be open elsewhere."""
        found = read_whole_header(self.folder(version.name) if version.number else self._link)
        return Header(version.fingerprint) if found is None else found[1]

    def check_swap(self) -> None:
        """See :meth:`Versions.check_swap`."""
        self._place_of_first()

    def close(self) -> None:
        """Nothing to release."""

    def _known(self) -> list[Version]:
        return self._versions(counted=False)

    def _swap(self, wanted: Version, versions: Sequence[Version]) -> Version:
        """Replace the link. A plain folder of the name first becomes version 1."""
        if wanted.number:
            self._make_way()
            new = self._link.with_name(f".{self._name}.{uuid.uuid4().hex[:8]}")
            new.symlink_to(wanted.name, target_is_directory=True)
            new.replace(self._link)
            sync_folder(self._link.parent)
            (self._link / _WAITS).unlink(missing_ok=True)
        used = self._read(wanted.name, counted=True)
        assert used is not None  # noqa: S101 - it was there, and nothing deletes what is in use
        return used

    def _partial(self, name: str) -> Path:
        return self._link.with_name(name + PARTIAL)

    def _number(self, name: str) -> int | None:
        return version_number(self._name, name)

    def _names(self) -> list[str]:
        """Names of all versions, also unfinished ones, smallest number first."""
        parent = self._link.parent
        found = {entry.name.removesuffix(PARTIAL) for entry in parent.iterdir()} if parent.is_dir() else set()
        return sorted(
            (name for name in found if self._number(name) is not None), key=lambda name: self._number(name) or 0
        )

    def _versions(self, *, counted: bool) -> list[Version]:
        """The versions; counting opens each, which takes seconds for millions of pairs."""
        self._refuse_other_link()
        plain = [self._link.name] if self._link.is_dir() and not self._link.is_symlink() else []
        return [
            version for name in [*plain, *self._names()] if (version := self._read(name, counted=counted)) is not None
        ]

    def _refuse_other_link(self) -> None:
        """Refuse a link that no swap made: it would be replaced, and the memory behind it left out."""
        if not self._link.is_symlink() or not self._link.exists():
            return
        there = self._link.parent / self._link.readlink()
        if self._number(there.name) is None or there.parent.resolve() != self._link.parent.resolve():
            raise ConfigError(
                f"{self.place} is a link to {str(there)!r}, and versions lie beside the folder itself: give --memory "
                f"{there}"
            )

    def _read(self, name: str, *, counted: bool) -> Version | None:
        """Describe a version; None if there is no memory yet."""
        folder = self.folder(name) if name != self._link.name else self._link
        found = read_header(folder) if folder.is_dir() else None
        if found is None:
            return None
        pairs = _count(folder) if counted else None
        live = self._link.resolve() == folder.resolve()
        finished = not folder.name.endswith(PARTIAL)
        waits = finished and not live and (folder / _WAITS).exists()
        return Version(name, self._number(name) or 0, pairs, live, finished, found[1].fingerprint, waits)

    def _make_way(self) -> None:
        """Rename a plain folder of the name to version 1; a process that has it open would then write elsewhere."""
        if (first := self._place_of_first()) is not None:
            self._link.rename(first)

    def _place_of_first(self) -> Path | None:
        """Where a plain folder of the name goes; None if there is none."""
        if not self._link.exists() or self._link.is_symlink():
            return None
        first = self._link.with_name(version_name(self._link.name, 1))
        if first.exists():
            raise ConfigError(f"both {self._link} and {first} are folders: rename one of them")
        try:
            open_memory(self._link, None, create=False).close()
        except MemoryLocked as error:
            raise MemoryLocked(
                f"{error} Only the first swap needs this: it renames the folder to {first.name}; later ones need no "
                "stopped readers"
            ) from error
        return first

    def _delete(self, name: str) -> bool:
        """Delete a version unless a process has it open."""
        folder = self.folder(name)
        try:
            open_memory(folder, None, create=False).close()
        except MemoryLocked:
            return False
        except MemoryStoreError:  # damaged, or not begun
            pass
        gone = self._partial(name)  # so that a half-deleted one does not count as finished
        if folder != gone:
            folder.rename(gone)
        shutil.rmtree(gone)
        return True


def _count(folder: Path) -> int | None:
    """Pairs in a folder; None if another process has it open."""
    try:
        with closing(open_memory(folder, None, create=False)) as memory:
            return memory.count()
    except MemoryLocked:
        return None
