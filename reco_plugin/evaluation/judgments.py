"""What is right for a query: judgments of a file, marks of people; and rankings beside it, and beside one another."""

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
from ..sources.indexes.open_index import IndexHit
from ..sources.location import not_there, read_text
from ..sources.tables import SUFFIXES, TableFile
from .queries import SearchQuery, columns_of, normal, unwrap
from .statistics import Figures

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
    clicks: bool = False  # whether the grades are numbers of clicks

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


def read_judgments(file: str | Path) -> Judgments:
    """Read judgments: ``query 0 document grade`` a line, as TREC has them, or ``.csv``, ``.tsv``, ``.jsonl``.

    Raises:
        DataError: it cannot be read; a line has another form; no grade is above 0.
    """
    path = Path(file)
    if not path.is_file():
        raise DataError(f"judgments: {not_there(path)}")
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for query, document, grade in _judged(path):
        found[query][document] = max(grade, found[query].get(document, 0.0))
    head = _head(path) if path.suffix.lower() in SUFFIXES else None
    judgments = Judgments(found, str(path), head is not None and head["grade"] in ("clicks", "count"))
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
    form = "query 0 document grade`, as TREC has it, or a .csv whose first line names the columns query_id, document_id"
    for line, parts in _trec(path, (4,), f"`{form} and grade"):
        yield parts[0], parts[2], _grade(path, line, parts[3])


def _trec(path: Path, many: tuple[int, ...], form: str) -> Iterator[tuple[int, list[str]]]:
    """Lines of a file of TREC's, by their parts."""
    for line, text in enumerate(read_text(path).splitlines(), 1):
        parts = text.split()
        if parts and len(parts) not in many:
            raise DataError(f"{path}, line {line}: {text.strip()[:60]!r} has {len(parts)} parts; expected {form}")
        if parts:
            yield line, parts


def _head(path: Path) -> dict[str, Any] | None:
    """The columns of a table; None where its first line is no header."""
    seen = columns_of(path)
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
    for line, parts in _trec(path, (5, 6), "`query Q0 document rank score run`"):
        score, rank = _grade(path, line, parts[4]), _grade(path, line, parts[3])
        ranked[parts[0]].append((-score, rank, parts[2]))
    return {
        query: [IndexHit(document, -score) for score, _, document in sorted(hits)] for query, hits in ranked.items()
    }


def judge(ids: Sequence[Sequence[str]], grades: Sequence[Grades], k: int) -> dict[str, Figures]:
    """``ndcg``, nDCG@k, and ``first``, whether the first document is right, of n rankings, (n,) each.

    Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002, with trec_eval's discount of
    1 / log2(position + 1).

    >>> found = judge([["a", "b"], ["c"]], [{"b": 1.0}, {"c": 2.0, "d": 1.0}], 10)
    >>> found["ndcg"].round(3).tolist(), found["first"].tolist()
    ([0.631, 0.76], [0.0, 1.0])

    Args:
        ids: n rankings.
        grades: what is right for each; of a query without anything right, all figures are 0.
        k: depth.
    """
    got, best = np.zeros((len(ids), k)), np.zeros((len(ids), k))
    for row, (ranking, right) in enumerate(zip(ids, grades, strict=True)):
        top = list(dict.fromkeys(ranking))[:k]
        got[row, : len(top)] = [right.get(id_, 0.0) for id_ in top]
        ideal = sorted(right.values(), reverse=True)[:k]
        best[row, : len(ideal)] = ideal
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    gain, ideal_gain = got @ discount, best @ discount
    ndcg = np.divide(gain, ideal_gain, out=np.zeros(len(ids)), where=ideal_gain > 0)
    return {"ndcg": ndcg, "first": (got[:, 0] > 0).astype(np.float64)}


def changes(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> Figures:
    """How far two rankings of each of B queries differ, from 0 to 1: the first places count most.

    One minus the mean overlap of the first 1, 2, … documents.

    >>> changes([["a", "b"]], [["b", "a"]]).tolist(), changes([["a"]], [["a"]]).tolist()
    ([0.5], [0.0])
    """
    out = []
    for a, b in zip(one, other, strict=True):
        depth = max(len(a), len(b))
        shared = [len(set(a[:place]) & set(b[:place])) / place for place in range(1, depth + 1)]
        out.append(1.0 - float(np.mean(shared)) if shared else 0.0)
    return np.array(out)


Better: TypeAlias = Literal["refined", "plain", "same"]
SURE = 0.05
"""Chance of a result as uneven, below which marks decide."""


@dataclass(frozen=True)
class Marks:
    """Queries by what most people marked; a query with as many marks for either side is the same."""

    by_query: Mapping[str, Better]
    people: int = 1

    def count(self, better: Better) -> int:
        """How many queries are better so."""
        return sum(one == better for one in self.by_query.values())

    @property
    def p(self) -> float:
        """Chance of a result at least as uneven if neither were better: the two-sided sign test without ties.

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
    """Read files that the page made. A person's mark of a query counts once: that of the last file.

    Args:
        paths: of the files.
        key: of the page that this comparison makes.

    Raises:
        DataError: a file is missing, is not of the page, or is of a page with other queries, results or index.
    """
    votes: dict[str, dict[str, Better]] = defaultdict(dict)  # query -> person -> mark
    for path in paths:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            person, of = str(told["person"]), told["key"]
            marks = [(str(mark["query"]), mark["better"]) for mark in told["marks"]]
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path} is no file of marks: save one on the page of `reco compare`") from None
        if of != key:
            raise DataError(
                f"{path} has the key {of!r:.40}, and this comparison has {key!r}: the marks are of another index, "
                "memory or queries, or results have changed since. Mark the page of this comparison"
            )
        for query, better in marks:
            if better not in get_args(Better):
                raise DataError(f"{path}: a mark is {better!r:.60}, expected one of {', '.join(get_args(Better))}")
            votes[query][person] = better
    ahead = {query: [*of.values()].count("refined") - [*of.values()].count("plain") for query, of in votes.items()}
    better_of: dict[str, Better] = {
        query: "refined" if more > 0 else "plain" if more < 0 else "same" for query, more in ahead.items()
    }
    return Marks(better_of, len({person for of in votes.values() for person in of}))
