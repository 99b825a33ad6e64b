"""Indexes of OpenSearch and Elasticsearch, by the REST API that both have of a common ancestor.

A scan goes by ``_seq_no``, the number of a document's last change, and not by a point in time, which expires while a
slow reader encodes. A document that changes meanwhile gets a higher number and is read again.
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
from .base import EACH, Description, Document, IndexHit, KnownVectors, OpenIndex, Question, Similarity
from .documents import check_fields, from_base64, make_document, make_hit, pick_vector, value_of

MOST = 10_000
"""Hits of one search, and candidates of one, that both engines allow."""
CANDIDATES = 100
"""Of a search, as the page of these engines has it; with 10, Lucene finds .93 of the exact ten."""
_BUSY = (429, 502, 503, 504)
_HELP = {
    401: ": set RECO_INDEX_USER and RECO_INDEX_PASSWORD, or RECO_INDEX_API_KEY, to those of a user who may read",
    403: "; the user needs `read` and `view_index_metadata` on the index",
}
Body = dict[str, Any]


@dataclass(frozen=True)
class VectorField:
    """What a mapping says of a field of vectors."""

    dimension: int
    metric: Similarity
    index: str  # how it is searched, for people; see :attr:`Description.index`
    shifted: bool = False  # whether a dot product is scored as one of any length; else as one of unit vectors


@dataclass(frozen=True)
class KnownIndex(KnownVectors):
    """What the engine says of an index."""

    fields: Mapping[str, str]  # dotted name -> type
    field: VectorField
    shards: int
    version: tuple[int, ...]  # of the engine; () where it does not say


class DocumentIndex(OpenIndex[httpx.Client, KnownIndex]):
    """An index of documents, or an alias of one."""

    engine: str  # its name
    kind: str  # what it calls the type of a field of vectors
    scheme: str  # what stands before a key in the header

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.only()
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
            return self._late()
        if isinstance(error, httpx.TransportError):
            through = proxy_of(self._address.url)
            return EngineUnavailable(
                f"{place} cannot be reached: {error}. Does it speak TLS? tls=1 or tls=0; an authority of your own is "
                f"ca_file={through}"
            )
        return EngineError(f"{place} answers no JSON") if isinstance(error, ValueError) else None

    def _send(self, method: str, path: str, body: Body | None = None, **params: str) -> Any:
        """The JSON that one request is answered with."""
        return self._ask(
            lambda client: client.request(method, path, json=body, params=params).raise_for_status().json()
        )

    @abstractmethod
    def _read(self, field: Mapping[str, Any], settings: Mapping[str, Any], version: tuple[int, ...]) -> VectorField:
        """Make sense of a field of vectors in a mapping."""

    @abstractmethod
    def _query(self, question: Question, vector: list[float], where: Any) -> Body:
        """The body of a search by the index, as the engine's documentation has it."""

    def _source(self, excluded: list[str]) -> Body:
        """What of a document to send."""
        return {"excludes": excluded}

    def _look(self) -> KnownIndex:
        """The index, its fields and settings, as the engine has them."""
        address, path = self._address, self._address.path
        mappings = self._send("GET", f"/{path}/_mapping")
        if len(mappings) != 1:
            names = " and ".join(map(repr, sorted(mappings)[:3])) or "no index"
            raise EngineError(
                f"{address.place} stands for {names}: name one, since their vectors need not be of one encoder"
            )
        ((name, said),) = mappings.items()
        settings = self._send("GET", f"/{path}/_settings", flat_settings="true").get(name, {}).get("settings", {})
        fields = dict(_walk(said["mappings"].get("properties", {})))
        types = {field: str(kind.get("type", "object")) for field, kind in fields.items()}
        check_fields(address, [*types, "_id"], name, whole=True)
        dense = [field for field, kind in types.items() if kind == self.kind]
        others = {field: kind for field, kind in types.items() if kind != self.kind}
        vector, version = pick_vector(address, dense, others, name), self._version()
        field = self._read(fields[vector], settings, version)
        described = Description(
            engine=" ".join([self.engine, ".".join(map(str, version))]).strip(),
            name=name,
            documents=0,
            vector=vector,
            dimension=field.dimension,
            metric=field.metric,
            index=field.index,
            fields=tuple(types),
            searches_text=address.text is not None,
        )
        return KnownIndex(described, types, field, int(settings.get("index.number_of_shards", 2)), version)

    def _version(self) -> tuple[int, ...]:
        try:
            number = str(self._send("GET", "/")["version"]["number"])
        except EngineUnavailable:
            raise
        except (EngineError, KeyError):  # this user may not know it
            return ()
        return tuple(map(int, re.findall(r"\d+", number.partition("-")[0])))

    def _count(self) -> int:
        return int(self._send("POST", f"/{self._address.path}/_count", {"query": {"match_all": {}}})["count"])

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """By the number of their last change."""
        known, done = self._known, None
        unread = [field for field, kind in known.fields.items() if kind == self.kind]
        unread = [field for field in unread if not vectors or field != known.said.vector]
        body: Body = {
            "size": max(1, min(size, MOST)),
            "sort": [{"_seq_no": "asc"}],
            "track_total_hits": False,
            "_source": self._source(unread),
        }
        while True:
            reached: list[Body] = [{"range": {"_seq_no": {"gt": done}}}] if done is not None else []
            hits = self._hits(body | {"query": {"bool": {"filter": reached}}}, preference="reco-scan")
            if len(hits) == body["size"] and known.shards > 1:  # each shard counts: one more may have the last number
                complete = [hit for hit in hits if hit["sort"] != hits[-1]["sort"]]
                if not complete and body["size"] < MOST:
                    body["size"] = min(2 * body["size"], MOST)
                    continue
                hits = complete or hits
            if not hits:
                return
            done = int(hits[-1]["sort"][0])
            yield [self._document(hit) for hit in hits]

    def _hits(self, body: Body, **params: str) -> list[Body]:
        """What a search finds, in all shards: half of an index would look like an index of half the quality."""
        path = f"/{self._address.path}/_search"
        answer = self._send("POST", path, body, allow_partial_search_results="false", **params)
        if answer.get("timed_out"):
            raise EngineTimeout(f"{self._address.place} did not finish a search in time")
        found: list[Body] = answer["hits"]["hits"]
        return found

    def _document(self, hit: Body) -> Document:
        source, known, address = hit.get("_source", {}), self._known, self._address
        sent = _take(source, known.said.vector)
        vector = None if sent is None else np.asarray(sent, np.float32)
        own = address.id not in (None, "_id")
        id_ = value_of(source, address.id) if own else hit["_id"]
        if address.image is not None and known.fields[address.image] == "binary":
            source[address.image] = from_base64(_take(source, address.image))
        return make_document(address, id_, vector, source, known.said.dimension)

    def _nearest(self, question: Question, vector: Vector) -> list[IndexHit]:
        field = self._known.field
        hits = self._found(question, self._query(question, vector.tolist(), self._where(question)))
        return [self._hit(hit, _score(field, float(hit["_score"]))) for hit in hits]

    def _by_words(self, question: Question) -> list[IndexHit]:
        match = {"match": {str(self._address.text): question.text or ""}}
        query = {"query": {"bool": {"must": match, "filter": self._where(question) or []}}}
        return [self._hit(hit, float(hit["_score"] or 0)) for hit in self._found(question, query)]

    def _found(self, question: Question, body: Body) -> list[Body]:
        named = (self._address.id, self._address.text, self._address.image)
        shown = [name for name in named if name not in (None, "_id")]
        return self._hits(body | {"size": question.k, "_source": False} | ({"fields": shown} if shown else {}))

    def _where(self, question: Question) -> Any:
        """A filter is a clause of the query DSL, or a list of them."""
        try:
            return json.loads(question.where) if question.where else None
        except ValueError as error:
            raise ConfigError(
                f"{self._address.place}: the filter is no JSON, as this engine wants it: {error}"
            ) from None

    def _hit(self, hit: Body, score: float) -> IndexHit:
        address, shown = self._address, {name: values for name, values in hit.get("fields", {}).items() if values}
        id_ = shown.get(address.id or "", [hit["_id"]])[0]
        if address.image is not None and self._known.fields[address.image] == "binary" and address.image in shown:
            shown[address.image] = from_base64(shown[address.image][0])
        return make_hit(address, id_, score, shown)


class OpenSearchIndex(DocumentIndex):
    """An index of OpenSearch with a field of k-NN."""

    engine, kind, scheme = "OpenSearch", "knn_vector", "Bearer"
    _spaces: Mapping[str, Similarity] = {"cosinesimil": "cosine", "innerproduct": "dot", "l2": "euclid"}

    def _read(self, field: Mapping[str, Any], settings: Mapping[str, Any], version: tuple[int, ...]) -> VectorField:
        place, method = self._address.place, field.get("method", {})
        kind = str(field.get("data_type", "float")).lower()
        if kind != "float" or "dimension" not in field:
            raise EngineError(f"{place}: its vectors are of data_type {kind}, and those of float32 are compared")
        space = str(method.get("space_type") or field.get("space_type") or settings.get("index.knn.space_type") or "l2")
        if space not in self._spaces:
            raise EngineError(f"{place}: its vectors are compared by {space}, not by {', '.join(self._spaces)}")
        parameters: Mapping[str, Any] = method.get("parameters", {})
        squeezed = [parameters.get("encoder", {}).get("name"), field.get("mode"), field.get("compression_level")]
        words = " ".join(map(str, filter(None, [method.get("engine"), method.get("name", "hnsw"), *squeezed])))
        return VectorField(int(field["dimension"]), self._spaces[space], words, shifted=True)

    def _query(self, question: Question, vector: list[float], where: Any) -> Body:
        asked: Body = {"vector": vector, "k": min(max(question.k, CANDIDATES), MOST)}
        if where:
            asked["filter"] = {"bool": {"filter": where}} if isinstance(where, list) else where
        return {"query": {"knn": {self._known.said.vector: asked}}}


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
        words = " ".join([str(index["type"]), *numbers]) if index["type"] != "flat" else EACH
        return VectorField(int(field["dims"]), self._metrics[similarity], words, similarity == "max_inner_product")

    def _query(self, question: Question, vector: list[float], where: Any) -> Body:
        asked: Body = {"field": self._known.said.vector, "query_vector": vector, "k": question.k}
        asked["num_candidates"] = min(max(question.k, CANDIDATES), MOST)
        return {"knn": asked | ({"filter": where} if where else {})}

    def _source(self, excluded: list[str]) -> Body:
        """Since 9.2, answers leave vectors out of ``_source`` unless they are asked for."""
        return super()._source(excluded) | ({"exclude_vectors": False} if self._known.version >= (9, 2) else {})


def _score(field: VectorField, score: float) -> float:
    """A score of a search by the index as the metric's own value."""
    if field.metric == "euclid":
        return -math.sqrt(max(0.0, 1 / score - 1))
    if field.metric == "dot" and field.shifted:
        return score - 1 if score >= 1 else 1 - 1 / score
    return 2 * score - 1


def _trust(address: IndexAddress) -> ssl.SSLContext | bool:
    try:
        return ssl.create_default_context(cafile=address.ca_file) if address.ca_file else True
    except OSError as error:  # also ssl.SSLError
        raise ConfigError(f"{address.place}: ca_file={address.ca_file!r} cannot be read: {error}") from None


def _reason(answer: httpx.Response) -> str:
    """The innermost reason that an engine gives."""
    try:
        said = answer.json()
    except ValueError:
        return answer.text[:300]
    error = said.get("error", said) if isinstance(said, dict) else said
    causes = error.get("root_cause", []) if isinstance(error, dict) else []
    words = [cause["reason"] for cause in [*causes, error] if isinstance(cause, dict) and cause.get("reason")]
    return str(words[0] if words else error)[:500]


def _walk(properties: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Body]]:
    """Fields of a mapping by their dotted names, but for those that no document keeps, or several times."""
    for name, field in properties.items():
        if field.get("type") in ("nested", "alias"):
            continue
        if "properties" in field:
            yield from _walk(field["properties"], f"{above}{name}.")
        else:
            yield f"{above}{name}", field


def _take(source: Body, name: str) -> Any:
    """The value of a dotted name, which documents write nested or flat, removed from the document."""
    if name in source:
        return source.pop(name)
    first, _, rest = name.partition(".")
    return _take(source[first], rest) if rest and isinstance(source.get(first), dict) else None
