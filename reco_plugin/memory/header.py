"""The header of a memory: fingerprint and figures, stored as ``memory.json`` in a folder.

What is large lies beside it, see :mod:`.kept` and :mod:`.kept_served`. Older versions kept all of it in the header.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FingerprintMismatch, MemoryFull, MemoryReadOnly, MemoryStoreError
from ..files import PARTIAL, write_whole
from ..fingerprint import are_one_encoder
from ..types import Fingerprint
from .learned import split_learned
from .said import FORMAT as SAID_FORMAT
from .said import SaidRecord, change_said, unpack_said

FORMAT = 1
"""Version of the header; a memory of a newer one is refused."""
HEADER_NAME = "memory.json"
_SIGNS = {"shard", "opinions.jsonl"}
"""Names beside it that only a memory has."""


@dataclass(frozen=True)
class Header:
    """What a memory stores about itself."""

    fingerprint: Fingerprint  # the encoder of its vectors
    calibration: dict[str, Any] = field(default_factory=dict)
    """What was learned about the pairs, as JSON values, unread; empty before the first calibration."""
    format: int = FORMAT  # version of this header
    learning: dict[str, Any] = field(default_factory=dict)
    """Which process began to learn from the pairs, and when; empty once it ended."""
    said: Mapping[str, SaidRecord] = field(default_factory=dict)
    """Id -> what somebody said of an answer, as JSON values, unread; oldest first."""

    @property
    def opinions(self) -> int:
        """How many there are of what people said, without what is damaged."""
        return sum(one.get("format") == SAID_FORMAT for one in self.said.values())

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of the header as it is stored, and of what was learned beside it."""
        small, large = split_learned(self.calibration)
        told = to_json("", self) | {"trust": small}
        return len(json.dumps(told).encode()), len(large)


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
    """The header as JSON-like values, without what lies beside it.

    Raises:
        InputError: a calibration that JSON cannot hold.
    """
    return {
        "kind": kind,
        "fingerprint": asdict(header.fingerprint),
        "format": header.format,
        "trust": split_learned(header.calibration)[0],
        "calibration": {},  # its name in a file of an older version
        **({"learning": header.learning} if header.learning else {}),
    }


def from_json(stored: Any, place: str) -> tuple[str, Header]:
    """Kind and header from the output of :func:`to_json`, or of an older version, with all that it holds.

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
        feedback = stored.get("feedback") or {}  # of an older version
        feedback = feedback if isinstance(feedback, dict) else {"format": -1}  # damaged, likewise
        said = change_said({}, unpack_said(feedback, fingerprint.dimension), ())
        return str(stored["kind"]), Header(fingerprint, calibration, int(stored["format"]), learning, said)
    except (KeyError, TypeError, ValueError) as error:
        raise MemoryStoreError(f"{place} is damaged ({error!r}): {RESTORE}") from error


def write_header(folder: Path, kind: str, header: Header) -> None:
    """Write ``memory.json``, durably."""
    text = json.dumps(to_json(kind, header), indent=2, ensure_ascii=False)
    try:
        write_whole(folder / HEADER_NAME, lambda file: file.write(text.encode()))
    except OSError as error:
        raise write_error(folder / HEADER_NAME, error) from error


def write_error(path: Path, error: OSError) -> MemoryStoreError:
    """The error of a file or folder of a memory that cannot be written."""
    kind = MemoryStoreError
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind = MemoryFull
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
        kind = MemoryReadOnly
    return kind(f"cannot write {path}: {error.strerror or error}")


def read_header(folder: Path) -> tuple[str, Header] | None:
    """Kind and header of the memory in a folder, without what lies beside it; None for an empty folder.

    Raises:
        MemoryStoreError: the folder holds something else, or an unreadable header.
    """
    path = folder / HEADER_NAME
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        _refuse_strangers(folder)
        return None
    except NotADirectoryError:
        raise MemoryStoreError(f"{str(folder)!r} is a file, and a memory is a folder or the URL of a server") from None
    except (OSError, ValueError) as error:
        raise MemoryStoreError(f"{path} cannot be read ({error}): {RESTORE}") from error


def open_folder(folder: Path, kind: str, fingerprint: Fingerprint | None, *, create: bool) -> Header:
    """The header of the memory in a folder, without what lies beside it; a new folder gets one.

    The header is written before any pair, so a folder without one holds no pairs.
    """
    found = read_header(folder)
    if found is not None:
        if found[0] != kind:
            raise MemoryStoreError(
                f"the memory at {str(folder)!r} is of kind {found[0]!r}, which this version does not open: build it "
                "again in an empty folder"
            )
        check_fingerprint(found[1].fingerprint, fingerprint, str(folder))
        return found[1]
    header = new_header(fingerprint, str(folder), create=create)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemoryStoreError(f"cannot make the folder {str(folder)!r}: {error}") from error
    write_header(folder, kind, header)
    return header


def refuse_missing_data(data: Path, header: Header, *, create: bool) -> None:
    """Refuse a header without data, unless building: its creation was interrupted, or its data was deleted.

    Of what was learned from pairs, the creation was not interrupted: an empty memory would hide that they are lost.
    """
    if header.calibration:
        raise MemoryStoreError(
            f"{data} is missing beside {HEADER_NAME}, and pairs were there, since they were learned from: it was "
            "deleted, or a backup lacks it. Restore it, or delete the folder and build the memory again"
        )
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
    if not _SIGNS.isdisjoint(strangers):
        raise MemoryStoreError(
            f"{str(folder)!r} holds a memory without its {HEADER_NAME}, which says by which encoder it was made: "
            "restore that file from a backup, or take that of another memory of the same model and kind, and run "
            "`reco memory calibrate`"
        )
    if strangers:
        named = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        raise MemoryStoreError(
            f"{str(folder)!r} holds something else: {named}, but no {HEADER_NAME}; choose an empty folder"
        )


RESTORE = "restore it from a backup, or build the memory again in an empty folder"
