"""A memory's header, and what lies beside it, where it is kept in a folder, or in RAM only.

In a folder, what was learned is a file named after its digest, and what people said a file that grows. What is new is
written first, then the header that names it, then what nothing names any more is deleted: whoever is killed in between
leaves the old state or the new one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..files import write_whole
from .header import Header, read_header, write_error, write_header
from .learned import digest_of, join_learned, split_learned
from .opinion_file import OPINIONS_NAME, OpinionFile
from .said import SaidRecord, change_said

_LEARNED = "learned-{}.json"
_DIGITS = 16


class KeptInRam:
    """Keeps nothing: the header counts while the memory is open."""

    def read(self, header: Header) -> Header:
        """The header as it is."""
        return header

    def keep_calibration(self, header: Header, calibration: dict[str, Any]) -> Header:
        """The header with what was learned.

        Raises:
            InputError: JSON cannot hold it.
        """
        split_learned(calibration)
        return replace(header, calibration=dict(calibration))

    def keep_note(self, header: Header, note: dict[str, Any]) -> Header:
        """The header with a note of who learns."""
        return replace(header, learning=dict(note))

    def keep_said(self, header: Header, added: Sequence[SaidRecord], gone: Collection[str]) -> Header:
        """The header after somebody said something, or took it back."""
        return replace(header, said=change_said(header.said, added, gone))


class KeptInFolder:
    """Keeps all of it in the memory's folder."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder, kind
        self._opinions = OpinionFile(folder / OPINIONS_NAME)
        self._inline = False  # whether what people said is in the header, of an older version
        self._older: list[SaidRecord] = []  # that of it which counts

    def read(self, header: Header) -> Header:
        """A header with what lies beside it.

        Raises:
            MemoryStoreError: what people said cannot be read.
        """
        learned, said = header.calibration, self._opinions.read(header.said)
        self._inline, self._older = bool(header.said), [said[name] for name in header.said if name in said]
        if digest_of(learned):
            with suppress(OSError):  # whoever reads what was learned says that it is missing
                learned = join_learned(learned, self._file_of(digest_of(learned)).read_bytes())
        return replace(header, calibration=learned, said=said)

    def keep_calibration(self, header: Header, calibration: dict[str, Any]) -> Header:
        """Write what was learned; errors as of a disk, or see :meth:`KeptInRam.keep_calibration`."""
        return self._write(replace(header, calibration=dict(calibration)))

    def keep_note(self, header: Header, note: dict[str, Any]) -> Header:
        """Write a note of who learns."""
        return self._write(replace(header, learning=dict(note)))

    def keep_said(self, header: Header, added: Sequence[SaidRecord], gone: Collection[str]) -> Header:
        """Append what somebody said, or took back."""
        older = [one for one in self._older if one["id"] not in set(gone)]
        moved = replace(header, said=self._opinions.change([*older, *added], gone))
        self._older = []
        return self._write(moved) if self._inline else moved

    def _write(self, header: Header) -> Header:
        """Write what lies beside the header, then the header, and delete what is named no more."""
        if self._older:
            self._opinions.change(self._older, ())
            self._older = []
        small, data = split_learned(header.calibration)
        name = self._file_of(digest_of(small))
        try:
            if data and not (name.exists() and name.read_bytes() == data):
                write_whole(name, lambda file: file.write(data))
        except OSError as error:
            raise write_error(name, error) from error
        write_header(self._folder, self._kind, header)
        self._inline = False
        with suppress(OSError):  # the next one deletes it
            for other in self._folder.glob(_LEARNED.format("*") + "*"):  # also what was not written to its end
                if other != name:
                    other.unlink()
        return header

    def _file_of(self, digest: str) -> Path:
        return self._folder / _LEARNED.format(digest[:_DIGITS])


def read_whole_header(folder: Path) -> tuple[str, Header] | None:
    """Kind and header of the memory in a folder, with what lies beside it; None for an empty folder.

    Raises:
        MemoryStoreError: the folder holds something else, or what cannot be read.
    """
    found = read_header(folder)
    return None if found is None else (found[0], KeptInFolder(folder, found[0]).read(found[1]))
