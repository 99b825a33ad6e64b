"""Relevance judgments and blind marks, as files hold them, and rankings measured by them."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from ..errors import DataError
from ..sources.location import describe_missing_file, read_text
from ..sources.tables import SUFFIXES, TableFile
from .queries import SearchQuery, columns_of, normalize, unwrap
from .statistics import Figures

Grades: TypeAlias = Mapping[str, float]
"""Document id -> relevance for one query, above 0; documents that are missing are not relevant."""
_COLUMNS = {
    "query": ("query_id", "qid", "query", "query-id", "user_query", "id"),
    "document": ("document_id", "docid", "doc_id", "document", "doc", "corpus-id", "object_id", "product_id"),
    "grade": ("grade", "rel", "relevance", "rating", "score", "judgment", "label", "clicks", "count"),
}
_COPIED = 0.9  # share of judged texts whose relevant documents are exactly those with that title


@dataclass(frozen=True)
class Judgments:
    """Grades by the id or text of a query.

    Attributes:
        name: the file.
        clicks: whether the grades count clicks.
    """

    by_query: Mapping[str, Grades]
    name: str
    clicks: bool = False

    def of(self, queries: Sequence[SearchQuery]) -> list[Grades]:
        """Grades of each query, looked up by its ids, else by its text; empty if it was not judged."""
        by_text = {normalize(query): grades for query, grades in self.by_query.items()}
        found: list[Grades] = []
        for query in queries:
            matches = [self.by_query[id_] for id_ in query.ids or (query.id,) if id_ in self.by_query]
            if not matches and query.text is not None and (named := by_text.get(normalize(query.text))):
                matches = [named]
            found.append({document: grade for one in matches for document, grade in one.items() if grade > 0})
        return found

    @property
    def documents(self) -> frozenset[str]:
        """All documents that are relevant for some query."""
        return frozenset(doc for grades in self.by_query.values() for doc, grade in grades.items() if grade > 0)


def read_judgments(file: str | Path) -> Judgments:
    """Read TREC's qrels (``query 0 document grade`` a line), or ``.csv``, ``.tsv`` or ``.jsonl``.

    Raises:
        DataError: the file cannot be read, a line has another form, or no grade is above 0.
    """
    path = Path(file)
    if not path.is_file():
        raise DataError(f"judgments: {describe_missing_file(path)}")
    by_query: dict[str, dict[str, float]] = defaultdict(dict)
    columns = _columns(path) if path.suffix.lower() in SUFFIXES else None
    for query, document, grade in _qrels(path) if columns is None else _table(path, columns):
        by_query[query][document] = max(grade, by_query[query].get(document, 0.0))
    judgments = Judgments(by_query, str(path), columns is not None and columns["grade"] in ("clicks", "count"))
    if not judgments.documents:
        raise DataError(f"{path} judges no document as right: all grades are 0 or below")
    return judgments


def _columns(path: Path) -> dict[str, Any] | None:
    """Column names of a table; None if its first line is no header."""
    columns = columns_of(path)
    names = {kind: next((name for name in usual if name in columns), None) for kind, usual in _COLUMNS.items()}
    if names["query"] is None and names["document"] is None:
        return None
    if missing := [kind for kind in ("query", "document") if names[kind] is None]:
        raise DataError(
            f"{path} has no column of the {missing[0]} ({', '.join(_COLUMNS[missing[0]])}); it has {sorted(columns)}"
        )
    return names


def _table(path: Path, columns: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    for row in TableFile(path, needed=()).good_rows():
        values = unwrap(row.values)
        for name in (columns["query"], columns["document"]):
            if values.get(name) in (None, ""):
                raise DataError(f"{path}, line {row.line}: column {name!r} is empty")
        grade = 1.0 if columns["grade"] is None else values.get(columns["grade"])
        yield str(values[columns["query"]]), str(values[columns["document"]]), _grade(path, row.line, grade)


def _qrels(path: Path) -> Iterator[tuple[str, str, float]]:
    for line, text in enumerate(read_text(path).splitlines(), 1):
        parts = text.split()
        if parts and len(parts) != 4:
            raise DataError(
                f"{path}, line {line}: {text.strip()[:60]!r} has {len(parts)} parts; expected `query 0 document grade`,"
                " as TREC has it, or a .csv whose first line names the columns query_id, document_id and grade"
            )
        if parts:
            yield parts[0], parts[2], _grade(path, line, parts[3])


def _grade(path: Path, line: int, value: Any) -> float:
    try:
        grade = float(value)
    except (TypeError, ValueError):
        grade = math.nan
    if not math.isfinite(grade):
        raise DataError(f"{path}, line {line}: the grade {value!r} is no number")
    return grade


def equal_titles(queries: Sequence[SearchQuery], grades: Sequence[Grades], titles: Mapping[str, str]) -> bool:
    """Whether, for nearly all judged texts, the relevant documents are exactly those that have the text as title."""
    named = defaultdict[str, set[str]](set)
    for id_, title in titles.items():
        named[normalize(title)].add(id_)
    judged = [(query.text, right) for query, right in zip(queries, grades, strict=True) if right and query.text]
    same = sum(set(right) == named[normalize(text)] for text, right in judged)
    return bool(judged) and same >= _COPIED * len(judged)


def measure_rankings(ids: Sequence[Sequence[str]], grades: Sequence[Grades], k: int) -> dict[str, Figures]:
    """``ndcg`` (nDCG@k) and ``first`` (whether the first document is relevant) of n rankings, (n,) each.

    Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002, with trec_eval's discount of
    1 / log2(position + 1). A query without relevant documents has 0.

    >>> figures = measure_rankings([["a", "b"], ["c"]], [{"b": 1.0}, {"c": 2.0, "d": 1.0}], 10)
    >>> figures["ndcg"].round(3).tolist(), figures["first"].tolist()
    ([0.631, 0.76], [0.0, 1.0])
    """
    actual, best = np.zeros((len(ids), k)), np.zeros((len(ids), k))
    for row, (ranking, right) in enumerate(zip(ids, grades, strict=True)):
        top = list(dict.fromkeys(ranking))[:k]
        actual[row, : len(top)] = [right.get(id_, 0.0) for id_ in top]
        ideal = sorted(right.values(), reverse=True)[:k]
        best[row, : len(ideal)] = ideal
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    gain, ideal_gain = actual @ discount, best @ discount
    ndcg = np.divide(gain, ideal_gain, out=np.zeros(len(ids)), where=ideal_gain > 0)
    return {"ndcg": ndcg, "first": (actual[:, 0] > 0).astype(np.float64)}


def ranking_distances(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> Figures:
    """One minus the average overlap of B pairs of rankings, (B,): 0 is equal, 1 disjoint; first places count most.

    >>> ranking_distances([["a", "b"]], [["b", "a"]]).tolist(), ranking_distances([["a"]], [["a"]]).tolist()
    ([0.5], [0.0])
    """
    distances = []
    for a, b in zip(one, other, strict=True):
        depth = max(len(a), len(b))
        overlaps = [len(set(a[:place]) & set(b[:place])) / place for place in range(1, depth + 1)]
        distances.append(1.0 - float(np.mean(overlaps)) if overlaps else 0.0)
    return np.array(distances)


Preference: TypeAlias = Literal["refined", "plain", "same"]
ALPHA = 0.05
"""p-value of the sign test below which marks decide."""


@dataclass(frozen=True)
class Marks:
    """The majority's preference for each marked query; a tie is ``same``."""

    by_query: Mapping[str, Preference]
    people: int = 1

    def count(self, preference: Preference) -> int:
        """Number of queries with a preference."""
        return sum(one == preference for one in self.by_query.values())

    @property
    def p(self) -> float:
        """p-value of the two-sided sign test without ties.

        >>> round(Marks({str(n): "plain" if n else "refined" for n in range(10)}).p, 4)
        0.0215
        """
        from scipy.stats import binomtest

        refined, plain = self.count("refined"), self.count("plain")
        return float(binomtest(refined, refined + plain).pvalue) if refined + plain else 1.0

    def __str__(self) -> str:
        who = "one person" if self.people == 1 else f"{self.people} people"
        return (
            f"marked by {who}, blind: refined is better on {self.count('refined'):,} queries, plain on "
            f"{self.count('plain'):,}, {self.count('same'):,} are the same (sign test, p = {self.p:.2g})"
        )


def read_marks(paths: Sequence[Path], key: str) -> Marks:
    """Read the files that the page saved; of one person's marks for a query, the last file's counts.

    Raises:
        DataError: a file cannot be read, was not saved by the page, or has another key than this comparison.
    """
    votes: dict[str, dict[str, Preference]] = defaultdict(dict)  # query -> person -> mark
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            person, saved_key = str(content["person"]), content["key"]
            marks = [(str(mark["query"]), mark["better"]) for mark in content["marks"]]
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path} is no file of marks: save one on the page of `reco compare`") from None
        if saved_key != key:
            raise DataError(
                f"{path} has the key {saved_key!r:.40}, and this comparison has {key!r}: the marks are of another "
                "index, memory or queries, or results have changed since. Mark the page of this comparison"
            )
        for query, better in marks:
            if better not in get_args(Preference):
                raise DataError(f"{path}: a mark is {better!r:.60}, expected one of {', '.join(get_args(Preference))}")
            votes[query][person] = better
    by_query: dict[str, Preference] = {}
    for query, of_people in votes.items():
        given = list(of_people.values())
        margin = given.count("refined") - given.count("plain")
        by_query[query] = "refined" if margin > 0 else "plain" if margin < 0 else "same"
    return Marks(by_query, len({person for of_people in votes.values() for person in of_people}))
