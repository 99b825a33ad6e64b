"""The header of a memory: its encoder, what was learned of its pairs, and what people said of its answers.

A folder holds it as ``memory.json``, written anew as a whole; a server as described in :mod:`.collection`.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import FingerprintMismatch, InputError, MemoryFull, MemoryReadOnly, MemoryStoreError
from ..files import PARTIAL, write_whole
from ..fingerprint import are_one_encoder
from ..types import Fingerprint
from ..values import counted

FORMAT = 3
"""Version of the header; no other is read."""
HEADER_NAME = "memory.json"
RESTORE = "restore it from a backup, or build the memory again from its source in an empty folder"
SaidRecord: TypeAlias = Mapping[str, Any]
"""What somebody said of an answer, as JSON values, which a memory does not read."""


def _when(one: SaidRecord) -> tuple[str, int, str]:
    number = one.get("n")
    return str(one.get("at") or ""), number if isinstance(number, int) else 0, str(one["id"])


@dataclass(frozen=True)
class Header:
    """What a memory stores about itself."""

    fingerprint: Fingerprint  # the encoder of its vectors
    calibration: dict[str, Any] = field(default_factory=dict)
    """What was learned about the pairs, as JSON values, unread; empty before the first calibration."""
    said: Mapping[str, SaidRecord] = field(default_factory=dict)
    """Id -> what somebody said of an answer, oldest first."""
    pairs: int = 0
    """Pairs that a folder holds at least: fewer are a loss, more were added since. Always 0 on a server."""

    def with_calibration(self, calibration: dict[str, Any]) -> Header:
        """The same, with what was learned.

        Raises:
            InputError: JSON cannot hold it.
        """
        try:
            json.dumps(calibration, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"calibration must hold JSON values only: {error}") from error
        return replace(self, calibration=dict(calibration))

    def with_said(self, added: Iterable[SaidRecord], gone: Collection[str] = ()) -> Header:
        """The same, after people said something, or took it back: oldest first; what is said again is replaced."""
        dropped = set(gone)
        left = {name: one for name, one in self.said.items() if name not in dropped}
        left |= {str(one["id"]): one for one in added}
        return replace(self, said=dict(sorted(left.items(), key=lambda item: _when(item[1]))))


def check_fingerprint(stored: Fingerprint, wanted: Fingerprint | None, location: str) -> None:
    """Refuse a memory of another encoder; ``wanted=None`` accepts every memory.

    Raises:
        FingerprintMismatch: naming both encoders.
    """
    if wanted is not None and not are_one_encoder(stored, wanted):
        raise FingerprintMismatch(
            f"the memory at {location!r} was built by encoder {stored}, but the model in use is {wanted}. "
            "Open the model that built it, or build a new memory with this model."
        )


def new_header(fingerprint: Fingerprint | None, location: str, *, create: bool) -> Header:
    """The header of a memory that does not exist yet.

    Raises:
        MemoryStoreError: ``create`` is False, or there is no fingerprint.
    """
    if not create or fingerprint is None:
        raise MemoryStoreError(
            f"there is no memory at {location!r}. Check the location, or build one: reco memory build SOURCE "
            f"--memory {location} (to sync into a new one, give --create)"
        )
    return Header(fingerprint)


def mark_of(fingerprint: Fingerprint) -> dict[str, Any]:
    """Version and encoder, as JSON-like values."""
    return {"format": FORMAT, "fingerprint": asdict(fingerprint)}


def read_mark(stored: Any, place: str) -> Fingerprint:
    """The encoder, from the output of :func:`mark_of`.

    Raises:
        MemoryStoreError: another format, or none.
    """
    with damage_of(place):
        if stored["format"] != FORMAT:
            raise MemoryStoreError(
                f"{place} has format {stored['format']!r}, and this version of reco-plugin reads {FORMAT}: build the "
                "memory again, or use the version that made it"
            )
        mark = stored["fingerprint"]
        return Fingerprint(str(mark["name"]), str(mark["digest"]), int(mark["dimension"]))


@contextmanager
def damage_of(place: str) -> Iterator[None]:
    """Say of what is read in the block that it is damaged, where it has another shape."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MemoryStoreError(f"{place} is damaged ({error!r}): {RESTORE}") from error


def write_header(folder: Path, header: Header) -> None:
    """Write ``memory.json``, durably: after a kill it is the old one or the new one."""
    said = [dict(one) for one in header.said.values()]
    learned = {"calibration": header.calibration, "said": said, "pairs": header.pairs}
    stored = mark_of(header.fingerprint) | learned
    try:
        write_whole(folder / HEADER_NAME, lambda file: file.write(json.dumps(stored, ensure_ascii=False).encode()))
    except OSError as error:
        raise write_error(folder / HEADER_NAME, error) from error


def write_error(path: Path, error: OSError) -> MemoryStoreError:
    """The error of a file or folder of a memory that cannot be written."""
    kind = MemoryStoreError
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind = MemoryFull
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
        kind = MemoryReadOnly
    a_file = isinstance(error, FileExistsError)
    why = "it is a file, and a memory is a folder: choose another place" if a_file else error.strerror or error
    return kind(f"cannot write {path}: {why}")


def read_header(folder: Path) -> Header | None:
    """The header of the memory in a folder; None for an empty folder.

    Raises:
        MemoryStoreError: the folder holds something else, or an unreadable header.
    """
    path = folder / HEADER_NAME
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        others = {entry.name for entry in folder.iterdir()} - {HEADER_NAME + PARTIAL} if folder.exists() else set()
        if others:
            raise MemoryStoreError(
                f"{str(folder)!r} holds something else: {', '.join(sorted(others)[:3])}, but no {HEADER_NAME}; choose "
                "an empty folder"
            ) from None
        return None
    except (OSError, ValueError) as error:
        raise MemoryStoreError(f"{path} cannot be read ({error}): {RESTORE}") from error
    fingerprint = read_mark(stored, str(path))
    with damage_of(str(path)):
        learned, pairs = dict(stored["calibration"]), int(stored.get("pairs", 0))
        return Header(fingerprint, learned, pairs=pairs).with_said(stored["said"])


def describe_loss(missing: int) -> str:
    """What to say of a memory without so many of its pairs."""
    return f"{counted(missing, 'pair')} of the memory are lost, because its files are damaged: {RESTORE}"


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def open_folder(folder: Path, fingerprint: Fingerprint | None, *, create: bool) -> Header:
    """The header of the memory in a folder; a new folder gets one.

    The header is written before any pair, so a folder without one holds no pairs.
    """
    if (found := read_header(folder)) is not None:
        check_fingerprint(found.fingerprint, fingerprint, str(folder))
        return found
    header = new_header(fingerprint, str(folder), create=create)
    write_header(folder, header)
    return header
