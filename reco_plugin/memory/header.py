"""The header of a memory: fingerprint and calibration, stored as ``memory.json`` in a folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FingerprintMismatch, InputError, MemoryStoreError
from ..files import PARTIAL, write_whole
from ..fingerprint import are_one_encoder
from ..types import Fingerprint

FORMAT = 1
"""Version of the header; a memory of a newer one is refused."""
HEADER_NAME = "memory.json"


@dataclass(frozen=True)
class Header:
    """What a memory stores about itself."""

    fingerprint: Fingerprint  # the encoder of its vectors
    calibration: dict[str, Any] = field(default_factory=dict)
    """What was learned about the pairs, as JSON values, unread; empty before the first calibration."""
    format: int = FORMAT  # version of this header
    learning: dict[str, Any] = field(default_factory=dict)
    """Which process began to learn from the pairs, and when; empty once it ended."""
    feedback: dict[str, Any] = field(default_factory=dict)
    """What people said was wrong, as JSON values, unread; empty while nobody did."""

    @property
    def opinions(self) -> int:
        """How many there are in what people said."""
        said = self.feedback.get("opinions")
        return len(said) if isinstance(said, list) else 0


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
            f"there is no memory at {location!r}. Check the location, or build one: reco memory add --help"
        )
    return Header(fingerprint)


def to_json(kind: str, header: Header) -> dict[str, Any]:
    """The header as JSON-like values.

    Raises:
        InputError: a calibration that JSON cannot hold.
    """
    stored = {"kind": kind, **vars(header), "fingerprint": asdict(header.fingerprint)}
    stored |= {
        "trust": stored["calibration"],
        "calibration": {},
    }  # its name in a file; the empty one is for older versions
    for name in ("learning", "feedback"):
        if not stored[name]:
            del stored[name]
    try:
        json.dumps(stored, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"calibration and feedback must hold JSON values only: {error}") from error
    return stored


def from_json(stored: Any, place: str) -> tuple[str, Header]:
    """Kind and header from the output of :func:`to_json`.

    Raises:
        MemoryStoreError: a newer format, or not a header.
    """
    try:
        if stored["format"] > FORMAT:
            raise MemoryStoreError(
                f"{place} has format {stored['format']}, and this software reads up to {FORMAT}: upgrade reco-plugin"
            )
        mark = stored["fingerprint"]
        fingerprint = Fingerprint(str(mark["name"]), str(mark["digest"]), int(mark["dimension"]))
        calibration = stored.get("trust") or (
            {"format": 0} if stored.get("calibration") else {}
        )  # 0: an older version's
        if not isinstance(calibration, dict):
            calibration = {"format": -1}  # damaged: the memory opens, and says so where calibration is read
        learning = stored.get("learning")
        learning = learning if isinstance(learning, dict) else {}
        feedback = stored.get("feedback") or {}
        feedback = feedback if isinstance(feedback, dict) else {"format": -1}  # damaged, likewise
        return str(stored["kind"]), Header(fingerprint, calibration, int(stored["format"]), learning, feedback)
    except (KeyError, TypeError, ValueError) as error:
        raise MemoryStoreError(f"{place} is damaged ({error!r}): {RESTORE}") from error


def write_header(folder: Path, kind: str, header: Header) -> None:
    """Write ``memory.json``, durably."""
    indent = None if header.feedback else 2  # with one, json writes five times as slowly, and each opinion writes all
    text = json.dumps(to_json(kind, header), indent=indent, ensure_ascii=False)
    try:
        write_whole(folder / HEADER_NAME, lambda file: file.write(text.encode()))
    except OSError as error:
        raise MemoryStoreError(f"cannot write {folder / HEADER_NAME}: {error}") from error


def read_header(folder: Path) -> tuple[str, Header] | None:
    """Kind and header of the memory in a folder; None for an empty folder.

    Raises:
        MemoryStoreError: the folder holds something else, or an unreadable header.
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
    """The header of the memory in a folder; a new folder gets one.

    The header is written before any pair, so a folder without one holds no pairs.
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
    """Refuse a header without data, unless building: its creation was interrupted, or its data was deleted."""
    if not create:
        raise MemoryStoreError(
            f"{data} is missing beside {HEADER_NAME}: its creation was interrupted, or it was deleted. Restore it from "
            "a backup, or fill the memory again: reco memory build, or open with create=True"
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


RESTORE = "restore it from a backup, or build the memory again in an empty folder"
