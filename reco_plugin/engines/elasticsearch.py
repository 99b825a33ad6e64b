"""An index of Elasticsearch with a dense_vector: ``elasticsearch://host:9200/products?vector=clip&text=title&id=sku``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import EngineError
from .base import Question, Similarity
from .rest import MOST, NOT_INDEXED, Body, DocumentIndex, KnownIndex, VectorField

CANDIDATES = 100
"""``num_candidates`` of a search, as the page of this engine has it."""
_METRICS: Mapping[str, Similarity] = {
    "cosine": "cosine",
    "dot_product": "dot",
    "max_inner_product": "dot",
    "l2_norm": "euclid",
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
        index: Mapping[str, Any] = field.get("index_options") or {"type": _usual(version, dimension)}
        type_ = str(index["type"])
        numbers = [f"{name}={value}" for name, value in index.items() if name in ("m", "ef_construction")]
        words = " ".join([type_, *numbers]) if type_ != "flat" else "none: each vector is compared"
        return VectorField(
            dimension=dimension,
            metric=_METRICS[similarity],
            index=NOT_INDEXED if field.get("index", True) is False else words,
            score=lambda score: _score(similarity, score),
        )

    def _nearest(self, known: KnownIndex, question: Question, vector: list[float], where: Any) -> Body:
        asked: Body = {"field": known.vector, "query_vector": vector, "k": question.k}
        asked["num_candidates"] = min(max(question.k, CANDIDATES), MOST)
        if where:
            asked["filter"] = where
        return {"knn": asked}

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
