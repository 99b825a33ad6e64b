"""An index of OpenSearch with a field of k-NN: ``opensearch://host:9200/products?vector=clip&text=title&id=sku``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import EngineError
from .base import Question, Similarity
from .rest import MOST, NOT_INDEXED, Body, DocumentIndex, KnownIndex, VectorField

CANDIDATES = 100
"""``k`` of a search by Lucene, where it is what ``ef_search`` is elsewhere; with 10, .93 of the exact ten are found."""
_SPACES: Mapping[str, Similarity] = {"cosinesimil": "cosine", "innerproduct": "dot", "l2": "euclid"}
_ONE_FORMULA = (2, 19)
"""Indexes made since then score a cosine in one way."""
_MARK = 0x08000000
"""In the number of a version, by which OpenSearch tells its own from those of its ancestor."""


class OpenSearchIndex(DocumentIndex):
    """An index, or an alias of one."""

    engine, kind, key = "OpenSearch", "knn_vector", "Bearer"

    def _read(self, field: Mapping[str, Any], settings: Mapping[str, Any], version: tuple[int, ...]) -> VectorField:
        if "model_id" in field:
            model = self._ask("GET", f"/_plugins/_knn/models/{field['model_id']}")
            field = {**field, **model, "method": {"name": "trained", "engine": model.get("engine")}}
        method: Mapping[str, Any] = field.get("method", {})
        kind = str(field.get("data_type", "float")).lower()
        if kind != "float":
            raise EngineError(
                f"{self._address.place}: its vectors are of data_type {kind}, and those of float32 are compared"
            )
        space = str(method.get("space_type") or field.get("space_type") or settings.get("index.knn.space_type") or "l2")
        if space not in _SPACES:
            raise EngineError(
                f"{self._address.place}: its vectors are compared by {space}, and {', '.join(_SPACES)} are known here"
            )
        library = _library(field, method, version)
        created = int(settings.get("index.version.created", 0))
        old = (created ^ _MARK) < 2_19_00_00 if created else bool(version) and version < _ONE_FORMULA
        searchable = str(settings.get("index.knn", "false" if settings else "true")).lower() != "false"
        parameters: Mapping[str, Any] = method.get("parameters", {})
        squeezed = [parameters.get("encoder", {}).get("name"), field.get("mode"), field.get("compression_level")]
        words = " ".join(map(str, filter(None, [library, method.get("name", "hnsw"), *squeezed])))
        return VectorField(
            dimension=int(field["dimension"]),
            metric=_SPACES[space],
            index=words if searchable else NOT_INDEXED,
            score=_scores(space, library if old else ""),
            method=library,
        )

    def _nearest(self, known: KnownIndex, question: Question, vector: list[float], where: Any) -> Body:
        library = known.field.method
        candidates = CANDIDATES if library == "lucene" else question.k
        asked: Body = {"vector": vector, "k": min(max(question.k, candidates), MOST)}
        if where and library == "nmslib":  # which cannot filter while it searches
            return {"query": {"bool": {"must": [{"knn": {known.vector: asked}}], "filter": where}}}
        if where:
            asked["filter"] = {"bool": {"filter": where}} if isinstance(where, list) else where
        return {"query": {"knn": {known.vector: asked}}}


def _library(field: Mapping[str, Any], method: Mapping[str, Any], version: tuple[int, ...]) -> str:
    """What searches; where the mapping leaves it open, what this version takes."""
    if method.get("engine"):
        return str(method["engine"]).lower()
    if field.get("compression_level") == "4x":
        return "lucene"
    return "nmslib" if version and version < (2, 18) and "mode" not in field else "faiss"


def _scores(space: str, old: str) -> Callable[[float], float]:
    """From scores by the index to the metric's own.

    Args:
        space: as OpenSearch names it.
        old: what searches, for an index that was made before 2.19; else empty.
    """
    if space == "l2":
        return _distance
    if space == "innerproduct":
        return _product
    return _halved if old in ("", "lucene") else lambda score: 2 - 1 / score


def _distance(score: float) -> float:
    return -math.sqrt(max(0.0, 1 / score - 1)) if score > 0 else -math.inf


def _product(score: float) -> float:
    return score - 1 if score >= 1 else 1 - 1 / score if score > 0 else -math.inf


def _halved(score: float) -> float:
    return 2 * score - 1
