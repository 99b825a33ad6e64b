"""Each query searched in every way: plain, refined, by words, and by words and vectors fused by rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, EngineError, EngineUnavailable, RecoError
from ..sources.indexes.open_index import Description, Engine, IndexHit, Question, similarities
from ..types import Vectors
from .judgments import Grades, judge
from .queries import SearchQuery
from .statistics import Figures

ArmName: TypeAlias = str
"""``plain``, ``refined``, ``text``, ``both``: text search and the better vectors, fused by rank."""
FoundHits: TypeAlias = Sequence[IndexHit]
AskIndex: TypeAlias = Callable[[Question], Sequence[IndexHit]]
ARMS: Mapping[ArmName, str] = {"plain": "plain", "refined": "refined", "text": "text search", "both": "both together"}
RRF_K = 60
"""Of fusion by rank, as in its paper."""


@dataclass(frozen=True)
class SearchHow:
    """How each query is searched."""

    k: int = 10
    where: str | None = None  # in the engine's language, for queries without a filter of their own
    seed: int = 0  # of samples and intervals


@dataclass(frozen=True)
class Searched:
    """B queries, and what each arm found for them.

    Attributes:
        queries: B.
        kinds: B, as people name them.
        moved: (B,) cosine distance of the query's two vectors.
        hits: arm -> B rankings, best first.
        how: k of nDCG@k, and the seed of intervals and halves.
        reasons: B, of a query that stayed or of how far it moved.
        grades: B, what is right; None where nobody judged.
        failed: arms that the engine refused, with its words.
    """

    queries: Sequence[SearchQuery]
    kinds: Sequence[str]
    moved: Figures
    hits: Mapping[ArmName, Sequence[FoundHits]]
    how: SearchHow
    reasons: Sequence[str] = ()
    grades: Sequence[Grades] | None = None
    failed: Sequence[str] = ()

    def ids(self, arm: ArmName) -> list[list[str]]:
        """Ids of the documents."""
        return [[hit.id for hit in found] for found in self.hits[arm]]

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """(n,) of the judged queries."""
        return np.array([row for row, right in enumerate(self.grades or ()) if right], np.int64)

    @cached_property
    def figures(self) -> dict[ArmName, dict[str, Figures]]:
        """Arm -> ``ndcg`` and ``first``, whether the first result is right, (n,) each."""
        return {arm: self.measure(hits) for arm, hits in self.hits.items()}

    @cached_property
    def weights(self) -> Figures:
        """(n,) how often each judged query was searched for."""
        return np.array([self.queries[row].weight for row in self.rows.tolist()])

    def measure(self, hits: Sequence[FoundHits]) -> dict[str, Figures]:
        """``ndcg`` and ``first`` of B rankings for the judged queries, (n,) each."""
        rows, grades = self.rows.tolist(), self.grades or ()
        return judge([[hit.id for hit in hits[row]] for row in rows], [grades[row] for row in rows], self.how.k)

    def of(self, modality: str) -> npt.NDArray[np.bool_]:
        """(n,) which of the judged queries are texts, or images."""
        return np.array([self.queries[row].modality == modality for row in self.rows.tolist()], np.bool_)

    def fused(self, vectors: ArmName, weight: float) -> list[list[IndexHit]]:
        """B rankings of text search, with that weight, and vectors, with the rest of 1; images have vectors alone."""
        pairs = zip(self.queries, self.hits["text"], self.hits[vectors], strict=True)
        return [list(b) if query.text is None else fuse(a, b, k=self.how.k, weight=weight) for query, a, b in pairs]


def fuse(one: FoundHits, other: FoundHits, *, k: int, weight: float = 0.5) -> list[IndexHit]:
    """Reciprocal rank fusion of two rankings, the first with a weight from 0 to 1 and the second with the rest.

    Source: Cormack, Clarke and Büttcher, Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods, SIGIR 2009.

    >>> a, b = [IndexHit("x", 1.0), IndexHit("y", 0.5)], [IndexHit("y", 9.0)]
    >>> [hit.id for hit in fuse(a, b, k=10)], [hit.id for hit in fuse(a, b, k=10, weight=1.0)]
    (['y', 'x'], ['x', 'y'])
    """
    scores, shown = defaultdict[str, float](float), dict[str, IndexHit]()
    for share, ranking in ((weight, one), (1.0 - weight, other)):
        for place, hit in enumerate(ranking, 1):
            scores[hit.id] += share / (RRF_K + place)
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
) -> tuple[dict[ArmName, list[FoundHits]], list[str]]:
    """Search B queries in every way that the index knows: arm -> B rankings, and arms that the engine refused.

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
    return hits, failed


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


_SCANNED = 1_000_000
"""Documents up to which exact results are found, by one scan for all queries: a minute."""


def measure_exactness(
    index: Engine, described: Description, vectors: Sequence[Vectors], queries: Sequence[SearchQuery], how: SearchHow
) -> list[float]:
    """Mean share of the exact first k that the index finds, of each of some arrays of query vectors, (n, D) each.

    Args:
        index: that is searched.
        described: the same index.
        vectors: plain, refined.
        queries: n.
        how: k, and the filter.

    Raises:
        EngineError: its vectors cannot be read, are too many, or are searched within filters.
    """
    if how.where or any(query.where for query in queries):
        raise EngineError("the queries have filters, and all vectors are compared")
    if not 0 < described.documents <= _SCANNED:
        raise EngineError(f"its vectors cannot be read, or are more than {_SCANNED:,}")
    asked = np.concatenate(vectors)
    best: list[list[tuple[float, str]]] = [[] for _ in asked]
    for page in index.scan():
        there = [one for one in page if one.vector is not None]
        if not there:
            continue
        block = np.stack([one.vector for one in there if one.vector is not None])
        for row, query in enumerate(asked):
            scores = similarities(block, query, described.metric)
            near = [(-float(scores[place]), there[place].id) for place in np.argsort(-scores, kind="stable")[: how.k]]
            best[row] = sorted([*best[row], *near], key=lambda hit: hit[0])[: how.k]
    found = [{hit.id for hit in index.search(Question(query, k=how.k))} for query in asked]
    shares = [
        len(ids & {id_ for _, id_ in exact}) / len(exact) for ids, exact in zip(found, best, strict=True) if exact
    ]
    return [float(part.mean()) if len(part) else 1.0 for part in np.split(np.array(shares), len(vectors))]
