"""Tables with one row per image: ``.jsonl``, ``.csv`` and ``.tsv`` with at least the column image."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import DataError

SUFFIXES = (".jsonl", ".csv", ".tsv")
PAIR = ("image", "text")

_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Row:
    """One row: its line in the file (from 1) and its values; empty and null ones are left out."""

    table: Path
    line: int
    values: dict[str, Any]

    def error(self, column: str, problem: str) -> DataError:
        """An error that names file, line and column."""
        return DataError(f"{self.table}, line {self.line}, column {column!r}: {problem}")

    @property
    def image(self) -> Path:
        """Its image file.

        Raises:
            DataError: no path, or no such file.
        """
        value = self.values.get("image")
        if not isinstance(value, str):
            raise self.error("image", f"expected the path of an image, got {value!r}")
        if value.startswith(("http://", "https://")):
            raise self.error("image", f"{value!r} is a URL: download the images first, for example with img2dataset")
        path = self.table.parent / value
        if not path.is_file():
            raise self.error("image", f"{value!r} is not a file at {path}; paths are relative to the table")
        return path

    @property
    def id(self) -> str:
        """Its id: the column id, else the image path as the table has it."""
        value = self.values.get("id", self.values["image"])
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.error("id", f"expected a text or whole number, got {value!r}")
        return str(value)


@dataclass(frozen=True)
class Table:
    """A table on disk; iterate it as often as you like.

    In csv and tsv a further column counts as numbers when every value of it is written as a number; ``007`` is none.

    Attributes:
        path: of the file.
        needed: columns that every row must have.
        texts: columns that hold texts, even if all of them look like numbers.
    """

    path: Path
    needed: tuple[str, ...] = PAIR
    texts: tuple[str, ...] = ("id", *PAIR)

    def __len__(self) -> int:
        return self._scan[0]

    def __iter__(self) -> Iterator[Row]:
        """Rows in order.

        Raises:
            DataError: a row that cannot be parsed, or lacks a needed column.
        """
        numeric = self._scan[1]
        for row in self._rows():
            for column in self.needed:
                if column not in row.values:
                    raise row.error(column, f"missing or empty; this row has {sorted(row.values)}")
            for column in numeric & row.values.keys():
                row.values[column] = _number(row.values[column])
            yield row

    @property
    def _is_json(self) -> bool:
        return self.path.suffix.lower() == ".jsonl"

    @cached_property
    def _scan(self) -> tuple[int, frozenset[str]]:
        """Number of rows, and the csv columns that hold numbers only."""
        if self._is_json:
            with _opened(self.path) as file:
                return sum(1 for line in file if line.strip()), frozenset()
        count, seen, text = 0, set[str](), set(self.texts)
        for row in self._rows():
            count += 1
            seen |= row.values.keys()
            text |= {name for name, value in row.values.items() if name not in text and not _NUMBER.fullmatch(value)}
        return count, frozenset(seen - text)

    def _rows(self) -> Iterator[Row]:
        try:
            yield from self._json_rows() if self._is_json else self._csv_rows()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path} is not UTF-8: {error}; save it as UTF-8") from None

    def _json_rows(self) -> Iterator[Row]:
        with _opened(self.path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    values = _json_object(self.path, number, line)
                    yield Row(self.path, number, {k: v for k, v in values.items() if v is not None and v != ""})

    def _csv_rows(self) -> Iterator[Row]:
        with _opened(self.path) as file:
            reader = csv.DictReader(file, delimiter="\t" if self.path.suffix.lower() == ".tsv" else ",", strict=True)
            try:
                _check_header(self.path, reader.fieldnames or (), self.needed)
                for values in reader:
                    row = Row(self.path, reader.line_num, {k: v for k, v in values.items() if v not in (None, "")})
                    if (more := row.values.get(None)) is not None:  # type: ignore[call-overload]
                        raise row.error(
                            next(reversed(self.needed), "image"), f"more values than columns: {more!r}; quote commas"
                        )
                    yield row
            except csv.Error as error:
                raise DataError(f"{self.path}, after line {reader.line_num}: {error}; is a quote left open?") from None


def _check_header(path: Path, columns: Any, needed: tuple[str, ...]) -> None:
    for column in needed:
        if column not in columns:
            wanted = " and ".join(needed)
            raise DataError(f"{path} has no column {column!r}; its columns are {list(columns)}. Needed: {wanted}")


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}, line {number} is not a JSON object: {line.strip()[:60]!r}")
    return values


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _number(value: str) -> int | float:
    return int(value) if _INTEGER.fullmatch(value) else float(value)
