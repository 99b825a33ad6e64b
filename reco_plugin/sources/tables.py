"""Tables: ``.jsonl``, ``.csv`` and ``.tsv``, one row per image.

A table is opened once to find the header and the parts, and once more for each part, perhaps on another machine. Rows
are not kept in memory, since a table may be larger than the RAM.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError
from ..types import Pair
from .cells import RowMaker
from .location import ColumnNames, Location, check_columns, describe_missing_ids
from .rows import FilePart, Rejected, RowError, Rows, stamp_of

JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*JSON_LINES, ".csv", ".tsv")
_ROWS_PER_PART = 10_000


class Lines:
    """Lines of an open file as text; bytes that are not UTF-8 become single surrogates."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset = 0  # bytes read so far
        self.line = 0  # lines read so far

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = next(self._file)
        self.offset += len(raw)
        self.line += 1
        return (raw.removeprefix(codecs.BOM_UTF8) if self.line == 1 else raw).decode("utf-8", "surrogateescape")

    def seek(self, offset: int = 0, line: int = 0) -> None:
        """Go to an offset in bytes and its line number."""
        self._file.seek(offset)
        self.offset, self.line = offset, line


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    """Open a text file."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    with file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise DataError(f"{path} is UTF-16: save it as UTF-8 (in Excel: as 'CSV UTF-8')")
        file.seek(0)
        yield Lines(file)


@dataclass(frozen=True)
class TableRow:
    """One row: its last line in the file, from 1, and its values without empty and null ones."""

    path: Path
    line: int
    values: dict[str, Any]

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}, line {self.line}"

    def error(self, column: str, problem: object) -> RowError:
        """Return an error that names file, line and column."""
        return RowError(f"{self.where}, column {column!r}", str(problem))


@dataclass(frozen=True)
class Head:
    """Header of a csv or tsv; empty for a .jsonl."""

    separator: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableFile:
    """A table on disk. Values of csv and tsv are texts."""

    path: Path
    needed: tuple[str, ...] = ()  # columns that every row must have

    def rows(self) -> Iterator[TableRow | RowError]:
        """Read the rows in order; a row that cannot be parsed, or lacks a needed column, is yielded as an error."""
        with open_lines(self.path) as lines:
            for row in self.read(lines, self.head(lines)):
                lacks = [] if isinstance(row, RowError) else [name for name in self.needed if name not in row.values]
                if isinstance(row, TableRow) and lacks:
                    yield row.error(lacks[0], f"missing or empty; this row has {sorted(row.values)}")
                else:
                    yield row

    def good_rows(self) -> Iterator[TableRow]:
        """Read the rows in order; raises the first error."""
        for row in self.rows():
            if isinstance(row, RowError):
                raise row
            yield row

    def first_values(self, lines: Lines) -> Sequence[str]:
        """The values of the first line of a csv or tsv, which may be a header."""
        return next(filter(None, csv.reader(lines, delimiter=self._separator(lines))), [])

    def head(self, lines: Lines) -> Head:
        """Read the header of a csv or tsv."""
        if self.is_json:
            return Head()
        separator = self._separator(lines)
        try:
            columns = tuple(next(filter(None, csv.reader(lines, delimiter=separator, strict=True)), ()))
        except csv.Error as error:
            raise DataError(f"{self.path}: its first line is not a header: {error}") from None
        if not columns:
            raise DataError(f"{self.path} is empty: its first line must name the columns, as in image,text")
        if twice := [name for name, times in Counter(columns).items() if name and times > 1]:
            raise DataError(f"{self.path} has the column {twice[0]!r} twice: rename one of them")
        if not all(map(_is_utf8, columns)):
            raise DataError(f"{self.path} is not UTF-8: save it as UTF-8")
        check_columns(str(self.path), columns, self.needed)
        return Head(separator, columns)

    def _separator(self, lines: Lines) -> str:
        """A comma (tsv: a tab); or a semicolon, if the first line contains only that."""
        first = next((line for line in lines if line.strip()), "")
        lines.seek()
        usual = "\t" if self.path.suffix.lower() == ".tsv" else ","
        return ";" if ";" in first and usual not in first else usual

    @property
    def is_json(self) -> bool:
        """Whether each line is a JSON object."""
        return self.path.suffix.lower() in JSON_LINES

    def read(self, lines: Lines, head: Head) -> Iterator[TableRow | RowError]:
        """Read the rows from here on; a row that cannot be parsed is yielded as an error."""
        if self.is_json:
            return (self._parse(line, lines.line) for line in lines if line.strip())
        return self._text_rows(lines, head)

    def _parse(self, line: str, number: int) -> TableRow | RowError:
        """Parse a line of JSON."""
        where = f"{self.path}, line {number}"
        if not _is_utf8(line):
            return RowError(where, "is not UTF-8: save the file as UTF-8")
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            return RowError(where, f"is not JSON: {error}")
        if not isinstance(values, dict):
            return RowError(where, f"is not a JSON object: {line.strip()[:60]!r}")
        return TableRow(self.path, number, {k: v for k, v in values.items() if v is not None and v != ""})

    def _text_rows(self, lines: Lines, head: Head) -> Iterator[TableRow | RowError]:
        """Read the rows of a csv or tsv."""
        reader = csv.reader(lines, delimiter=head.separator, strict=True)
        while True:
            before = lines.line
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lost = f"{error} (up to line {lines.line}); is a quote left open?"
                yield RowError(f"{self.path}, after line {before}", lost)
            else:
                if any(values):  # spreadsheets write empty rows at the end
                    yield self._text_row(lines.line, head, values)

    def _text_row(self, line: int, head: Head, values: list[str]) -> TableRow | RowError:
        where = f"{self.path}, line {line}"
        if len(values) != len(head.columns):
            has = f"{len(values)} values for {len(head.columns)} columns"
            return RowError(where, f"{has}; quote values with line breaks or {head.separator!r}")
        if not all(map(_is_utf8, values)):
            return RowError(where, "is not UTF-8: save the file as UTF-8")
        pairs = zip(head.columns, values, strict=True)
        return TableRow(self.path, line, {name: value for name, value in pairs if value != ""})


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text)


def open_table(path: Path, names: ColumnNames, where: Location) -> Rows:
    """Open the rows of a table, 10,000 per part; ``where`` has its options."""
    table, stamp, folder = TableFile(path, names.needed), stamp_of(path), where.images or path.parent
    parts, note, total = list[FilePart](), "", 0
    with open_lines(path) as lines:
        head = table.head(lines)
        rows, begun = table.read(lines, head), (lines.offset, lines.line)
        while some := list(islice(rows, _ROWS_PER_PART)):
            if not parts:
                first = some[0].values if table.is_json and isinstance(some[0], TableRow) else {}
                note = describe_missing_ids(str(path), head.columns or [*first, *([] if first else [names.id])], names)
                maker = RowMaker(names, folder, names.id in (head.columns or first))
            name = f"{path}, {len(some):,} rows after line {begun[1]}" if parts else str(path)
            parts.append(FilePart(name, partial(_read_part, table, head, begun, len(some), maker)))
            total, begun = total + len(some), (lines.offset, lines.line)
    return Rows(str(path), tuple(parts), total, note=note, folders=(folder,), stamps={path: stamp}, columns=names)


def _read_part(
    table: TableFile, head: Head, begun: tuple[int, int], rows: int, maker: RowMaker
) -> Iterator[Pair | Rejected]:
    with open_lines(table.path) as lines:
        lines.seek(*begun)
        for row in islice(table.read(lines, head), rows):
            yield row.rejected if isinstance(row, RowError) else maker.make(row.where, row.values)
