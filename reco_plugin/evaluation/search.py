"""Every query searched in every way: by plain and refined vectors, by text, and by both fused by rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, EngineError, EngineUnavailable, RecoError
from ..sources.indexes import Description, Engine, IndexHit, IndexQuery, similarities
from ..types import Vectors
from .judgments import Grades, measure_rankings
from .queries import SearchQuery
from .statistics import Figures

ArmName: TypeAlias = str
"""``plain``, ``refined``, ``text``, or ``both``: text search and the better vectors, fused by rank."""
Ranking: TypeAlias = Sequence[IndexHit]
SearchFunction: TypeAlias = Callable[[IndexQuery], Ranking]
ARMS: Mapping[ArmName, str] = {"plain": "plain", "refined": "refined", "text": "text search", "both": "both together"}
RRF_K = 60
"""Rank constant of reciprocal rank fusion, as in its paper."""
_MAX_SCANNED = 1_000_000  # documents whose exact results are computed; one scan takes a minute


@dataclass(frozen=True)
class SearchOptions:
    """Number of results, and the filter of queries without one, in the engine's language; the seed of samples."""

    k: int = 10
    where: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class SearchResults:
    """B queries and the rankings of each arm.

    Attributes:
        kinds: B kinds of queries.
        moved: (B,) cosine distance between the plain and the refined vector.
        hits: arm -> B rankings, best first.
        reasons: B reasons why a query stayed, or moved as far as it did.
        grades: B judgments; None if there are none.
        failed: one message for each arm that the engine refused.
    """

    queries: Sequence[SearchQuery]
    kinds: Sequence[str]
    moved: Figures
    hits: Mapping[ArmName, Sequence[Ranking]]
    options: SearchOptions
    reasons: Sequence[str] = ()
    grades: Sequence[Grades] | None = None
    failed: Sequence[str] = ()

    def ids(self, arm: ArmName) -> list[list[str]]:
        """Document ids of B rankings."""
        return [[hit.id for hit in ranking] for ranking in self.hits[arm]]

    @cached_property
    def judged(self) -> npt.NDArray[np.int64]:
        """(n,) rows of the judged queries."""
        return np.array([row for row, right in enumerate(self.grades or ()) if right], np.int64)

    @cached_property
    def figures(self) -> dict[ArmName, dict[str, Figures]]:
        """Arm -> :meth:`measure`."""
        return {arm: self.measure(hits) for arm, hits in self.hits.items()}

    @cached_property
    def weights(self) -> Figures:
        """(n,) search frequency of the judged queries."""
        return np.array([self.queries[row].weight for row in self.judged.tolist()])

    def measure(self, hits: Sequence[Ranking]) -> dict[str, Figures]:
        """``ndcg`` and ``first`` of B rankings, for the judged queries, (n,) each."""
        rows, grades = self.judged.tolist(), self.grades or ()
        ids = [[hit.id for hit in hits[row]] for row in rows]
        return measure_rankings(ids, [grades[row] for row in rows], self.options.k)

    def of_modality(self, modality: str) -> npt.NDArray[np.bool_]:
        """(n,) mask of the judged queries of a modality."""
        return np.array([self.queries[row].modality == modality for row in self.judged.tolist()], np.bool_)

    def fused(self, vectors: ArmName, weight: float) -> list[list[IndexHit]]:
        """B rankings of text search, with this weight, and of vectors, with the rest; images have vectors alone."""
        pairs = zip(self.queries, self.hits["text"], self.hits[vectors], strict=True)
        return [list(b) if query.text is None else fuse(a, b, k=self.options.k, weight=weight) for query, a, b in pairs]


def fuse(one: Ranking, other: Ranking, *, k: int, weight: float = 0.5) -> list[IndexHit]:
    """Fuse two rankings by reciprocal rank; ``weight`` is that of the first, and the second has the rest of 1.

    Cormack, Clarke and Büttcher, Reciprocal rank fusion outperforms Condorcet and individual rank learning methods,
    SIGIR 2009.

    >>> a, b = [IndexHit("x", 1.0), IndexHit("y", 0.5)], [IndexHit("y", 9.0)]
    >>> [hit.id for hit in fuse(a, b, k=10)], [hit.id for hit in fuse(a, b, k=10, weight=1.0)]
    (['y', 'x'], ['x', 'y'])
    """
    scores, hits = defaultdict[str, float](float), dict[str, IndexHit]()
    for share, ranking in ((weight, one), (1.0 - weight, other)):
        for place, hit in enumerate(ranking, 1):
            scores[hit.id] += share / (RRF_K + place)
            hits.setdefault(hit.id, hit)
    best = sorted(scores, key=lambda id_: -scores[id_])[:k]
    return [replace(hits[id_], score=scores[id_]) for id_ in best]


def plan_searches(
    described: Description, queries: Sequence[SearchQuery], vectors: Mapping[str, Vectors], options: SearchOptions
) -> dict[ArmName, list[IndexQuery | None]]:
    """Plan the searches of B queries by their ``plain`` and ``refined`` vectors, (B, D) each, and by text if possible.

    Returns:
        Arm -> B searches; None for an image in the text search.
    """
    filters = [query.where or options.where for query in queries]
    plan: dict[ArmName, list[IndexQuery | None]] = {
        arm: [IndexQuery(vector, None, options.k, where) for vector, where in zip(vectors[arm], filters, strict=True)]
        for arm in ("plain", "refined")
    }
    if described.searches_text and any(query.text is not None for query in queries):
        plan["text"] = [
            None if query.text is None else IndexQuery(None, query.text, options.k, where)
            for query, where in zip(queries, filters, strict=True)
        ]
    return plan


def search_all(
    search: SearchFunction,
    queries: Sequence[SearchQuery],
    plan: Mapping[ArmName, Sequence[IndexQuery | None]],
    progress: Callable[[int], object] = lambda count: None,
) -> tuple[dict[ArmName, list[Ranking]], list[str]]:
    """Search as planned; returns arm -> B rankings, and a message for a refused text search.

    Raises:
        EngineError: the engine refuses a search by vectors, or cannot be reached.
    """
    rankings: dict[ArmName, list[Ranking]] = {}
    failed: list[str] = []
    for arm, questions in plan.items():
        hits = list[Ranking]()
        try:
            for question in questions:
                hits.append([] if question is None else list(search(question))[: question.k])
                progress(question is not None)
        except EngineUnavailable:
            raise
        except (ConfigError, EngineError) as error:  # ConfigError: a filter that is no JSON
            if isinstance(error, ConfigError) or arm != "text":
                raise _with_filter(error, queries[len(hits)]) from None
            failed.append(f"{arm}: {error}")
        else:
            rankings[arm] = hits
    return rankings, failed


def _with_filter(error: RecoError, query: SearchQuery) -> RecoError:
    """Name the query whose own filter may be the reason."""
    if query.where is None:
        return error
    return type(error)(f"the query {query.id!r} with its filter {query.where!r}: {error}")


def measure_index_recall(
    index: Engine,
    described: Description,
    vectors: Sequence[Vectors],
    queries: Sequence[SearchQuery],
    options: SearchOptions,
) -> list[float]:
    """Mean recall@k of the index against exact search, for each array of query vectors (n, D).

    Raises:
        EngineError: the vectors cannot be read, are too many, or a query has a filter.
    """
    if options.where or any(query.where for query in queries):
        raise EngineError("the queries have filters, and all vectors are compared")
    if not 0 < described.documents <= _MAX_SCANNED:
        raise EngineError(f"its vectors cannot be read, or are more than {_MAX_SCANNED:,}")
    all_vectors, k = np.concatenate(vectors), options.k
    best: list[list[tuple[float, str]]] = [[] for _ in all_vectors]
    for page in index.scan():
        stored = {one.id: one.vector for one in page if one.vector is not None}
        if not stored:
            continue
        block, ids = np.stack(list(stored.values())), list(stored)
        for row, query in enumerate(all_vectors):
            scores = similarities(block, query, described.metric)
            near = [(-float(scores[place]), ids[place]) for place in np.argsort(-scores, kind="stable")[:k]]
            best[row] = sorted([*best[row], *near], key=lambda hit: hit[0])[:k]
    found = [{hit.id for hit in index.search(IndexQuery(query, k=k))} for query in all_vectors]
    shares = [
        len(ids & {id_ for _, id_ in exact}) / len(exact) for ids, exact in zip(found, best, strict=True) if exact
    ]
    return [float(part.mean()) if len(part) else 1.0 for part in np.split(np.array(shares), len(vectors))]
