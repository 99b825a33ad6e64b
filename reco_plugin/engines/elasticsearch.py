"""An index of Elasticsearch with a dense_vector: ``elasticsearch://host:9200/products?vector=clip&text=title&id=sku``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import elastic_transport
from elasticsearch import Elasticsearch
from elasticsearch.serializer import OrjsonSerializer

from ..config import Settings
from ..errors import EngineError
from .address import IndexAddress
from .base import Question, Similarity
from .rest import MOST, Body, DocumentIndex, KnownIndex, VectorField, cannot_reach, refusal

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

    engine, kind = "Elasticsearch", "dense_vector"

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        for name in ("transport", "node", "node_pool"):  # they warn of what `ask` repeats
            logging.getLogger(f"elastic_transport.{name}").setLevel(logging.ERROR)
        password, key = settings.index_password, settings.index_api_key
        user = address.user or settings.index_user
        self._headers = {"accept": "application/json", "content-type": "application/json"}
        if user:
            words = (user, password.get_secret_value() if password else "")
            self._headers["authorization"] = elastic_transport.client_utils.basic_auth_to_header(words)
        elif key:
            self._headers["authorization"] = f"ApiKey {key.get_secret_value()}"
        options: dict[str, Any] = {"ca_certs": address.ca_file} if address.ca_file else {}
        self._client = Elasticsearch(
            address.url,
            request_timeout=address.timeout_s,
            connections_per_node=16,
            serializer=OrjsonSerializer(),  # a page of vectors is mostly numbers
            **options,
        )

    def close(self) -> None:
        """See :meth:`reco_plugin.engines.base.Engine.close`."""
        self._client.close()

    def _send(self, method: str, path: str, body: Body | None, params: Mapping[str, str]) -> Any:
        place, target = self._address.place, f"{path}?{urlencode(params)}" if params else path
        try:
            # the client itself would ask for JSON of its own major, which an older server refuses; `ask` repeats
            answer = self._client.transport.perform_request(
                method, target, headers=self._headers, body=body, request_timeout=self._address.timeout_s, max_retries=0
            )
        except elastic_transport.ConnectionTimeout as error:
            raise cannot_reach(place, self._address.timeout_s, error, late=True) from None
        except elastic_transport.TlsError as error:
            raise EngineError(f"{place}: TLS fails: {error.message}. An authority of your own is ca_file=") from None
        except elastic_transport.TransportError as error:
            raise cannot_reach(place, self._address.timeout_s, Exception(error.message), late=False) from None

        if answer.meta.status >= 300:
            raise refusal(place, answer.meta.status, answer.body)
        if answer.meta.headers.get("x-elastic-product") != "Elasticsearch":
            raise EngineError(f"{place} is no Elasticsearch, or one before 7.14; OpenSearch is opensearch://")
        return answer.body

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
