"""An index of Elasticsearch with a dense_vector: ``elasticsearch://host:9200/products?vector=clip&text=title&id=sku``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import EngineError
from .base import Question, Similarity
from .rest import MOST, Body, DocumentIndex, KnownIndex, VectorField

CANDIDATES = 100
"""``num_candidates`` of a search, as the page of this engine has it."""
_METRICS: Mapping[str, Similarity] = {
    "cosine": "cosine",
    "dot_product": "dot",
    "max_inner_product": "dot",
    "l2_norm": "euclid",
}
_SCRIPTS = {  # each higher than 0, as scripts must be; taken back in `_exact`
    "cosine": "cosineSimilarity(params.query, params.field) + 1",
    "dot_product": "Math.max(0, dotProduct(params.query, params.field) + 1)",
    "max_inner_product": ("double p = dotProduct(params.query, params.field); return p < 0 ? 1 / (1 - p) : p + 1;"),
    "l2_norm": "1 / (1 + l2norm(params.query, params.field))",
}
_EXCLUDES = (9, 2)
"""Since then answers leave vectors out of ``_source`` unless told otherwise."""


class ElasticsearchIndex(DocumentIndex):
    """An index, or an alias of one."""

    engine, kind, key = "Elasticsearch", "dense_vector", "ApiKey"

    def _read(self, field: Mapping[str, Any], settings: Mapping[str, Any], version: tuple[int, ...]) -> VectorField:
        place, kind = self._address.place, str(field.get("element_type", "float"))
        if kind not in ("float", "bfloat16"):
            raise EngineError(f"{place}: its vectors are of element_type {kind}, and those of float are compared")
        if "dims" not in field:
            raise EngineError(f"{place}: its vectors have no dimension yet: no document has one")
        similarity, dimension = str(field.get("similarity", "cosine")), int(field["dims"])
        if similarity not in _METRICS:
            raise EngineError(
                f"{place}: its vectors are compared by {similarity}, and {', '.join(_METRICS)} are known here"
            )
        usual = "flat" if field.get("index", True) is False else _usual(version, dimension)
        index: Mapping[str, Any] = field.get("index_options") or {"type": usual}
        type_ = str(index["type"])
        numbers = [f"{name}={value}" for name, value in index.items() if name in ("m", "ef_construction")]
        return VectorField(
            dimension=dimension,
            metric=_METRICS[similarity],
            index=" ".join([type_, *numbers]) if type_ != "flat" else "none: each vector is compared",
            score=lambda score: _score(similarity, score),
            exact_score=lambda score: _exact(similarity, score),
            method=similarity,
        )

    def _nearest(self, known: KnownIndex, question: Question, vector: list[float], where: Any) -> Body:
        asked: Body = {"field": known.vector, "query_vector": vector, "k": question.k}
        asked["num_candidates"] = min(max(question.k, CANDIDATES), MOST)
        if where:
            asked["filter"] = where
        return {"knn": asked}

    def _score_script(self, known: KnownIndex, vector: list[float]) -> Body:
        return {"source": _SCRIPTS[known.field.method], "params": {"query": vector, "field": known.vector}}

    def _source(self, known: KnownIndex, excluded: Sequence[str]) -> Body:
        asked = super()._source(known, excluded)
        return asked | {"exclude_vectors": False} if known.version >= _EXCLUDES else asked


def _usual(version: tuple[int, ...], dimension: int) -> str:
    """The kind of index that is made where a mapping says none."""
    if version >= (9, 1) and dimension >= 384:
        return "bbq_hnsw"
    return "int8_hnsw" if not version or version >= (8, 14) else "hnsw"


def _score(similarity: str, score: float) -> float:
    """A score of a search by the index as the metric's own value."""
    match similarity:
        case "l2_norm":
            return -math.sqrt(max(0.0, 1 / score - 1)) if score > 0 else -math.inf
        case "max_inner_product":
            return score - 1 if score >= 1 else 1 - 1 / score if score > 0 else -math.inf
    return 2 * score - 1


def _exact(similarity: str, score: float) -> float:
    """A score of one of :data:`_SCRIPTS` likewise."""
    match similarity:
        case "l2_norm":
            return 1 - 1 / score if score > 0 else -math.inf
        case "max_inner_product":
            return _score(similarity, score)
    return score - 1
