"""Versions of a memory: several folders or collections behind one name, one of them in use at a time."""

from __future__ import annotations

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from ..errors import ConfigError, FingerprintMismatch, MemoryLocked, MemoryStoreError
from ..files import PARTIAL, in_home, sync_folder
from ..fingerprint import are_one_encoder
from ..settings import MemoryOptions
from ..types import Fingerprint
from .header import Header, read_header


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


@dataclass(frozen=True)
class Version:
    """One folder or collection behind the name."""

    name: str  # of the folder or collection
    number: int  # counts up from 1; 0 for a plain folder without other versions
    live: bool  # in use
    finished: bool  # completely built
    header: Header  # its encoder, and what was learned, and the opinions
    count: Callable[[], int | None]

    @cached_property
    def pairs(self) -> int | None:
        """How many it holds; None if another process has the folder open. To count opens a folder, which takes time."""
        return self.count()

    @property
    def fingerprint(self) -> Fingerprint:
        """The encoder of its vectors."""
        return self.header.fingerprint


class Versions(ABC):
    """The versions of one memory: build a new one beside the one in use, swap atomically, roll back, prune."""

    def __init__(self, name: str, place: str, setting: str) -> None:
        """Keep the name of the link or alias; for messages, its place and the setting that chooses another memory."""
        self._name, self.place, self._setting = name, place, setting

    @abstractmethod
    def all(self) -> list[Version]:
        """All versions, oldest first."""

    @abstractmethod
    def _mark_finished(self, name: str) -> None:
        """Mark a version as finished."""

    @abstractmethod
    def _swap(self, wanted: Version) -> None:
        """Move the link or alias."""

    @abstractmethod
    def _delete(self, name: str) -> bool:
        """Delete a version; False if a process has it open."""

    @abstractmethod
    def close(self) -> None:
        """Release the connection, if there is one."""

    def begin(self, fingerprint: Fingerprint) -> str:
        """Begin an empty version, which is not in use yet; returns its name. Who fills a folder's makes it.

        Raises:
            FingerprintMismatch: the version in use is of another encoder, and so are its readers.
        """
        self.in_use(fingerprint)
        taken = [version.number or 1 for version in self.all()]  # a plain folder becomes version 1
        return version_name(self._name, 1 + max(taken, default=0))

    def finish(self, name: str, pairs: int, *, wait_s: float = 0.0) -> Version:
        """Verify a version that was built and closed, and mark it as finished.

        ``wait_s`` are seconds to wait until a server has indexed it.

        Raises:
            MemoryStoreError: another number of pairs.
        """
        built = self._find(name)
        if built.pairs != pairs:
            raise MemoryStoreError(
                f"{name!r} holds {built.pairs or 0:,} pairs, expected {pairs:,}: something else wrote to it, or a "
                "write was lost. It was not put to use; see `reco memory versions`, and build again"
            )
        self._mark_finished(name)
        return self._find(name)

    def use(self, name: str) -> Version:
        """Put a version to use, atomically, without interrupting readers.

        Raises:
            ConfigError: there is no such version.
            FingerprintMismatch: it is of another encoder than the one in use.
            MemoryLocked: the first swap of a folder, while it is open.
            MemoryStoreError: it is not finished.
        """
        self._swap(self.usable(name))
        return next(version for version in self.all() if version.live)

    def rollback(self) -> Version:
        """Go back to the newest finished version before the one in use.

        Raises:
            MemoryStoreError: there is none.
        """
        versions = self.all()
        live = next((version.number for version in versions if version.live), 0)
        older = [version for version in versions if version.finished and version.number < live]
        if not older:
            raise MemoryStoreError(f"there is no finished version of {self._name!r} before the one in use")
        return self.use(older[-1].name)

    def prune(self) -> list[str]:
        """Delete versions that are not in use, except the newest finished one; returns their names."""
        idle = [version for version in self.all() if not version.live]
        newest = [version.name for version in idle if version.finished][-1:]
        return [version.name for version in idle if version.name not in newest and self._delete(version.name)]

    def in_use(self, fingerprint: Fingerprint) -> Version | None:
        """The version in use; None if there is none yet.

        Raises:
            FingerprintMismatch: it is of another encoder than a new version would be.
        """
        live = next((version for version in self.all() if version.live), None)
        if live is not None and not are_one_encoder(live.fingerprint, fingerprint):
            raise FingerprintMismatch(
                f"{live.name!r} is of encoder {live.fingerprint}, the other of {fingerprint}: readers of "
                f"{self._name!r} use one encoder. Build the new one under another name ({self._setting}), and start "
                "its readers with the new model"
            )
        return live

    def find_unfinished(self, fingerprint: Fingerprint) -> Version | None:
        """The newest unfinished version of the same encoder; None without one."""
        begun = [version for version in self.all() if not version.finished]
        return next((each for each in reversed(begun) if are_one_encoder(each.fingerprint, fingerprint)), None)

    def usable(self, name: str) -> Version:
        """A version that can be put to use; errors as in :meth:`use`."""
        wanted = self._find(name)
        if not wanted.finished:
            raise MemoryStoreError(
                f"the build of {name!r} was not finished: run it again, or delete it by reco memory versions --prune"
            )
        self.in_use(wanted.fingerprint)
        return wanted

    def _find(self, name: str) -> Version:
        versions = {version.name: version for version in self.all()}
        if name not in versions:
            raise ConfigError(f"{self.place} has no version {name!r}, only: {', '.join(versions) or 'none'}")
        return versions[name]


class FolderVersions(Versions):
    """Folders ``NAME--v2`` and so on, and ``NAME`` a link to the one in use, replaced atomically.

    A version that is being built is called ``NAME--v2.partial`` and renamed when it is finished. A process that has
    ``NAME`` open resolved the link when opening, and continues with its version.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        """The versions of a folder, also where the place is a link to it."""
        link = in_home(place)
        while link.is_symlink() and version_number(link.name, link.readlink().name) is None:
            link = link.parent / link.readlink()
        if not link.name.strip("."):
            raise ConfigError(f"versions lie beside their memory's folder: give its name, not --memory {place}")
        self._link = link
        super().__init__(link.name, repr(str(link)), "--memory")

    def all(self) -> list[Version]:
        """All versions, oldest first; a plain folder of the name has number 0."""
        parent = self._link.parent
        names = {entry.name.removesuffix(PARTIAL) for entry in parent.iterdir()} if parent.is_dir() else set()
        numbers = {name: version_number(self._name, name) for name in names}
        if not self._link.is_symlink():
            numbers[self._name] = 0
        ordered = sorted((number, name) for name, number in numbers.items() if number is not None)
        return [version for number, name in ordered if (version := self._read(name, number)) is not None]

    def folder(self, name: str) -> Path:
        """Where a version is, or is being built."""
        finished = self._link.with_name(name)
        return finished if finished.exists() else self._link.with_name(name + PARTIAL)

    def close(self) -> None:
        """Nothing to release."""

    def _mark_finished(self, name: str) -> None:
        self.folder(name).replace(self._link.with_name(name))
        sync_folder(self._link.parent)

    def _swap(self, wanted: Version) -> None:
        """Replace the link. A plain folder of the name first becomes version 1."""
        if not wanted.number:
            return
        if self._link.exists() and not self._link.is_symlink():
            first = self._link.with_name(version_name(self._name, 1))
            if _count(self._link) is None:
                raise MemoryLocked(
                    f"{self.place} is open in another process. Only the first swap needs it closed: it renames the "
                    f"folder to {first.name}; later ones need no stopped readers"
                )
            self._link.rename(first)
        new = self._link.with_name(f".{self._name}.{uuid.uuid4().hex[:8]}")
        new.symlink_to(wanted.name, target_is_directory=True)
        new.replace(self._link)
        sync_folder(self._link.parent)

    def _delete(self, name: str) -> bool:
        folder = self.folder(name)
        if _count(folder) is None:
            return False
        gone = self._link.with_name(name + PARTIAL)  # so that a half-deleted one does not count as finished
        shutil.rmtree(folder.replace(gone))
        return True

    def _read(self, name: str, number: int) -> Version | None:
        """Describe a version; None if there is no memory yet."""
        folder = self.folder(name)
        header = read_header(folder) if folder.is_dir() else None
        if header is None:
            return None
        live, finished = self._link.resolve() == folder.resolve(), not folder.name.endswith(PARTIAL)
        return Version(name, number, live, finished, header, partial(_count, folder))


def _count(folder: Path) -> int | None:
    """Pairs in a folder; None if another process has it open, 0 if it is damaged or not begun."""
    from .edge import EdgeMemory

    try:
        with closing(EdgeMemory.open(str(folder), None, MemoryOptions(), create=False)) as memory:
            return memory.count()
    except MemoryLocked:
        return None
    except MemoryStoreError:
        return 0
