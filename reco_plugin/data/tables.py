"""Tables with one row per image: ``.jsonl``, ``.csv`` and ``.tsv``.

A table is opened twice: once to find its header and its rows, and once for each part that is read, maybe by another
machine. Rows are not kept in between: a table may be larger than the RAM.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError
from ..types import Pair
from ..values import counted
from .cells import CellError, RowMaker, id_of, image_of
from .images import RemoteImage
from .rows import FilePart, Rejected, RowError, Rows, stamp_of
from .source import ColumnNames, Location, check_columns, note_ids

JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*JSON_LINES, ".csv", ".tsv")

_USUAL = ColumnNames()
_ROWS_PER_STRETCH = 10_000
_SEPARATORS = ",;\t|"
_TOLD = re.compile(r"sep=(.)", re.IGNORECASE)  # a first line for Excel that names the separator, and no column
_BOM = b"\xef\xbb\xbf"
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # invalid bytes under surrogateescape


class Lines:
    """Lines of an open file as text; bytes that are not UTF-8 become lone surrogates."""

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

    def seek(self, offset: int = 0, line: int = 0) -> None:
        """Go to an earlier offset and line number."""
        self._file.seek(offset)
        self.offset, self.line = offset, line

    def first(self) -> str:
        """The first line that is not blank; stays at the start."""
        self.seek()
        found = next((line for line in self if line.strip()), "")
        self.seek()
        return found


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
        """Its image file; a row without one is an error."""
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
class Head:
    """What all rows of a csv or tsv have in common."""

    separator: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of a table."""

    head: Head
    offset: int  # bytes before the rows
    line: int  # lines before the rows
    rows: int  # their number


@dataclass(frozen=True)
class TableFile:
    """A table on disk. Values of csv and tsv are texts, but for columns of numbers."""

    path: Path
    names: ColumnNames = _USUAL
    needed: tuple[str, ...] = ("image", "text")  # columns that every row must have
    numbers: tuple[str, ...] = ()  # columns of numbers, in csv and tsv
    folder: Path | None = None  # of image paths; None: the table's own

    def rows(self) -> Iterator[TableRow | RowError]:
        """Rows in order; one that cannot be parsed, or lacks a needed column, is yielded as an error."""
        with open_lines(self.path) as lines:
            for stretch in self.scan(lines)[0]:
                for row in self.read(stretch, lines):
                    lacks = (
                        [] if isinstance(row, RowError) else [name for name in self.needed if name not in row.values]
                    )
                    if isinstance(row, TableRow) and lacks:
                        yield row.error(lacks[0], f"missing or empty; this row has {sorted(row.values)}")
                    else:
                        yield row

    def good_rows(self) -> Iterator[TableRow]:
        """The same, of which an error is raised."""
        for row in self.rows():
            if isinstance(row, RowError):
                raise row
            yield row

    def scan(self, lines: Lines) -> tuple[tuple[Stretch, ...], int]:
        """All rows in stretches of ten thousand, and how many have no id; of a .jsonl, 1 if the first has none."""
        head = Head("") if self.is_json else self._read_head(lines)
        starts, count, without = [(lines.offset, lines.line)], 0, 0
        for row in self._text_rows(lines, head) if not self.is_json else (line for line in lines if line.strip()):
            if isinstance(row, TableRow):
                without += self.names.id not in row.values
            elif isinstance(row, str) and not count and isinstance(first := self._parse(row, lines.line), TableRow):
                without = self.names.image in first.values and self.names.id not in first.values
            count += 1
            if count % _ROWS_PER_STRETCH == 0:
                starts.append((lines.offset, lines.line))
        sizes = (min(_ROWS_PER_STRETCH, count - before) for before in range(0, count, _ROWS_PER_STRETCH))
        return tuple(Stretch(head, *start, rows) for start, rows in zip(starts, sizes, strict=False)), int(without)

    def read(self, stretch: Stretch, lines: Lines) -> Iterator[TableRow | RowError]:
        """Read some of the rows; one that cannot be parsed is yielded as an error."""
        lines.seek(stretch.offset, stretch.line)
        if self.is_json:
            yield from islice((self._parse(line, lines.line) for line in lines if line.strip()), stretch.rows)
            return
        for row in islice(self._text_rows(lines, stretch.head), stretch.rows):
            yield self._with_numbers(row) if isinstance(row, TableRow) else row

    def _with_numbers(self, row: TableRow) -> TableRow | RowError:
        for column in [name for name in self.numbers if name in row.values]:
            try:
                row.values[column] = _number(row.values[column])
            except ValueError:
                return row.error(column, f"expected a number, got {row.values[column]!r:.60}")
        return row

    @property
    def is_json(self) -> bool:
        """Whether it has a JSON object a line."""
        return self.path.suffix.lower() in JSON_LINES

    def _parse(self, line: str, number: int) -> TableRow | RowError:
        """A line of JSON."""
        where = f"{self.path}, line {number}"
        if not _is_utf8(line):
            return RowError(where, _not_utf8(line))
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            return RowError(where, f"is not JSON: {error}")
        if not isinstance(values, dict):
            return RowError(where, f"is not a JSON object: {line.strip()[:60]!r}")
        return TableRow(self, number, {k: v for k, v in values.items() if v is not None and v != ""})

    def first_values(self, lines: Lines) -> list[str]:
        """What the first line of a csv or tsv holds: its columns, if it is a header; empty where it cannot be split."""
        try:
            return next(filter(None, csv.reader(lines, delimiter=self._find_separator(lines))), [])
        except csv.Error:
            return []

    def _find_separator(self, lines: Lines) -> str:
        """A comma (tsv: tab), unless only another sign splits the first line, or it names one; that line is read over.

        Spreadsheets write semicolons where the comma is the decimal sign. A table has at least two columns.
        """
        own, first = "\t" if self.path.suffix.lower() == ".tsv" else ",", lines.first()
        if told := _TOLD.fullmatch(first.rstrip("\r\n")):
            next(line for line in lines if line.strip())
            return told[1]
        split = {sign: _count_columns(first, sign) for sign in _SEPARATORS}
        return own if split[own] > 1 else max((own, *_SEPARATORS), key=lambda sign: split[sign])

    def _read_head(self, lines: Lines) -> Head:
        separator = self._find_separator(lines)
        try:
            header = next(filter(None, csv.reader(lines, delimiter=separator, strict=True)), [])
        except csv.Error as error:
            raise DataError(f"{self.path}: its first line is no header: {_plain(error)}") from None
        if not header:
            raise DataError(f"{self.path} is empty: its first line must name the columns, as in image,text")
        for name in header:
            if not _is_utf8(name):
                raise DataError(f"{self.path} is not UTF-8: its columns are {_raw(name)!r}, …; save it as UTF-8")
        if twice := [name for name, times in Counter(header).items() if name and times > 1]:
            raise DataError(f"{self.path} has the column {twice[0]!r} twice: rename one of them")
        check_columns(str(self.path), header, [*self.needed, *self.numbers], self.names)
        return Head(separator, tuple(header))

    def _text_rows(self, lines: Lines, head: Head) -> Iterator[TableRow | RowError]:
        """The rows of a csv or tsv; all values are texts."""
        reader = csv.reader(lines, delimiter=head.separator, strict=True)
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
                    yield self._text_row(lines.line, head, values)

    def _text_row(self, line: int, head: Head, values: list[str]) -> TableRow | RowError:
        header, row = head.columns, TableRow(self, line, {})
        if len(values) > len(header):
            column = self.names.text if self.names.text in header else self.names.image
            more = f"more values than columns: {values[len(header) :]!r}; quote values that hold {head.separator!r}"
            return row.error(column, more)
        if len(values) < len(header):
            return row.error(
                header[len(values)], f"no value: {len(values)} of {len(header)} columns; is a line break unquoted?"
            )
        for name, value in zip(header, values, strict=True):
            if not _is_utf8(value):
                return row.error(name, _not_utf8(value))
            if value != "":
                row.values[name] = value
        return row


def _count_columns(header: str, separator: str) -> int:
    try:
        return len(next(csv.reader([header], delimiter=separator), []))
    except csv.Error:
        return 1


def _plain(error: csv.Error) -> str:
    """The csv module's message; its advice on line ends is for programmers."""
    lone = "new-line character seen in unquoted field"
    return "a carriage return without a line feed: save it with LF or CRLF" if lone in str(error) else str(error)


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _is_utf8(text: str) -> bool:
    return text.isascii() or not _NOT_UTF8.search(text)


def _not_utf8(text: str) -> str:
    return f"is not UTF-8: {_raw(text)[:60]!r}; save the file as UTF-8"


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def open_table(path: Path, lines: Lines, names: ColumnNames, where: Location) -> Rows:
    """Open the rows of a table, ten thousand in a part; ``lines`` are its own, ``where`` has its options."""
    numbers, folder = tuple(filter(None, where.options.get("numbers", "").split(","))), where.images or path.parent
    table, stamp = TableFile(path, names, names.needed, numbers), stamp_of(path)
    maker = RowMaker(names, folder, signed=where.signed)
    stretches, without = table.scan(lines)
    columns = stretches[0].head.columns if stretches else ()
    note = note_ids(str(path), columns, names) if without else ""
    if without and not note:
        rows = counted(without, f"row of {path} has", f"rows of {path} have")
        note = f"{rows} no {names.id!r}: the path or URL of the image is the id"
    parts = tuple(
        FilePart(
            str(path) if len(stretches) == 1 else f"{path}, {stretch.rows:,} rows after line {stretch.line}",
            partial(_read_part, table, stretch, maker),
        )
        for stretch in stretches
    )
    total = sum(stretch.rows for stretch in stretches)
    return Rows(str(path), parts, total, note=note, folders=(folder,), stamps={path: stamp}, columns=names)


def _read_part(table: TableFile, stretch: Stretch, maker: RowMaker) -> Iterator[Pair | Rejected]:
    with open_lines(table.path) as lines:
        for row in table.read(stretch, lines):
            yield row.rejected if isinstance(row, RowError) else maker.make(row.where, row.values)
