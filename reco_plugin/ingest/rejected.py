"""Rejected rows: listed with their reasons and counted; too many of them stop the run.

Lists are files beside the memory, one JSON object per line; complete at the end, and missing if nothing is listed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from ..data.rows import Rejected
from ..errors import DataError
from .items import Encoded, Skipped

PARTIAL = ".part"
LOOK_AFTER = 200
"""Rows after which the share of rejected ones is checked."""
_SHOWN = 3
_COLUMN = re.compile(r"column '[^']*'$")
_COLUMNS = "; this row has "
"""Before the columns of a row in a reason: they differ from row to row, and only the first row's are reported."""
_PARTICULARS = re.compile(
    r"""https?://\w\S*|b?'[^']*'|b?"[^"]*"|0x[0-9a-f]+|\([^()]*bytes\)"""
    r"""|(?<!HTTP )(?<![A-Za-z]-)\b\d[\d.,x]*\b"""  # neither HTTP 404 nor UTF-8
)


class Listing:
    """A file that is written as ``NAME.part`` and renamed at the end. The file of an earlier run is deleted first.

    Raises:
        DataError: its folder cannot be written.
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
        """Rename the file; None if nothing was listed."""
        if self._file is None:
            return None
        try:
            self._file.close()
            self._part.replace(self.path)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror or error}") from None
        self._file = None
        return self.path


class RejectedRows:
    """The rejected rows of one run."""

    def __init__(self, path: Path, max_rate: float) -> None:
        self._listing, self._max_rate = Listing(path), max_rate
        self._kinds: Counter[str] = Counter()
        self._columns: dict[str, str] = {}
        self.count, self._damaged = 0, 0

    def add(self, row: Rejected) -> None:
        """List a row."""
        self._listing.add({"where": row.where, "id": row.id, "reason": row.reason})
        kind = kind_of(row)
        self._kinds[kind] += 1
        self._columns.setdefault(kind, row.reason.partition(_COLUMNS)[2])
        self.count += 1
        self._damaged += not row.half

    @property
    def reasons(self) -> dict[str, int]:
        """Kinds of reasons, the most frequent first, with their counts."""
        columns = {kind: f"; the first of them has {has}" for kind, has in self._columns.items() if has}
        return {kind + columns.get(kind, ""): times for kind, times in self._kinds.most_common()}

    def check(self, read: int, *, at_end: bool = False) -> None:
        """Stop a run that rejects too many rows; rows that only lack their image or text are listed, but do not count.

        Raises:
            DataError: above the largest rate, after 200 rows or at the end; or no row is good.
        """
        too_many = self._damaged > self._max_rate * read or self.count == read
        if not self.count or not too_many or not (at_end or read >= LOOK_AFTER):
            return
        path = self.finish()
        share = f"more than the allowed share of {self._max_rate:g} (--max-error-rate)"
        why = "so that none is left" if self.count == read else share
        often = "; ".join(f"{times:,} x {kind}" for kind, times in list(self.reasons.items())[:_SHOWN])
        raise DataError(
            f"stopped: {self.count:,} of {read:,} rows were rejected, {why}. Most frequent: {often}. All are listed in "
            f"{path}. What was written stays; fix the source and run it again, it resumes where it stopped"
        )

    def finish(self) -> Path | None:
        """Finish the list; None if nothing was rejected."""
        return self._listing.finish()


def reject_repeated(row: Encoded | Skipped) -> Rejected:
    """The rejection of a row whose id came before with other content."""
    where = row.where if isinstance(row, Encoded) else f"id {row.id!r}"
    return Rejected(where, "its id came before in this source, with other content", row.id)


def kind_of(row: Rejected) -> str:
    """The reason and its column, without the values of one row.

    >>> kind_of(Rejected("line 2", "its image 'a.jpg' cannot be read: No such file or directory"))
    'its image … cannot be read: No such file or directory'
    >>> kind_of(Rejected("line 2", "https://shop.de/1.jpg answered HTTP 404"))
    '… answered HTTP 404'
    >>> kind_of(Rejected("line 2", "is not UTF-8: b'F'; save the file as UTF-8"))
    'is not UTF-8: …; save the file as UTF-8'
    >>> kind_of(Rejected("line 2, column 'text'", "missing or empty; this row has ['image']"))
    "column 'text': missing or empty"
    """
    reason = _PARTICULARS.sub("…", row.reason.partition(_COLUMNS)[0])
    return f"{column[0]}: {reason}" if (column := _COLUMN.search(row.where)) else reason
