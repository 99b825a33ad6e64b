"""Versions of a memory in folders: ``NAME--v2`` and so on, and ``NAME`` a link to the one in use, replaced atomically.

A version that is being built is called ``NAME--v2.partial`` and renamed when it is finished. A process that has
``NAME`` open resolved the link when opening, and continues with its version.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ..errors import ConfigError, MemoryLocked, MemoryStoreError
from ..files import PARTIAL, sync_folder
from ..types import Fingerprint
from .header import read_header
from .opening import open_memory
from .version import Version, Versions, version_name, version_number


class FolderVersions(Versions):
    """The versions that a link of this name can point to."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._link = Path(place).expanduser()
        super().__init__(self._link.name, repr(str(self._link)), "--memory")

    def all(self) -> list[Version]:
        """All versions, oldest first; a plain folder of the name has number 0."""
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

    def finish(self, name: str, pairs: int, fingerprint: Fingerprint, *, wait_s: float = 0.0) -> Version:
        """See :meth:`Versions.finish`; the folder gets its final name here."""
        with closing(open_memory(self.folder(name), fingerprint, create=False)) as memory:
            version = Version(name, self._number(name) or 0, memory.count(), False, True, memory.header.fingerprint)
        self._check_holds(version, pairs)
        if not self._link.with_name(name).exists():
            self._partial(name).rename(self._link.with_name(name))
            sync_folder(self._link.parent)
        return version

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
        plain = [self._link.name] if self._link.is_dir() and not self._link.is_symlink() else []
        return [
            version for name in [*plain, *self._names()] if (version := self._read(name, counted=counted)) is not None
        ]

    def _read(self, name: str, *, counted: bool) -> Version | None:
        """Describe a version; None if there is no memory yet."""
        folder = self.folder(name) if name != self._link.name else self._link
        found = read_header(folder) if folder.is_dir() else None
        if found is None:
            return None
        pairs = _count(folder) if counted else None
        live = self._link.resolve() == folder.resolve()
        return Version(
            name, self._number(name) or 0, pairs, live, not folder.name.endswith(PARTIAL), found[1].fingerprint
        )

    def _make_way(self) -> None:
        """Rename a plain folder of the name to version 1; a process that has it open would then write elsewhere."""
        if not self._link.exists() or self._link.is_symlink():
            return
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
        self._link.rename(first)

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
