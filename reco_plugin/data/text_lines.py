"""Text files line by line, with detection of bytes that are not UTF-8."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

_BOM = b"\xef\xbb\xbf"
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # invalid bytes under surrogateescape


class Lines:
    """Lines of a file as text, counted; bytes that are not UTF-8 become lone surrogates.

    Attributes:
        offset: bytes read so far.
        line: lines read so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.offset, self.line = file, 0, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = next(self._file)
        self.offset += len(raw)
        self.line += 1
        return (raw.removeprefix(_BOM) if self.line == 1 else raw).decode("utf-8", "surrogateescape")

    def seek(self, offset: int, line: int) -> None:
        """Go to an earlier offset and line number."""
        self._file.seek(offset)
        self.offset, self.line = offset, line


def is_utf8(text: str) -> bool:
    """Whether a text of :class:`Lines` was UTF-8."""
    return text.isascii() or not _NOT_UTF8.search(text)


def not_utf8(text: str) -> str:
    """The message for a text that was not UTF-8, with its bytes."""
    return f"is not UTF-8: {raw_bytes(text)[:60]!r}; save the file as UTF-8"


def raw_bytes(text: str) -> bytes:
    """The bytes that a text of :class:`Lines` was read from."""
    return text.encode("utf-8", "surrogateescape")
