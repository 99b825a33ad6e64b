"""What is right for a query: judgments, in TREC's form or a table; and runs, what an engine found."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..data.source import not_there, read_text
from ..data.tables import JSON_LINES, SUFFIXES, TableFile, open_lines
from ..engines import IndexHit
from ..errors import DataError
from .queries import SearchQuery, normal, unwrap

Grades: TypeAlias = Mapping[str, float]
"""Id of a document -> how right it is for one query, above 0; others are wrong."""
_HEADS = {
    "query": ("query_id", "qid", "query", "query-id", "user_query", "id"),
    "document": ("document_id", "docid", "doc_id", "document", "doc", "corpus-id", "object_id", "product_id"),
    "grade": ("grade", "rel", "relevance", "rating", "score", "judgment", "label", "clicks", "count"),
}


@dataclass(frozen=True)
class Judgments:
    """Grades of documents, by what a file calls the query: its id, or its text."""

    by_query: Mapping[str, Grades]
    name: str

    def of(self, queries: Sequence[SearchQuery]) -> list[Grades]:
        """The grades for each query; of several ids, all; empty where it has none."""
        by_text = {normal(query): grades for query, grades in self.by_query.items()}
        found: list[Grades] = []
        for query in queries:
            own = [self.by_query[id_] for id_ in query.ids or (query.id,) if id_ in self.by_query]
            if not own and query.text is not None and (named := by_text.get(normal(query.text))):
                own = [named]
            found.append({document: grade for grades in own for document, grade in grades.items() if grade > 0})
        return found

    @property
    def documents(self) -> frozenset[str]:
        """All documents that are right for some query."""
        return frozenset(doc for grades in self.by_query.values() for doc, grade in grades.items() if grade > 0)


def read_judgments(path: Path) -> Judgments:
    """Read judgments: ``query 0 document grade`` a line, as TREC has them, or ``.csv``, ``.tsv``, ``.jsonl``.

    Raises:
        DataError: it cannot be read; a line has another form; no grade is above 0.
    """
    if not path.is_file():
        raise DataError(f"judgments: {not_there(path)}")
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for query, document, grade in _judged(path):
        found[query][document] = max(grade, found[query].get(document, 0.0))
    judgments = Judgments(found, str(path))
    if not judgments.documents:
        raise DataError(f"{path} judges no document as right: all grades are 0 or below")
    return judgments


def _judged(path: Path) -> Iterator[tuple[str, str, float]]:
    if path.suffix.lower() in SUFFIXES and (names := _head(path)) is not None:
        for line, values in _table(path):
            missing = [name for name in (names["query"], names["document"]) if values.get(name) in (None, "")]
            if missing:
                raise DataError(f"{path}, line {line}: column {missing[0]!r} is empty")
            grade = 1.0 if names["grade"] is None else values.get(names["grade"])
            yield str(values[names["query"]]), str(values[names["document"]]), _grade(path, line, grade)
        return
    for line, text in enumerate(read_text(path).splitlines(), 1):
        if not text.strip():
            continue
        parts = text.split()
        if len(parts) != 4:
            raise DataError(
                f"{path}, line {line}: {text.strip()[:60]!r} has {len(parts)} parts; expected `query 0 document "
                "grade`, as TREC has it, or a .csv whose first line names the columns query_id, document_id and grade"
            )
        yield parts[0], parts[2], _grade(path, line, parts[3])


def _head(path: Path) -> dict[str, Any] | None:
    """The columns of a table; None where its first line is no header."""
    if path.suffix.lower() in JSON_LINES:
        seen = set(next(iter(_table(path)), (0, {}))[1])
    else:
        with open_lines(path) as lines:
            seen = {name.strip() for name in TableFile(path).first_values(lines)}
    names = {kind: next((name for name in usual if name in seen), None) for kind, usual in _HEADS.items()}
    if names["query"] is None and names["document"] is None:
        return None
    if lacks := [kind for kind in ("query", "document") if names[kind] is None]:
        raise DataError(
            f"{path} has no column of the {lacks[0]} ({', '.join(_HEADS[lacks[0]])}); it has {sorted(seen)}"
        )
    return names


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in TableFile(path, needed=()).good_rows():
        yield row.line, unwrap(row.values)


def _grade(path: Path, line: int, value: Any) -> float:
    try:
        grade = float(value)
    except (TypeError, ValueError):
        grade = math.nan
    if not math.isfinite(grade):
        raise DataError(f"{path}, line {line}: the grade {value!r} is no number")
    return grade


def read_run(path: Path) -> dict[str, list[IndexHit]]:
    """Read what an engine found, in TREC's form: ``query Q0 document rank score run``; a query -> its hits, best first.

    Raises:
        DataError: it cannot be read, or a line has another form.
    """
    if not path.is_file():
        raise DataError(f"a run: {not_there(path)}")
    ranked: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for line, text in enumerate(read_text(path).splitlines(), 1):
        if not text.strip():
            continue
        parts = text.split()
        if len(parts) not in (5, 6):
            raise DataError(
                f"{path}, line {line}: {text.strip()[:60]!r} has {len(parts)} parts; expected "
                "`query Q0 document rank score run`"
            )
        score, rank = _grade(path, line, parts[4]), _grade(path, line, parts[3])
        ranked[parts[0]].append((-score, rank, parts[2]))
    return {
        query: [IndexHit(document, -score) for score, _, document in sorted(hits)] for query, hits in ranked.items()
    }
