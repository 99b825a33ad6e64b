"""Versions of a memory in folders: ``NAME--v2`` and so on, and ``NAME`` a link to the one in use, replaced atomically.

A version that is being built is called ``NAME--v2.partial`` and renamed when it is finished. Whoever has ``NAME`` open
resolved the link when opening, and goes on with its version.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from ..errors import ConfigError, MemoryLocked, MemoryStoreError
from ..files import PARTIAL, sync_folder
from ..types import Fingerprint
from .header import read_header
from .opening import open_memory
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


class FolderVersions:
    """The versions of the memory of this name; the same words as for a server's, see ``versions.py``."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._link = Path(place).expanduser()

    def all(self) -> list[Version]:
        """All versions, the oldest first; a plain folder of the name counts as number 0."""
        return self._versions(counted=True)

    def begin(self, fingerprint: Fingerprint) -> str:
        """The name of a new version; its folder, :meth:`folder`, is for the caller to make.

        Raises:
            FingerprintMismatch: the version in use is of another encoder, which its readers would go on using.
        """
        versions = self._versions()
        check_same_encoder(versions, fingerprint, self._link.name, "--memory")
        taken = [number for name in self._names() if (number := self._number(name)) is not None]
        return version_name(
            self._link.name, 1 + max([*taken, *(1 for version in versions if not version.number)], default=0)
        )

    def folder(self, name: str) -> Path:
        """Where a version is, or is being built."""
        finished = self._link.with_name(name)
        return finished if finished.exists() else self._partial(name)

    def finish(self, name: str, pairs: int, fingerprint: Fingerprint, *, wait_s: float = 0.0) -> Version:
        """Verify a version that was built, and closed, and give it its name.

        Raises:
            MemoryStoreError: another number of pairs.
            FingerprintMismatch: another encoder.
        """
        memory = open_memory(self.folder(name), fingerprint, create=False)
        try:
            version = Version(name, self._number(name) or 0, memory.count(), False, True, memory.header.fingerprint)
        finally:
            memory.close()
        check_holds(version, pairs)
        if not self._link.with_name(name).exists():
            self._partial(name).rename(self._link.with_name(name))
            sync_folder(self._link.parent)
        return version

    def use(self, name: str) -> Version:
        """Let the name stand for a version, in one step. A plain folder of the name first becomes version 1.

        Raises:
            ConfigError: there is no such version.
            FingerprintMismatch: it is of another encoder than the one in use.
            MemoryLocked: the plain folder is open.
            MemoryStoreError: its building was not finished.
        """
        versions = self._versions()
        wanted = check_usable(versions, name, repr(str(self._link)))
        check_same_encoder(versions, wanted.fingerprint, self._link.name, "--memory")
        if wanted.number:
            self._make_way()
            new = self._link.with_name(f".{self._link.name}.{uuid.uuid4().hex[:8]}")
            new.symlink_to(name, target_is_directory=True)
            new.replace(self._link)
            sync_folder(self._link.parent)
        used = self._read(name, counted=True)
        assert used is not None  # noqa: S101 - it was there, and nothing deletes what is in use
        return used

    def rollback(self) -> Version:
        """Go back to the newest finished version before the one in use.

        Raises:
            MemoryStoreError: there is none.
        """
        return self.use(before(self._versions(), self._link.name).name)

    def prune(self, keep: int = 1) -> list[str]:
        """Delete versions that nobody uses but for the newest finished ones; returns their names.

        Args:
            keep: finished versions to keep besides the one in use.
        """
        return [name for name in prunable(self._versions(), keep) if self._delete(name)]

    def unfinished(self, fingerprint: Fingerprint) -> str | None:
        """The newest version whose building was interrupted, by the same encoder; None where there is none."""
        return newest_unfinished(self._versions(), fingerprint)

    def close(self) -> None:
        """Nothing to let go of."""

    def _partial(self, name: str) -> Path:
        return self._link.with_name(name + PARTIAL)

    def _number(self, name: str) -> int | None:
        return version_number(self._link.name, name)

    def _names(self) -> list[str]:
        """Names of all versions, also those that are being built, the smallest number first."""
        parent = self._link.parent
        found = {entry.name.removesuffix(PARTIAL) for entry in parent.iterdir()} if parent.is_dir() else set()
        return sorted(
            (name for name in found if self._number(name) is not None), key=lambda name: self._number(name) or 0
        )

    def _versions(self, *, counted: bool = False) -> list[Version]:
        """The versions; counting opens each, which takes seconds where it holds millions."""
        plain = [self._link.name] if self._link.is_dir() and not self._link.is_symlink() else []
        return [
            version for name in [*plain, *self._names()] if (version := self._read(name, counted=counted)) is not None
        ]

    def _read(self, name: str, *, counted: bool) -> Version | None:
        """What is known of a version; None where there is no memory yet."""
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
        """Rename a plain folder of the name to version 1; who had it open would then write elsewhere."""
        if not self._link.exists() or self._link.is_symlink():
            return
        first = self._link.with_name(version_name(self._link.name, 1))
        if first.exists():
            raise ConfigError(f"both {self._link} and {first} are folders: rename one of them")
        try:
            open_memory(self._link, None, create=False).close()
        except MemoryLocked as error:
            raise MemoryLocked(
                f"{error} Only the first swap needs this: it renames the folder to {first.name}; later ones go under "
                "running readers"
            ) from error
        self._link.rename(first)

    def _delete(self, name: str) -> bool:
        """Delete a version unless somebody has it open."""
        folder = self.folder(name)
        try:
            open_memory(folder, None, create=False).close()
        except MemoryLocked:
            return False
        except MemoryStoreError:  # damaged, or not begun
            pass
        gone = self._partial(name)  # so that nothing takes a half deleted one for whole
        if folder != gone:
            folder.rename(gone)
        shutil.rmtree(gone)
        return True


def _count(folder: Path) -> int | None:
    """Pairs in a folder; None where another process has it open."""
    try:
        memory = open_memory(folder, None, create=False)
    except MemoryLocked:
        return None
    try:
        return memory.count()
    finally:
        memory.close()
