"""What a memory says of itself: fingerprint and calibration, and ``memory.json`` that holds them in a folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FingerprintMismatch, InputError, MemoryStoreError
from ..files import PARTIAL, write_whole
from ..types import Fingerprint

FORMAT = 1
"""Version of the header; a memory of a newer one is refused."""
HEADER_NAME = "memory.json"


@dataclass(frozen=True)
class Header:
    """What a memory says of itself; stored with it.

    Attributes:
        fingerprint: the encoder of its vectors.
        calibration: JSON-like constants of the gate, empty before the first calibration.
        format: version of this header.
    """

    fingerprint: Fingerprint
    calibration: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def check_fingerprint(stored: Fingerprint, wanted: Fingerprint | None, location: str) -> None:
    """Refuse a memory of another encoder; with nothing wanted, every memory is fine.

    Raises:
        FingerprintMismatch: naming both encoders.
    """
    if wanted is not None and (stored.digest, stored.dimension) != (wanted.digest, wanted.dimension):
        raise FingerprintMismatch(
            f"the memory at {location!r} was built by encoder {stored}, but the model in use is {wanted}. "
            "Open the model that built it, or build a new memory with this model."
        )


def new_header(fingerprint: Fingerprint | None, location: str, *, create: bool) -> Header:
    """The header of a memory that does not exist yet.

    Raises:
        MemoryStoreError: it may not be created, or there is no fingerprint to create it with.
    """
    if not create or fingerprint is None:
        raise MemoryStoreError(
            f"there is no memory at {location!r}. Check the location, or build one: reco memory add --help"
        )
    return Header(fingerprint)


def to_json(kind: str, header: Header) -> dict[str, Any]:
    """The header as JSON-like values.

    Raises:
        InputError: a calibration that JSON cannot hold.
    """
    stored = {"kind": kind, **asdict(header)}
    try:
        json.dumps(stored, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"calibration must hold JSON values only: {error}") from error
    return stored


def from_json(stored: Any, place: str) -> tuple[str, Header]:
    """Kind and header out of what :func:`to_json` made.

    Raises:
        MemoryStoreError: a newer format, or not a header at all.
    """
    try:
        if stored["format"] > FORMAT:
            raise MemoryStoreError(
                f"{place} has format {stored['format']}, and this software reads up to {FORMAT}: upgrade reco-plugin"
            )
        mark = stored["fingerprint"]
        fingerprint = Fingerprint(str(mark["name"]), str(mark["digest"]), int(mark["dimension"]))
        return str(stored["kind"]), Header(fingerprint, dict(stored["calibration"]), int(stored["format"]))
    except (KeyError, TypeError, ValueError) as error:
        raise MemoryStoreError(f"{place} is damaged ({error!r}): {RESTORE}") from error


def write_header(folder: Path, kind: str, header: Header) -> None:
    """Write ``memory.json``, durably."""
    text = json.dumps(to_json(kind, header), indent=2, ensure_ascii=False)
    try:
        write_whole(folder / HEADER_NAME, lambda file: file.write(text.encode()))
    except OSError as error:
        raise MemoryStoreError(f"cannot write {folder / HEADER_NAME}: {error}") from error


def read_header(folder: Path) -> tuple[str, Header] | None:
    """Kind and header of the memory in a folder; None where a new memory may be built.

    Raises:
        MemoryStoreError: the folder holds something else, or a header that cannot be read.
    """
    path = folder / HEADER_NAME
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        _refuse_strangers(folder)
        return None
    except (OSError, ValueError) as error:
        raise MemoryStoreError(f"{path} cannot be read ({error}): {RESTORE}") from error


def open_folder(folder: Path, kind: str, fingerprint: Fingerprint | None, *, create: bool) -> Header:
    """The header of the memory in a folder, which is written first where there is none.

    The header comes before any pair, so a folder without one holds no pair that could be lost.
    """
    found = read_header(folder)
    if found is not None:
        if found[0] != kind:
            raise ConfigError(f"the memory at {str(folder)!r} is of kind {found[0]!r}, not {kind!r}: use kind='auto'")
        check_fingerprint(found[1].fingerprint, fingerprint, str(folder))
        return found[1]
    header = new_header(fingerprint, str(folder), create=create)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemoryStoreError(f"cannot make the folder {str(folder)!r}: {error}") from error
    write_header(folder, kind, header)
    return header


def refuse_missing_data(data: Path, *, create: bool) -> None:
    """A header without data is an interrupted creation, or a memory whose data went away: only builders may go on."""
    if not create:
        raise MemoryStoreError(
            f"{data} is missing beside {HEADER_NAME}: its creation was interrupted, or it was deleted. Restore it from "
            "a backup, or fill the memory anew: reco memory build, or open with create=True"
        )


def _refuse_strangers(folder: Path) -> None:
    try:
        strangers = sorted({entry.name for entry in folder.iterdir()} - {HEADER_NAME + PARTIAL})
    except FileNotFoundError:
        return
    except OSError as error:
        raise MemoryStoreError(f"cannot use {str(folder)!r} as the folder of a memory: {error}") from error
    if strangers:
        named = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        raise MemoryStoreError(
            f"{str(folder)!r} holds something else: {named}, but no {HEADER_NAME}; choose an empty folder"
        )


RESTORE = "restore it from a backup, or build the memory anew in an empty folder"
