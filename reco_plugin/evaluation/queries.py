"""Queries of people: tables, lines, or OpenSearch's User Behavior Insights; equal ones are one with a count.

A log of User Behavior Insights (``ubi_queries``) is JSON lines as exported, bare or with ``_source`` around each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..sources.cells import CellError, image_of
from ..sources.images import RemoteImage
from ..sources.location import Location, not_there, parse_source, read_lines
from ..sources.rows import RowError
from ..sources.tables import JSON_LINES, SUFFIXES, TableFile, open_lines
from ..types import Modality
from ..values import counted

LONGEST = 10_000
"""Characters of a query; what is longer is no query of a person, and cannot be read."""
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "query", "user_query", "q", "query_text"),
    "image": ("image", "photo", "picture", "image_url", "image_path"),
    "id": ("query_id", "id", "qid"),
    "weight": ("weight", "frequency", "count", "searches"),
    "where": ("where",),  # a column called filter may be of another language: it must be named
}
"""Option of a file of queries -> names of columns that are taken without it."""
_MANY = 0.1  # of the rows: more that cannot be read are no accident


@dataclass(frozen=True)
class SearchQuery:
    """One query: a text, or a picture where there is no text."""

    id: str
    text: str | None = None
    image: Path | RemoteImage | None = None
    weight: float = 1.0  # how often it was asked
    ids: tuple[str, ...] = ()  # of all searches that are this query, its own first
    where: str | None = None  # filter that it was asked with, in the engine's language

    @property
    def modality(self) -> Modality:
        """What asks."""
        return "image" if self.text is None else "text"

    @property
    def name(self) -> str:
        """For people: the text, or where the picture is, and its filter."""
        asked = self.text if self.text is not None else str(self.image)
        return asked if self.where is None else f"{asked} [{self.where}]"


@dataclass(frozen=True)
class QueryLog:
    """The queries of a file, and what was left out."""

    queries: tuple[SearchQuery, ...]
    searches: int = 0  # rows that were read
    empty: int = 0
    unreadable: tuple[str, ...] = ()  # a message each
    sampled_from: int | None = None  # how many there were, where some were drawn

    @property
    def weighted(self) -> bool:
        """Whether some queries were asked more often than others."""
        return len({query.weight for query in self.queries}) > 1

    def sample(self, limit: int, seed: int) -> QueryLog:
        """At most ``limit`` of the queries, drawn evenly, in order."""
        if len(self.queries) <= limit:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self.queries), limit, replace=False))
        chosen = tuple(self.queries[row] for row in rows.tolist())
        return replace(self, queries=chosen, sampled_from=len(self.queries))

    def notes(self) -> list[str]:
        """What people should know of the file, a sentence each."""
        count = len(self.queries) if self.sampled_from is None else self.sampled_from
        searched = counted(self.searches, "search is", "searches are")
        lines = [f"{searched} {counted(count, 'different query', 'different queries')}"]
        if self.sampled_from is not None:
            lines[0] += f", of which {counted(len(self.queries), 'was', 'were')} drawn"
        filtered = sum(query.where is not None for query in self.queries)
        lines += [counted(filtered, "has a filter of its own", "have a filter of their own")] * bool(filtered)
        lines += [f"{counted(self.empty, 'was', 'were')} empty and left out"] * bool(self.empty)
        if self.unreadable:
            lines.append(f"{len(self.unreadable):,} could not be read, the first: {self.unreadable[0]}")
        return lines


def normal(text: str) -> str:
    """A text by which queries are the same: case and blanks do not count.

    >>> normal("  Red   FOX ")
    'red fox'
    """
    return " ".join(text.casefold().split())


def read_queries(source: str) -> QueryLog:
    """Read queries from ``.csv``, ``.tsv``, ``.jsonl`` (also a log, ``ubi_queries``) or ``.txt``, one a line.

    Args:
        source: the file, with the names of its columns where they are not the usual ones, as in
            ``log.csv?text=phrase&weight=searches``; ``images=DIR`` is the folder of pictures' paths.

    Raises:
        DataError: it cannot be read, has neither texts nor images, or no query at all; or many rows are damaged.
        ConfigError: an unknown option.
    """
    where = parse_source(source)
    where.only(*_COLUMNS, "images")
    if not where.path.is_file():
        raise DataError(f"queries: {not_there(where.path)}")
    rows = list(_rows(where))
    if not rows:
        raise DataError(f"{where.name} holds no query: nothing follows the names of its columns")
    names = {option: _column(where, option, rows) for option in _COLUMNS}
    if names["text"] is None and names["image"] is None:
        seen = sorted({name for row in rows if isinstance(row, dict) for name in row})
        raise DataError(
            f"{where.name} has neither a column of texts ({', '.join(_COLUMNS['text'])}) nor of images; it has "
            f"{seen}. Name yours, as in '{where.name}?text=NAME'"
        )
    log = _merge(where.name, rows, names, where.images or where.path.parent)
    if len(log.unreadable) > _MANY * max(len(rows), 1):
        raise DataError(
            f"{len(log.unreadable):,} of {len(rows):,} queries of {where.name} cannot be read, the first: "
            f"{log.unreadable[0]}"
        )
    if not log.queries:
        raise DataError(f"{where.name} holds no query: {'; '.join(log.notes())}")
    return log


def _rows(where: Location) -> Iterator[dict[str, Any] | str]:
    """The rows as values by column; a message where one cannot be read."""
    suffix = where.path.suffix.lower()
    if suffix == ".txt":
        yield from ({"text": line} for line in read_lines(where.path))
        return
    if suffix not in SUFFIXES:
        raise DataError(f"{where.name} is no file of queries: give {', '.join(SUFFIXES)} or .txt, one query a line")
    for row in TableFile(where.path, needed=()).rows():
        yield str(row) if isinstance(row, RowError) else unwrap(row.values)


def columns_of(path: Path) -> set[str]:
    """Names of the columns of a table: of its first line, or the keys of its first row of JSON; empty without rows."""
    if path.suffix.lower() in JSON_LINES:
        first = next(iter(TableFile(path, needed=()).good_rows()), None)
        return set() if first is None else set(unwrap(first.values))
    with open_lines(path) as lines:
        return {name.strip() for name in TableFile(path).first_values(lines)}


def unwrap(values: Mapping[str, Any]) -> dict[str, Any]:
    """A document of an export without what the exporter put around it."""
    inner = values.get("_source")
    return dict(inner) if isinstance(inner, dict) else dict(values)


def _column(where: Location, option: str, rows: list[dict[str, Any] | str]) -> str | None:
    """The column that the option names, else the first usual name that a row has."""
    seen = {name for row in rows if isinstance(row, dict) for name in row}
    if (named := where.options.get(option)) is not None:
        if named not in seen:
            raise DataError(f"{where.name} has no column {named!r} ({option}={named}); it has {sorted(seen)}")
        return named
    return next((name for name in _COLUMNS[option] if name in seen), None)


def _merge(source: str, rows: list[dict[str, Any] | str], names: Mapping[str, str | None], folder: Path) -> QueryLog:
    """One query of all rows that are equal, filter included; the first one's spelling stays."""
    found = dict[tuple[str, str | None], SearchQuery]()
    owner = dict[str, tuple[str, str | None]]()  # of each id
    empty = 0
    problems: list[str] = []

    def value(row: Mapping[str, Any], option: str) -> Any:
        name = names[option]
        return None if name is None else row.get(name)

    for number, row in enumerate(rows, 1):
        if isinstance(row, str):
            problems.append(row)
            continue
        text = _text(value(row, "text"))
        picture = value(row, "image") if not text else None
        if not text and not picture:
            empty += 1
            continue
        if len(text) > LONGEST:
            problems.append(f"row {number}: a query of {len(text):,} characters, and {LONGEST:,} are the most")
            continue
        try:
            image = image_of(picture, folder) if picture else None
        except CellError as error:
            problems.append(f"row {number}: {error}")
            continue
        where = _filter(value(row, "where"))
        own = str(value(row, "id") or f"{text or picture}{f' [{where}]' if where else ''}")
        key = (normal(text) if text else f"\0{picture}", where)
        before = found.get(key)
        if owner.setdefault(own, key) != key:
            raise DataError(f"{source}, row {number}: the id {own!r:.60} stands for two queries: give each its own")
        weight = _weight(source, number, value(row, "weight"))
        if before is None:
            assert not isinstance(image, bytes)  # noqa: S101 - no cell of a text file is bytes
            found[key] = SearchQuery(own, text or None, image, weight, (own,), where)
        else:
            ids = before.ids if own in before.ids else (*before.ids, own)
            found[key] = replace(before, weight=before.weight + weight, ids=ids)
    return QueryLog(tuple(found.values()), len(rows), empty, tuple(problems))


def _text(value: Any) -> str:
    if isinstance(value, dict):  # a log may hold the query as an object
        value = value.get("query") or value.get("text")
    return re.sub(r"\s+", " ", str(value)).strip() if value is not None else ""


def _filter(value: Any) -> str | None:
    """As the engine takes it; JSON of an object, where the row has one."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True) if value else None
    return (str(value).strip() or None) if value is not None else None


def _weight(source: str, number: int, value: Any) -> float:
    if value in (None, ""):
        return 1.0
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = 0.0
    if not 0 < weight < 1e12:
        raise DataError(f"{source}, row {number}: the count {value!r:.40} is no number above 0")
    return weight
