"""Each query searched in every way: plain, refined, by words, fused by rank, and in a query of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..engines import Description, Engine, IndexHit, Question, similarities
from ..errors import ConfigError, EngineError, EngineUnavailable, RecoError
from ..types import Vectors
from .queries import SearchQuery

ArmName: TypeAlias = str
"""``plain``, ``refined``, ``text``, ``text + plain``, ``text + refined``."""
FoundHits: TypeAlias = Sequence[IndexHit]
AskIndex: TypeAlias = Callable[[Question], Sequence[IndexHit]]
RRF_K = 60
"""Of fusion by rank, as in its paper."""


@dataclass(frozen=True)
class Rankings:
    """What each arm found for B queries."""

    hits: Mapping[ArmName, Sequence[FoundHits]]  # B rankings each, best first
    failed: tuple[str, ...] = ()  # arms that the engine refused, with its words

    def ids(self, arm: ArmName) -> list[list[str]]:
        """Ids of the documents."""
        return [[hit.id for hit in found] for found in self.hits[arm]]


@dataclass(frozen=True)
class SearchHow:
    """How each query is searched."""

    k: int = 10
    where: str | None = None  # in the engine's language, for queries without a filter of their own
    seed: int = 0  # of samples and intervals


def fuse(*rankings: FoundHits, k: int) -> list[IndexHit]:
    """Reciprocal rank fusion; a document that several rankings have comes first.

    Source: Cormack, Clarke and Büttcher, Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods, SIGIR 2009.

    >>> a, b = [IndexHit("x", 1.0), IndexHit("y", 0.5)], [IndexHit("y", 9.0)]
    >>> [hit.id for hit in fuse(a, b, k=10)]
    ['y', 'x']
    """
    scores, shown = dict[str, float](), dict[str, IndexHit]()
    for ranking in rankings:
        for place, hit in enumerate(ranking, 1):
            scores[hit.id] = scores.get(hit.id, 0.0) + 1.0 / (RRF_K + place)
            shown.setdefault(hit.id, hit)
    best = sorted(scores, key=lambda id_: -scores[id_])[:k]
    return [replace(shown[id_], score=scores[id_]) for id_ in best]


def questions(
    queries: Sequence[SearchQuery], vectors: Mapping[str, Vectors], how: SearchHow, described: Description
) -> int:
    """How many searches :func:`search_all` makes."""
    texts = sum(query.text is not None for query in queries)
    return len(vectors) * len(queries) + texts * described.searches_text


def search_all(
    search: AskIndex,
    described: Description,
    queries: Sequence[SearchQuery],
    vectors: Mapping[str, Vectors],
    how: SearchHow,
    progress: Callable[[int], object] = lambda count: None,
) -> Rankings:
    """Search B queries in every way that the index knows.

    Args:
        search: of the engine.
        described: its index.
        queries: B.
        vectors: ``plain`` and ``refined``, (B, D).
        how: the same for all.
        progress: called with the number of searches made.

    Raises:
        EngineError: of a plain or a refined search; a refused text search is noted instead.
    """
    hits: dict[ArmName, list[FoundHits]] = {}
    failed: list[str] = []
    for arm, asked in _arms(described, queries, vectors, how):
        found = list[FoundHits]()
        try:
            for question in asked:
                found.append([] if question is None else list(search(question))[: how.k])
                progress(1)
        except EngineUnavailable:
            raise
        except ConfigError as error:  # a filter that is no JSON
            raise _of_query(error, queries[len(found)]) from None
        except EngineError as error:
            if arm in ("plain", "refined"):
                raise _of_query(error, queries[len(found)]) from None
            failed.append(f"{arm}: {error}")
            continue
        hits[arm] = found
    pairs: tuple[tuple[ArmName, ArmName], ...] = (("plain", "text + plain"), ("refined", "text + refined"))
    for arm, fused in pairs:
        if "text" in hits:
            hits[fused] = [fuse(a, b, k=how.k) for a, b in zip(hits["text"], hits[arm], strict=True)]
    order: tuple[ArmName, ...] = ("plain", "refined", "text", "text + plain", "text + refined")
    return Rankings({arm: hits[arm] for arm in (*order, *hits) if arm in hits}, tuple(failed))


def _of_query(error: RecoError, query: SearchQuery) -> RecoError:
    """The error, with the query whose own filter may be the reason."""
    if query.where is None:
        return error
    return type(error)(f"the query {query.id!r} with its filter {query.where!r}: {error}")


def _arms(
    described: Description, queries: Sequence[SearchQuery], vectors: Mapping[str, Vectors], how: SearchHow
) -> Iterator[tuple[ArmName, Iterator[Question | None]]]:
    """Each arm with its questions; None where a query cannot be asked so."""

    def by_vector(side: str) -> Iterator[Question]:
        for query, vector in zip(queries, vectors[side], strict=True):
            yield Question(vector, None, how.k, query.where or how.where)

    def by_words() -> Iterator[Question | None]:
        for query in queries:
            yield None if query.text is None else Question(None, query.text, how.k, query.where or how.where)

    yield "plain", by_vector("plain")
    yield "refined", by_vector("refined")
    if described.searches_text and any(query.text is not None for query in queries):
        yield "text", by_words()


@dataclass(frozen=True)
class Exactness:
    """How much of what comparing with each vector finds the index finds: of n queries, mean shares of the first k."""

    queries: int
    plain: float
    refined: float


_SCANNED = 1_000_000
"""Documents up to which exact results are found, by one scan for all queries: a minute."""


def measure_exactness(
    index: Engine,
    described: Description,
    vectors: Mapping[str, Vectors],
    how: SearchHow,
    rows: npt.NDArray[np.int64],
    filters: Sequence[str | None] = (),
) -> Exactness:
    """Compare what the index finds with what exact search does, for some rows of the queries (B, D).

    Args:
        index: that is searched.
        described: the same index.
        vectors: ``plain`` and ``refined``, (B, D).
        how: k, and the filter of queries without one of their own.
        rows: of the queries that are asked.
        filters: B, of the queries; empty where none has one.

    Raises:
        EngineError: its vectors cannot be read, are too many, or are searched within filters.
    """
    if how.where or any(filters):
        raise EngineError("the queries have filters, and all vectors are compared")
    if not 0 < described.documents <= _SCANNED:
        raise EngineError(f"its vectors cannot be read, or are more than {_SCANNED:,}")
    asked = {side: vectors[side][rows] for side in ("plain", "refined")}
    exact = _by_scan(index, described, asked, rows, how.k)

    def share(side: str, found: Mapping[int, FoundHits]) -> float:
        shares = []
        for row, hits in found.items():
            best = {hit.id for hit in hits}
            shares += (
                [len({hit.id for hit in index.search(Question(vectors[side][row], k=how.k))} & best) / len(best)]
                if best
                else []
            )
        return float(np.mean(shares)) if shares else 1.0

    return Exactness(len(rows), *(share(side, exact[side]) for side in ("plain", "refined")))


def _by_scan(
    index: Engine, described: Description, asked: Mapping[str, Vectors], rows: npt.NDArray[np.int64], k: int
) -> dict[str, dict[int, FoundHits]]:
    """Side -> row -> the exact first k, of queries (n, D) of each side; memory is bounded by a page."""
    queries = np.concatenate(list(asked.values()))
    best: list[list[IndexHit]] = [[] for _ in queries]
    for page in index.scan():
        there = [one for one in page if one.vector is not None]
        if not there:
            continue
        block = np.stack([one.vector for one in there if one.vector is not None])
        for place, query in enumerate(queries):
            scores = similarities(block, query, described.metric)
            nearest = ((there[row], float(scores[row])) for row in np.argsort(-scores, kind="stable")[:k].tolist())
            found = [IndexHit(one.id, score, one.text, one.image) for one, score in nearest]
            best[place] = sorted([*best[place], *found], key=lambda hit: -hit.score)[:k]
    firsts = iter(best)
    return {side: dict(zip(rows.tolist(), firsts, strict=False)) for side in asked}
