"""Lists beside the memory, one JSON object per line; whole at the end, and none where there is nothing to list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from ..errors import DataError

PARTIAL = ".part"


class Listing:
    """A file that is written to ``NAME.part`` and named in the end. One of an earlier run goes when this one begins.

    Raises:
        DataError: its folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._part = path, path.with_name(path.name + PARTIAL)
        self._file: TextIO | None = None
        try:
            self.path.unlink(missing_ok=True)
            self._part.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from None

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry.

        Raises:
            DataError: it cannot be written.
        """
        try:
            if self._file is None:
                self._part.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._part.open("w", encoding="utf-8", errors="backslashreplace", buffering=1)
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            raise DataError(f"{self._part} cannot be written: {error.strerror or error}") from None

    def finish(self) -> Path | None:
        """Name the file; None where nothing was listed."""
        if self._file is None:
            return None
        try:
            self._file.close()
            self._part.replace(self.path)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror or error}") from None
        self._file = None
        return self.path
