"""Tables with one row per image: ``.jsonl``, ``.csv`` and ``.tsv``."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError
from ..types import Pair
from .images import RemoteImage
from .row import CellError, ColumnNames, FilePart, Rejected, RowError, RowMaker, SourcePart, id_of, image_of
from .source import propose, stamp_of

SUFFIXES = (".jsonl", ".csv", ".tsv")
PAIR = ("image", "text")

_USUAL = ColumnNames()
_ROWS_PER_STRETCH = 10_000
_SEPARATORS = ",;\t|"
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True)
class TableRow:
    """One row: its last line in the file (from 1) and its values, without empty and null ones."""

    table: TableFile
    line: int
    values: dict[str, Any]

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.table.path}, line {self.line}"

    def error(self, column: str, problem: object) -> RowError:
        """Make an error that names file, line and column."""
        return RowError(f"{self.where}, column {column!r}", str(problem))

    @property
    def image(self) -> Path:
        """Its image file.

        Raises:
            DataError: no path, or no such file.
        """
        column = self.table.names.image
        value = self.values.get(column)
        if not isinstance(value, str):
            raise self.error(column, f"expected the path of an image, got {value!r:.60}")
        try:
            image = image_of(value, self.table.folder or self.table.path.parent)
        except CellError as error:
            raise self.error(column, error) from None
        if isinstance(image, RemoteImage):
            raise self.error(column, f"{str(image)!r} is a URL: download the images first, for example by img2dataset")
        assert isinstance(image, Path)  # noqa: S101 - no cell of a text file is bytes
        return image

    @property
    def id(self) -> str:
        """Its id: the column of ids, else the image path as in the table."""
        names = self.table.names
        try:
            return id_of(self.values.get(names.id, self.values[names.image]))
        except CellError as error:
            raise self.error(names.id, error) from None


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of a table."""

    offset: int  # bytes before the rows
    line: int  # lines before the rows
    rows: int  # their number
    numeric: frozenset[str]  # columns, of the whole table, that hold numbers


@dataclass(frozen=True)
class TableFile:
    """A table on disk; can be iterated over again.

    Other columns of csv and tsv are numeric when all of their values are numbers; ``007`` is none.
    """

    path: Path
    needed: tuple[str, ...] = PAIR  # columns that every row must have
    texts: tuple[str, ...] = ("id", *PAIR)  # columns of texts, even if all values look like numbers
    names: ColumnNames = _USUAL  # of a row's id and image
    folder: Path | None = None  # of image paths; None: the table's own
    options: Mapping[str, str] = field(default_factory=dict)  # further options of the source -> columns

    def __len__(self) -> int:
        return sum(stretch.rows for stretch in self.stretches)

    def __iter__(self) -> Iterator[TableRow]:
        """Rows in order.

        Raises:
            DataError: a row that cannot be parsed, or lacks a needed column.
        """
        for row in self.rows():
            if isinstance(row, RowError):
                raise row
            yield row

    def rows(self) -> Iterator[TableRow | RowError]:
        """Rows in order; one that cannot be parsed, or lacks a needed column, is yielded as an error.

        Raises:
            DataError: the header lacks a needed column.
        """
        if not self._is_json:
            self._check_header()
        for stretch in self.stretches:
            for row in self.read(stretch):
                missing = [] if isinstance(row, RowError) else [name for name in self.needed if name not in row.values]
                if isinstance(row, TableRow) and missing:
                    yield row.error(missing[0], f"missing or empty; this row has {sorted(row.values)}")
                else:
                    yield row

    def __reduce__(self) -> tuple[type[TableFile], tuple[Any, ...]]:
        # without cached stretches: each part has its own
        return TableFile, (self.path, self.needed, self.texts, self.names, self.folder, self.options)

    def read(self, stretch: Stretch) -> Iterator[TableRow | RowError]:
        """Read some of the rows; one that cannot be parsed is yielded as an error."""
        with self._lines() as lines:
            rows = self._rows(lines, stretch)
            for row in islice(rows, stretch.rows):
                if isinstance(row, TableRow):
                    for column in stretch.numeric & row.values.keys():
                        row.values[column] = _number(row.values[column])
                yield row

    def _check_header(self) -> None:
        columns = self.columns
        if missing := [column for column in self.needed if column not in columns]:
            named = {"id": self.names.id, "image": self.names.image, **self.options}
            raise DataError(
                f"{self.path} has no column {' and no '.join(map(repr, missing))}; its columns are {list(columns)}. "
                f"Needed: {' and '.join(self.needed)}; name yours, as in '{propose(str(self.path), columns, named)}'"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The header of a csv or tsv.

        Raises:
            DataError: the header is not UTF-8 or missing.
        """
        with self._lines() as lines:
            return self._header(lines)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """All rows, in runs of ten thousand; reads the file once."""
        return self._scanned[0]

    @property
    def without_id(self) -> int:
        """Number of rows without an id; of a .jsonl, 1 if the first has none."""
        return self._scanned[1]

    @cached_property
    def _scanned(self) -> tuple[tuple[Stretch, ...], int]:
        """The rows in runs, and how many have no id."""
        found: list[tuple[int, int, int]] = []
        numeric, without = _Numeric(self.texts), 0
        with self._lines() as lines:
            rows = self._scan_lines(lines) if self._is_json else self._rows(lines)
            start, count = (lines.offset, lines.line), 0
            for row in rows:
                count += 1
                if isinstance(row, TableRow):
                    numeric.look(row.values)
                    without += self.names.id not in row.values
                if count == _ROWS_PER_STRETCH:
                    found.append((*start, count))
                    start, count = (lines.offset, lines.line), 0
        if count:
            found.append((*start, count))
        stretches = tuple(Stretch(*place, numeric.columns) for place in found)
        if self._is_json and stretches:
            (first,) = self.read(replace(stretches[0], rows=1))
            named = first.values.keys() if isinstance(first, TableRow) else ()
            without = self.names.image in named and self.names.id not in named
        return stretches, int(without)

    @property
    def _is_json(self) -> bool:
        return self.path.suffix.lower() == ".jsonl"

    @contextmanager
    def _lines(self) -> Iterator[Lines]:
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from None
        with file:
            if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise DataError(f"{self.path} is UTF-16: save it as UTF-8 (in Excel: as 'CSV UTF-8')")
            file.seek(0)
            yield Lines(file)

    def _rows(self, lines: Lines, stretch: Stretch | None = None) -> Iterator[TableRow | RowError]:
        header = () if self._is_json else self._header(lines)
        if stretch is not None:
            lines.seek(stretch.offset, stretch.line)
        return self._json_rows(lines) if self._is_json else self._csv_rows(lines, header)

    def _scan_lines(self, lines: Lines) -> Iterator[None]:
        return (None for line in lines if line.strip())

    def _json_rows(self, lines: Lines) -> Iterator[TableRow | RowError]:
        for line in lines:
            if line.strip():
                yield self._json_row(lines.line, line)

    def _json_row(self, number: int, line: str) -> TableRow | RowError:
        where = f"{self.path}, line {number}"
        if not is_utf8(line):
            return RowError(where, not_utf8(line))
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            return RowError(where, f"is not JSON: {error}")
        if not isinstance(values, dict):
            return RowError(where, f"is not a JSON object: {line.strip()[:60]!r}")
        return TableRow(self, number, {k: v for k, v in values.items() if v is not None and v != ""})

    @cached_property
    def _separator(self) -> str:
        """Its separator: a comma (tsv: tab), unless only another one splits the header.

        Spreadsheets write semicolons where the comma is the decimal sign. A table has at least two columns.
        """
        own = "\t" if self.path.suffix.lower() == ".tsv" else ","
        with self._lines() as lines:
            header = next((line for line in lines if line.strip()), "")
        parts = {sign: _columns(header, sign) for sign in _SEPARATORS}
        return own if parts[own] > 1 else max((own, *_SEPARATORS), key=lambda sign: parts[sign])

    def _reader(self, lines: Lines) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self._separator, strict=True)

    def _header(self, lines: Lines) -> tuple[str, ...]:
        try:
            header = next((values for values in self._reader(lines) if values), [])
        except csv.Error as error:
            raise DataError(f"{self.path}: its first line is no header: {_plain(error)}") from None
        if not header:
            raise DataError(f"{self.path} is empty: its first line must name the columns, as in image,text")
        for name in header:
            if not is_utf8(name):
                raise DataError(f"{self.path} is not UTF-8: its columns are {raw_bytes(name)!r}, …; save it as UTF-8")
        if twice := [name for name, times in Counter(header).items() if name and times > 1]:
            raise DataError(f"{self.path} has the column {twice[0]!r} twice: rename one of them")
        return tuple(header)

    def _csv_rows(self, lines: Lines, header: tuple[str, ...]) -> Iterator[TableRow | RowError]:
        reader = self._reader(lines)
        while True:
            before = lines.line
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lost = f"{_plain(error)} (up to line {lines.line}); is a quote left open?"
                yield RowError(f"{self.path}, after line {before}", lost)
            else:
                if any(values):  # spreadsheets write empty rows at the end
                    yield self._csv_row(lines.line, header, values)

    def _csv_row(self, line: int, header: tuple[str, ...], values: list[str]) -> TableRow | RowError:
        row = TableRow(self, line, {k: v for k, v in zip(header, values, strict=False) if v != ""})
        if len(values) > len(header):
            column = self.needed[-1] if self.needed else "image"
            more = f"more values than columns: {values[len(header) :]!r}; quote values that hold {self._separator!r}"
            return row.error(column, more)
        if len(values) < len(header):
            return row.error(
                header[len(values)], f"no value: {len(values)} of {len(header)} columns; is a line break unquoted?"
            )
        for name, value in row.values.items():
            if not is_utf8(value):
                return row.error(name, not_utf8(value))
        return row


def _plain(error: csv.Error) -> str:
    """The csv module's message; its advice on line ends is for programmers."""
    lone = "new-line character seen in unquoted field"
    return "a carriage return without a line feed: save it with LF or CRLF" if lone in str(error) else str(error)


def _columns(header: str, separator: str) -> int:
    try:
        return len(next(csv.reader([header], delimiter=separator), []))
    except csv.Error:
        return 1


class _Numeric:
    """The columns in which all values so far are numbers."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._seen, self._text = set[str](), set(texts)

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(self._seen - self._text)

    def look(self, values: dict[str, str]) -> None:
        self._seen |= values.keys()
        self._text |= {k for k, v in values.items() if k not in self._text and not _NUMBER.fullmatch(v)}


def _number(value: str) -> int | float:
    return int(value) if _INTEGER.fullmatch(value) else float(value)


_BOM = b"\xef\xbb\xbf"
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # invalid bytes under surrogateescape


class Lines:
    """Lines of a file as text; bytes that are not UTF-8 become lone surrogates."""

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


_BATCH = 256


@dataclass(frozen=True)
class TablePart(FilePart):
    """Some rows of a table."""

    table: TableFile
    stretch: Stretch
    maker: RowMaker
    stamp: tuple[int, ...]  # of the file, from before it was read

    @property
    def path(self) -> Path:
        """The file."""
        return self.table.path

    @property
    def name(self) -> str:
        """The file; of a part of it, also the lines before."""
        if self.stretch.rows == len(self.table):
            return str(self.table.path)
        return f"{self.table.path}, {self.stretch.rows:,} rows after line {self.stretch.line}"

    @property
    def folder(self) -> Path:
        """Base of the image paths."""
        return self.maker.folder

    def _read(self) -> Iterator[Pair | Rejected]:
        for row in self.table.read(self.stretch):
            yield row.rejected if isinstance(row, RowError) else self.maker.make(row.where, row.values)


def open_table(path: Path, names: ColumnNames, folder: Path) -> tuple[tuple[SourcePart, ...], int]:
    """Open the rows of a table, ten thousand in a part; returns their number too.

    Reads the file once, to find its rows and the numeric columns.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    stamp = stamp_of(path)
    table = TableFile(path, (names.image, names.text), (names.id, names.image, names.text), names)
    maker = RowMaker(names, folder)
    if path.suffix.lower() != ".jsonl":
        maker.check(str(path), list(table.columns))
    return tuple(TablePart(table, stretch, maker, stamp) for stretch in table.stretches), len(table)
