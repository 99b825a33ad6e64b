"""Search queries of users, read from tables, text files or logs; equal queries become one with a count.

A log of OpenSearch's User Behavior Insights (``ubi_queries``) is JSON lines, bare or with ``_source`` around each.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..memory.lexical import CODE, QueryWords, stored_words
from ..sources.cells import CellError, parse_image
from ..sources.images import RemoteImage
from ..sources.location import Location, describe_missing_file, parse_source, read_lines
from ..sources.rows import RowError
from ..sources.tables import JSON_LINES, SUFFIXES, TableFile, open_lines
from ..types import Modality
from ..values import counted

MAX_CHARACTERS = 10_000
"""Longer texts are not queries of people and are rejected."""
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "query", "user_query", "q", "query_text"),
    "image": ("image", "photo", "picture", "image_url", "image_path"),
    "id": ("query_id", "id", "qid"),
    "weight": ("weight", "frequency", "count", "searches"),
    "where": ("where",),  # not "filter": such a column may be in another language than the engine's
}
"""Option -> names of columns that are used without it."""
_MAX_UNREADABLE = 0.1  # share of the rows
PART_NUMBERS, NAMES, OTHER_WORDS, PICTURES = "part numbers", "names and titles", "other words", "pictures"
TEXTS = "texts"
"""Kind of all text queries if no title is known."""


@dataclass(frozen=True)
class SearchQuery:
    """One query: a text, or an image if there is no text.

    Attributes:
        weight: number of searches.
        ids: ids of all searches that were merged into this query.
        where: its own filter, in the engine's language.
    """

    id: str
    text: str | None = None
    image: Path | RemoteImage | None = None
    weight: float = 1.0
    ids: tuple[str, ...] = ()
    where: str | None = None

    @property
    def modality(self) -> Modality:
        """Text or image."""
        return "image" if self.text is None else "text"

    @property
    def name(self) -> str:
        """The text or the location of the image, with the filter, for people."""
        name = self.text if self.text is not None else str(self.image)
        return name if self.where is None else f"{name} [{self.where}]"


@dataclass(frozen=True)
class QueryLog:
    """The queries of a file.

    Attributes:
        searches: rows that were read.
        empty: rows without a query.
        unreadable: one message for each rejected row.
        sampled_from: number of queries before sampling; None if all are kept.
    """

    queries: tuple[SearchQuery, ...]
    searches: int = 0
    empty: int = 0
    unreadable: tuple[str, ...] = ()
    sampled_from: int | None = None

    def sample(self, limit: int, seed: int) -> QueryLog:
        """Draw at most ``limit`` queries, each with the same probability, and keep their order."""
        if len(self.queries) <= limit:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self.queries), limit, replace=False))
        chosen = tuple(self.queries[row] for row in rows.tolist())
        return replace(self, queries=chosen, sampled_from=len(self.queries))

    def notes(self) -> list[str]:
        """Describe the file: counts of searches, samples, filters and rejected rows."""
        count = len(self.queries) if self.sampled_from is None else self.sampled_from
        searches = counted(self.searches, "search is", "searches are")
        lines = [f"{searches} {counted(count, 'different query', 'different queries')}"]
        if self.sampled_from is not None:
            lines[0] += f", of which {counted(len(self.queries), 'was', 'were')} drawn"
        filtered = sum(query.where is not None for query in self.queries)
        lines += [counted(filtered, "has a filter of its own", "have a filter of their own")] * bool(filtered)
        lines += [f"{counted(self.empty, 'was', 'were')} empty and left out"] * bool(self.empty)
        if self.unreadable:
            lines.append(f"{len(self.unreadable):,} could not be read, the first: {self.unreadable[0]}")
        return lines


def normalize(text: str) -> str:
    """Fold case and white space; queries with equal results are the same.

    >>> normalize("  Red   FOX ")
    'red fox'
    """
    return " ".join(text.casefold().split())


def classify_queries(queries: Sequence[SearchQuery], titles: Sequence[str]) -> list[str]:
    """Name the kind of each query.

    A part number mixes letters and digits. All words of a name stand in one title.
    """
    holders = defaultdict[int, list[frozenset[int]]](list)  # hash of a word -> titles with it
    for title in {frozenset(stored_words(title)) for title in titles if title}:
        for word in title:
            holders[word].append(title)
    return [_kind(query, holders) for query in queries]


def _kind(query: SearchQuery, holders: Mapping[int, Sequence[frozenset[int]]]) -> str:
    if query.text is None:
        return PICTURES
    words = QueryWords.of(query.text)
    if words is None:
        return OTHER_WORDS
    if CODE in words.weights.values():
        return PART_NUMBERS
    if not holders:
        return TEXTS
    rarest = min((holders[word] for word in words.weights if word in holders), key=len, default=())
    return NAMES if any(words.lacks(title) == 0.0 for title in rarest) else OTHER_WORDS


def read_queries(source: str) -> QueryLog:
    """Read queries from ``.csv``, ``.tsv``, ``.jsonl`` (also ``ubi_queries``) or ``.txt``, one query a line.

    Args:
        source: the file with options, as in ``log.csv?text=phrase&weight=searches``. Options name columns;
            ``images=DIR`` is the folder of relative image paths.

    Raises:
        DataError: the file cannot be read, has no column of texts or images, or has no query; more than a tenth of the
            rows are damaged; a count is no number; an id names two queries.
        ConfigError: an unknown option.
    """
    where = parse_source(source)
    where.check_options(*_COLUMNS, "images")
    if not where.path.is_file():
        raise DataError(f"queries: {describe_missing_file(where.path)}")
    rows = list(_rows(where))
    if not rows:
        raise DataError(f"{where.name} holds no query: nothing follows the names of its columns")
    columns = {name for row in rows if isinstance(row, dict) for name in row}
    names = {option: _column(where, option, columns) for option in _COLUMNS}
    if names["text"] is None and names["image"] is None:
        raise DataError(
            f"{where.name} has neither a column of texts ({', '.join(_COLUMNS['text'])}) nor of images; it has "
            f"{sorted(columns)}. Name yours, as in '{where.name}?text=NAME'"
        )
    log = _merge(where.name, rows, names, where.images or where.path.parent)
    if len(log.unreadable) > _MAX_UNREADABLE * len(rows):
        raise DataError(
            f"{len(log.unreadable):,} of {len(rows):,} queries of {where.name} cannot be read, the first: "
            f"{log.unreadable[0]}"
        )
    if not log.queries:
        raise DataError(f"{where.name} holds no query: {'; '.join(log.notes())}")
    return log


def _rows(where: Location) -> Iterator[dict[str, Any] | str]:
    """Rows as column -> value; a damaged row is its error message."""
    suffix = where.path.suffix.lower()
    if suffix == ".txt":
        yield from ({"text": line} for line in read_lines(where.path))
        return
    if suffix not in SUFFIXES:
        raise DataError(f"{where.name} is no file of queries: give {', '.join(SUFFIXES)} or .txt, one query a line")
    for row in TableFile(where.path, needed=()).rows():
        yield str(row) if isinstance(row, RowError) else unwrap(row.values)


def columns_of(path: Path) -> set[str]:
    """Column names of a table, or the keys of the first JSON line; empty without rows."""
    if path.suffix.lower() in JSON_LINES:
        first = next(iter(TableFile(path, needed=()).good_rows()), None)
        return set() if first is None else set(unwrap(first.values))
    with open_lines(path) as lines:
        return {name.strip() for name in TableFile(path).first_values(lines)}


def unwrap(values: Mapping[str, Any]) -> dict[str, Any]:
    """The document in an exported hit, which may be under ``_source``."""
    inner = values.get("_source")
    return dict(inner) if isinstance(inner, dict) else dict(values)


def _column(where: Location, option: str, columns: set[str]) -> str | None:
    """The column that the option names, else the first usual name."""
    if (named := where.options.get(option)) is not None:
        if named not in columns:
            raise DataError(f"{where.name} has no column {named!r} ({option}={named}); it has {sorted(columns)}")
        return named
    return next((name for name in _COLUMNS[option] if name in columns), None)


def _merge(source: str, rows: list[dict[str, Any] | str], names: Mapping[str, str | None], folder: Path) -> QueryLog:
    """Merge rows with equal query and filter; the first spelling is kept."""
    queries = dict[tuple[str, str | None], SearchQuery]()
    owner = dict[str, tuple[str, str | None]]()  # id -> key of its query
    empty = 0
    problems: list[str] = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, str):
            problems.append(row)
            continue
        values = {option: None if name is None else row.get(name) for option, name in names.items()}
        text = _text(values["text"])
        picture = None if text else values["image"]
        if not text and not picture:
            empty += 1
            continue
        if len(text) > MAX_CHARACTERS:
            problems.append(f"row {number}: a query of {len(text):,} characters, and {MAX_CHARACTERS:,} are the most")
            continue
        try:
            image = parse_image(picture, folder) if picture else None
        except CellError as error:
            problems.append(f"row {number}: {error}")
            continue
        where = _filter(values["where"])
        id_ = str(values["id"] or f"{text or picture}{f' [{where}]' if where else ''}")
        key = (normalize(text) if text else f"\0{picture}", where)
        if owner.setdefault(id_, key) != key:
            raise DataError(f"{source}, row {number}: the id {id_!r:.60} stands for two queries: give each its own")
        weight = _weight(source, number, values["weight"])
        if (before := queries.get(key)) is None:
            assert not isinstance(image, bytes)  # noqa: S101 - cells of text files are no bytes
            queries[key] = SearchQuery(id_, text or None, image, weight, (id_,), where)
        else:
            ids = tuple(dict.fromkeys((*before.ids, id_)))
            queries[key] = replace(before, weight=before.weight + weight, ids=ids)
    return QueryLog(tuple(queries.values()), len(rows), empty, tuple(problems))


def _text(value: Any) -> str:
    if isinstance(value, dict):  # some logs hold the query as an object
        value = value.get("query") or value.get("text")
    return re.sub(r"\s+", " ", str(value)).strip() if value is not None else ""


def _filter(value: Any) -> str | None:
    """The filter as text; an object becomes JSON."""
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
