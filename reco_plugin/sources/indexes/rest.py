"""OpenSearch and Elasticsearch: an index, ``opensearch://host:9200/products?vector=clip&text=title``.

A scan sorts by ``_seq_no``, the number of a document's last change. A point in time would expire while a slow reader
encodes. A document that changes during the scan gets a higher number and is read again.
"""

from __future__ import annotations

import json
import math
import re
import ssl
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from ...errors import ConfigError, EngineError, EngineTimeout, EngineUnavailable, RecoError
from ...proxies import proxy_of, usable_environment
from ...settings import Settings
from ..cells import Vector
from .address import IndexAddress
from .base import EXACT, Description, Document, IndexHit, IndexQuery, OpenIndex, Similarity
from .documents import check_fields, from_base64, make_document, make_hit, pick_metric, pick_vector, value_of

MAX_HITS = 10_000
"""Hits and candidates that both engines allow in one search."""
CANDIDATES = 100
"""Least candidates of a search, as in docs/engines.md; with 10, Lucene finds .93 of the exact ten."""
_BUSY = (429, 502, 503, 504)
_HELP = {
    401: ": set RECO_INDEX_USER and RECO_INDEX_PASSWORD, or RECO_INDEX_API_KEY, to those of a user who may read",
    403: "; the user needs `read` and `view_index_metadata` on the index",
}
Body = dict[str, Any]


@dataclass(frozen=True)
class VectorField:
    """A vector field of a mapping."""

    dimension: int
    metric: Similarity
    index: str  # see :attr:`Description.index`
    is_unbounded: bool = False  # whether scores of dot products allow vectors of any length, not only unit-norm ones


@dataclass(frozen=True, kw_only=True)
class RestIndex(Description):
    """An index, its mapping and settings."""

    types: Mapping[str, str]  # dotted name of a field -> type
    vector_field: VectorField
    shards: int
    version: tuple[int, ...]  # of the engine; () if it is not known


class DocumentIndex(OpenIndex[httpx.Client, RestIndex]):
    """An index of documents, or an alias of one."""

    engine: str  # its name
    kind: str  # its type of vector fields
    scheme: str  # of the authorization header, before the key

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.check_options()
        if not address.path or "/" in address.path:
            raise ConfigError(f"{address.place} names no index: {address.scheme}://HOST:{address.port}/INDEX")

    def _connect(self) -> httpx.Client:
        address = self._address
        with usable_environment():
            return httpx.Client(
                base_url=address.url,
                timeout=address.timeout_s,
                headers={"authorization": f"{self.scheme} {self._key}"} if self._key and not self._user else None,
                auth=(self._user, self._password) if self._user else None,
                verify=_trust(address),
            )

    def _translate(self, error: Exception) -> RecoError | None:
        place = self._address.place
        if isinstance(error, httpx.HTTPStatusError):
            status, words = error.response.status_code, _reason(error.response)
            if status in _BUSY:
                return EngineUnavailable(f"{place} is overloaded or not ready ({status}): {words}")
            return EngineError(f"{place} refuses ({status}): {words}{_HELP.get(status, '')}")
        if isinstance(error, httpx.TimeoutException):
            return self._timeout_error()
        if isinstance(error, httpx.TransportError):
            through = proxy_of(self._address.url)
            return EngineUnavailable(
                f"{place} cannot be reached: {error}. Does it speak TLS? tls=1 or tls=0; an authority of your own is "
                f"ca_file={through}"
            )
        return EngineError(f"{place} answers no JSON") if isinstance(error, ValueError) else None

    def _send(self, method: str, path: str, body: Body | None = None, **params: str) -> Any:
        """Send a request; returns the JSON of the answer."""
        return self._call(
            lambda client: client.request(method, path, json=body, params=params).raise_for_status().json()
        )

    @abstractmethod
    def _read(self, field: Mapping[str, Any], settings: Mapping[str, Any], version: tuple[int, ...]) -> VectorField:
        """Parse a vector field of a mapping."""

    @abstractmethod
    def _query(self, query: IndexQuery, vector: list[float], where: Any) -> Body:
        """The body of a vector search, as in the engine's documentation."""

    def _source(self, excluded: list[str]) -> Body:
        """The ``_source`` of a scan, without some fields."""
        return {"excludes": excluded}

    def _inspect(self) -> RestIndex:
        """Read the index's mapping and settings."""
        address, path = self._address, self._address.path
        mappings = self._send("GET", f"/{path}/_mapping")
        if len(mappings) != 1:
            names = " and ".join(map(repr, sorted(mappings)[:3])) or "no index"
            raise EngineError(
                f"{address.place} is an alias of {names}: name one, since their vectors may be of several encoders"
            )
        ((name, found),) = mappings.items()
        settings = self._send("GET", f"/{path}/_settings", flat_settings="true").get(name, {}).get("settings", {})
        fields = dict(_walk(found["mappings"].get("properties", {})))
        types = {field: str(kind.get("type", "object")) for field, kind in fields.items()}
        check_fields(address, [*types, "_id"], name, whole=True)
        dense = [field for field, kind in types.items() if kind == self.kind]
        others = {field: kind for field, kind in types.items() if kind != self.kind}
        vector, version = pick_vector(address, dense, others, name), self._version()
        field = self._read(fields[vector], settings, version)
        return RestIndex(
            engine=" ".join([self.engine, ".".join(map(str, version))]).strip(),
            name=name,
            documents=0,
            vector=vector,
            dimension=field.dimension,
            metric=field.metric,
            index=field.index,
            fields=tuple(types),
            searches_text=address.text is not None,
            types=types,
            vector_field=field,
            shards=int(settings.get("index.number_of_shards", 2)),
            version=version,
        )

    def _version(self) -> tuple[int, ...]:
        try:
            number = str(self._send("GET", "/")["version"]["number"])
        except EngineUnavailable:
            raise
        except (EngineError, KeyError):  # this user may not read it
            return ()
        return tuple(map(int, re.findall(r"\d+", number.partition("-")[0])))

    def _count(self) -> int:
        return int(self._send("POST", f"/{self._address.path}/_count", {"query": {"match_all": {}}})["count"])

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """See :meth:`Engine.scan`; the order is that of the last changes."""
        known, done = self._description, None
        unread = [field for field, kind in known.types.items() if kind == self.kind]
        unread = [field for field in unread if not vectors or field != known.vector]
        body: Body = {
            "size": max(1, min(size, MAX_HITS)),
            "sort": [{"_seq_no": "asc"}],
            "track_total_hits": False,
            "_source": self._source(unread),
        }
        while True:
            reached: list[Body] = [{"range": {"_seq_no": {"gt": done}}}] if done is not None else []
            hits = self._hits(body | {"query": {"bool": {"filter": reached}}}, preference="reco-scan")
            if len(hits) == body["size"] and known.shards > 1:  # the last number may repeat in other shards
                complete = [hit for hit in hits if hit["sort"] != hits[-1]["sort"]]
                if not complete and body["size"] < MAX_HITS:
                    body["size"] = min(2 * body["size"], MAX_HITS)
                    continue
                hits = complete or hits
            if not hits:
                return
            done = int(hits[-1]["sort"][0])
            yield [self._make_document(hit) for hit in hits]

    def _hits(self, body: Body, **params: str) -> list[Body]:
        """The hits of a search in all shards; a partial result is an error."""
        path = f"/{self._address.path}/_search"
        answer = self._send("POST", path, body, allow_partial_search_results="false", **params)
        if answer.get("timed_out"):
            raise EngineTimeout(f"{self._address.place} did not finish a search in time")
        hits: list[Body] = answer["hits"]["hits"]
        return hits

    def _make_document(self, hit: Body) -> Document:
        source, known, address = hit.get("_source", {}), self._description, self._address
        stored = _take(source, known.vector)
        vector = None if stored is None else np.asarray(stored, np.float32)
        own = address.id not in (None, "_id")
        id_ = value_of(source, address.id) if own else hit["_id"]
        if address.image is not None and known.types[address.image] == "binary":
            source[address.image] = from_base64(_take(source, address.image))
        return make_document(address, id_, vector, source, known.dimension)

    def _search_vector(self, query: IndexQuery, vector: Vector) -> list[IndexHit]:
        field = self._description.vector_field
        hits = self._run_search(query, self._query(query, vector.tolist(), self._where(query)))
        return [self._make_hit(hit, _score(field, float(hit["_score"]))) for hit in hits]

    def _search_text(self, query: IndexQuery) -> list[IndexHit]:
        match = {"match": {str(self._address.text): query.text or ""}}
        body = {"query": {"bool": {"must": match, "filter": self._where(query) or []}}}
        return [self._make_hit(hit, float(hit["_score"] or 0)) for hit in self._run_search(query, body)]

    def _run_search(self, query: IndexQuery, body: Body) -> list[Body]:
        named = (self._address.id, self._address.text, self._address.image)
        shown = [name for name in named if name not in (None, "_id")]
        return self._hits(body | {"size": query.k, "_source": False} | ({"fields": shown} if shown else {}))

    def _where(self, query: IndexQuery) -> Any:
        """Parse a filter: a clause of the query DSL, or a list of clauses."""
        try:
            return json.loads(query.where) if query.where else None
        except ValueError as error:
            raise ConfigError(f"{self._address.place}: the filter must be JSON of the query DSL: {error}") from None

    def _make_hit(self, hit: Body, score: float) -> IndexHit:
        address, shown = self._address, {name: values for name, values in hit.get("fields", {}).items() if values}
        id_ = shown.get(address.id or "", [hit["_id"]])[0]
        if address.image is not None and self._description.types[address.image] == "binary" and address.image in shown:
            shown[address.image] = from_base64(shown[address.image][0])
        return make_hit(address, id_, score, shown)


class OpenSearchIndex(DocumentIndex):
    """An index of OpenSearch with a ``knn_vector``."""

    engine, kind, scheme = "OpenSearch", "knn_vector", "Bearer"
    _spaces: Mapping[str, Similarity] = {"cosinesimil": "cosine", "innerproduct": "dot", "l2": "euclid"}

    def _read(self, field: Mapping[str, Any], settings: Mapping[str, Any], version: tuple[int, ...]) -> VectorField:
        place, method = self._address.place, field.get("method", {})
        kind = str(field.get("data_type", "float")).lower()
        if kind != "float" or "dimension" not in field:
            raise EngineError(f"{place}: its vectors are of data_type {kind}, and those of float32 are compared")
        space = str(method.get("space_type") or field.get("space_type") or settings.get("index.knn.space_type") or "l2")
        metric = pick_metric(self._address, space, self._spaces)
        parameters: Mapping[str, Any] = method.get("parameters", {})
        squeezed = [parameters.get("encoder", {}).get("name"), field.get("mode"), field.get("compression_level")]
        words = " ".join(map(str, filter(None, [method.get("engine"), method.get("name", "hnsw"), *squeezed])))
        return VectorField(int(field["dimension"]), metric, words, is_unbounded=True)

    def _query(self, query: IndexQuery, vector: list[float], where: Any) -> Body:
        knn: Body = {"vector": vector, "k": min(max(query.k, CANDIDATES), MAX_HITS)}
        if where:
            knn["filter"] = {"bool": {"filter": where}} if isinstance(where, list) else where
        return {"query": {"knn": {self._description.vector: knn}}}


class ElasticsearchIndex(DocumentIndex):
    """An index of Elasticsearch with a ``dense_vector``."""

    engine, kind, scheme = "Elasticsearch", "dense_vector", "ApiKey"
    _metrics: Mapping[str, Similarity] = {
        "cosine": "cosine",
        "dot_product": "dot",
        "max_inner_product": "dot",
        "l2_norm": "euclid",
    }

    def _read(self, field: Mapping[str, Any], settings: Mapping[str, Any], version: tuple[int, ...]) -> VectorField:
        place, kind = self._address.place, str(field.get("element_type", "float"))
        if kind not in ("float", "bfloat16"):
            raise EngineError(f"{place}: its vectors are of element_type {kind}, and those of float are compared")
        if "dims" not in field or field.get("index") is False:
            raise EngineError(f"{place}: its vectors are not indexed, or no document has one yet")
        similarity = str(field.get("similarity", "cosine"))
        index: Mapping[str, Any] = field.get("index_options") or {"type": "the usual index"}
        numbers = [f"{name}={value}" for name, value in index.items() if name in ("m", "ef_construction")]
        words = " ".join([str(index["type"]), *numbers]) if index["type"] != "flat" else EXACT
        return VectorField(int(field["dims"]), self._metrics[similarity], words, similarity == "max_inner_product")

    def _query(self, query: IndexQuery, vector: list[float], where: Any) -> Body:
        knn: Body = {"field": self._description.vector, "query_vector": vector, "k": query.k}
        knn["num_candidates"] = min(max(query.k, CANDIDATES), MAX_HITS)
        return {"knn": knn | ({"filter": where} if where else {})}

    def _source(self, excluded: list[str]) -> Body:
        """Since version 9.2, ``_source`` contains vectors only on request."""
        return super()._source(excluded) | ({"exclude_vectors": False} if self._description.version >= (9, 2) else {})


def _score(field: VectorField, score: float) -> float:
    """Convert the score of a vector search to the metric's own value."""
    if field.metric == "euclid":
        return -math.sqrt(max(0.0, 1 / score - 1))
    if field.metric == "dot" and field.is_unbounded:
        return score - 1 if score >= 1 else 1 - 1 / score
    return 2 * score - 1


def _trust(address: IndexAddress) -> ssl.SSLContext | bool:
    try:
        return ssl.create_default_context(cafile=address.ca_file) if address.ca_file else True
    except OSError as error:  # also ssl.SSLError
        raise ConfigError(f"{address.place}: ca_file={address.ca_file!r} cannot be read: {error}") from None


def _reason(answer: httpx.Response) -> str:
    """The innermost reason in an error of the engine."""
    try:
        content = answer.json()
    except ValueError:
        return answer.text[:300]
    error = content.get("error", content) if isinstance(content, dict) else content
    causes = error.get("root_cause", []) if isinstance(error, dict) else []
    words = [cause["reason"] for cause in [*causes, error] if isinstance(cause, dict) and cause.get("reason")]
    return str(words[0] if words else error)[:500]


def _walk(properties: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Body]]:
    """Fields of a mapping by their dotted names, without nested ones and aliases."""
    for name, field in properties.items():
        if field.get("type") in ("nested", "alias"):
            continue
        if "properties" in field:
            yield from _walk(field["properties"], f"{above}{name}.")
        else:
            yield f"{above}{name}", field


def _take(source: Body, name: str) -> Any:
    """Remove the value of a dotted name, nested or flat, from a document and return it."""
    if name in source:
        return source.pop(name)
    first, _, rest = name.partition(".")
    return _take(source[first], rest) if rest and isinstance(source.get(first), dict) else None
