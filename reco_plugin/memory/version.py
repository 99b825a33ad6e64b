"""A version of a memory: one of several collections or folders, of which one name stands for one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError, FingerprintMismatch, MemoryStoreError
from ..types import Fingerprint


@dataclass(frozen=True)
class Version:
    """One collection or folder behind the name.

    Attributes:
        name: of the collection or folder.
        number: counts up from 1; 0 for a folder that no version was built beside.
        pairs: how many it holds; None where that was not asked, or another process has the folder open.
        live: the name stands for it.
        finished: its building came to its end.
        fingerprint: the encoder of its vectors.
    """

    name: str
    number: int
    pairs: int | None
    live: bool
    finished: bool
    fingerprint: Fingerprint


def version_name(name: str, number: int) -> str:
    """Name of a version.

    >>> version_name("reco", 3)
    'reco--v3'
    """
    return f"{name}--v{number}"


def version_number(name: str, version: str) -> int | None:
    """The number in a version's name; None for what is no version of this name.

    >>> version_number("reco", "reco--v3"), version_number("reco", "shop--v3")
    (3, None)
    """
    start, _, number = version.rpartition("--v")
    return int(number) if start == name and number.isdecimal() else None


def check_holds(version: Version, pairs: int) -> None:
    """Refuse a version that does not hold what was written.

    Raises:
        MemoryStoreError: another number of pairs.
    """
    if version.pairs != pairs:
        raise MemoryStoreError(
            f"{version.name!r} holds {version.pairs or 0:,} pairs, expected {pairs:,}: something else wrote to it, or "
            "a write was lost. It was not put to use; see `reco memory versions`, and build again"
        )


def check_usable(versions: Sequence[Version], name: str, place: str) -> Version:
    """The version that is to be put to use.

    Raises:
        ConfigError: there is no such version.
        MemoryStoreError: its building was not finished.
    """
    wanted = next((version for version in versions if version.name == name), None)
    if wanted is None:
        known = ", ".join(version.name for version in versions) or "none"
        raise ConfigError(f"there is no version {name!r} of {place}: {known}")
    if not wanted.finished:
        raise MemoryStoreError(f"the building of {name!r} was not finished: build again, and prune it")
    return wanted


def check_same_encoder(versions: Sequence[Version], fingerprint: Fingerprint, alias: str, way_out: str) -> None:
    """Refuse a version of another encoder than the one in use.

    Raises:
        FingerprintMismatch: naming both.
    """
    live = next((version for version in versions if version.live), None)
    if live is not None and (live.fingerprint.digest, live.fingerprint.dimension) != (
        fingerprint.digest,
        fingerprint.dimension,
    ):
        raise FingerprintMismatch(
            f"{live.name!r}, which is in use as {alias!r}, is of encoder {live.fingerprint}, the other of "
            f"{fingerprint}: whoever reads it goes on with the old encoder. Build the new one under another name "
            f"({way_out}), and start its readers with the new model"
        )


def before(versions: Sequence[Version], alias: str) -> Version:
    """The newest finished version before the one in use.

    Raises:
        MemoryStoreError: there is none.
    """
    live = next((version.number for version in versions if version.live), 0)
    older = [version for version in versions if version.finished and version.number < live]
    if not older:
        raise MemoryStoreError(f"there is no finished version of {alias!r} before the one in use")
    return older[-1]


def prunable(versions: Sequence[Version], keep: int) -> list[str]:
    """Names of versions that are not in use, but for the newest finished ones.

    Args:
        versions: the oldest first.
        keep: finished versions to keep besides the one in use.
    """
    idle = [version for version in versions if not version.live]
    finished = [version for version in idle if version.finished]
    kept = {version.name for version in finished[len(finished) - keep :]} if keep else set()
    return [version.name for version in idle if version.name not in kept]


def newest_unfinished(versions: Sequence[Version], fingerprint: Fingerprint) -> str | None:
    """The newest version whose building was interrupted, by the same encoder; None where there is none."""
    begun = [each.name for each in versions if not each.finished and each.fingerprint == fingerprint]
    return begun[-1] if begun else None
